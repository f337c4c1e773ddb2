"""Static membership on a real broker, whose group coordinator knows it."""

from __future__ import annotations

from pathlib import Path

from tests.real.sinks import Place
from tests.running import running_sink, wait_until


def test_second_replica_with_the_same_instance_id_takes_over_and_the_first_says_why_it_ends(
    brokers: str, topic_prefix: str, tmp_path: Path
) -> None:
    place = Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/calls.db")
    place.init()
    given = place.settings(group_instance_id="box-0")
    with running_sink(tmp_path / "first", "run", **given) as first:
        first.wait_for(" assigned: ")
        with running_sink(tmp_path / "second", "run", **given) as second:
            assert wait_until(lambda: first.process.poll() is not None, "the end of the first") or True
            second.wait_for(" assigned: ")
            assert second.stop() == 0
        assert first.process.returncode == 1
        assert "has the same VOICELOG_GROUP_INSTANCE_ID: give each its own" in first.output().splitlines()[-1]
