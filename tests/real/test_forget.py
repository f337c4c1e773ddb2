"""`forget` on a real broker and real stores: gone, and not stored again by a sink that reads it all anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from tests.calls import calls, messages
from tests.real.sinks import Place, stored
from tests.running import committed, ends, produce, running_sink, sink, wait_until
from tests.servers.topics import delete_topics

pytestmark = pytest.mark.real


@pytest.fixture(params=["sqlite", "cql"])
def place(request: pytest.FixtureRequest, brokers: str, topic_prefix: str, tmp_path: Path) -> Iterator[Place]:
    url = f"sqlite:///{tmp_path}/calls.db" if request.param == "sqlite" else request.getfixturevalue("cql_url")
    place = Place(brokers, topic_prefix, url, group=topic_prefix + "sink")
    place.init()
    yield place
    delete_topics(brokers, topic_prefix)


def drained(place: Place, log: Path) -> None:
    """Let a sink read the topics to their ends."""
    with running_sink(log, "run", **place.settings()) as running:
        wait_until(
            lambda: committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics()),
            "everything to be stored",
        )
        assert running.stop() == 0


def test_erased_call_is_not_stored_again_by_a_sink_that_reads_everything_anew(place: Place, tmp_path: Path) -> None:
    events = calls(3)
    gone, *stay = sorted({event.session_id or "" for event in events})
    produce(place.brokers, messages(events), place.prefix)
    drained(place, tmp_path / "first.log")
    given = {name: value for name, value in place.settings().items() if name in {"brokers", "topic_prefix", "store"}}
    ended = sink("forget", gone, "--yes", "--no-wait", "--reason", "ticket 1", "--json", **given)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["sessions"] == [gone]
    assert told["rows"]["voice_interactions"] == 25
    assert set(told["topics_ms"]) == {place.prefix + name for name in
        ("stt-results", "llm-requests", "tts-results", "voice-events", "voicelog-dlq")}  # fmt: skip
    drained(attrs.evolve(place, group=place.prefix + "another"), tmp_path / "second.log")
    with place.opened() as store:
        found = stored(store, [gone, *stay])
        assert {session_id: len(events) for session_id, events in found.items()} == {gone: 0, **dict.fromkeys(stay, 25)}
        for table in ("performance_metrics", "error_logs", "session_summaries", "sessions_by_day"):
            assert gone not in str(list(store.select(table, list(store.partitions(table)))))
