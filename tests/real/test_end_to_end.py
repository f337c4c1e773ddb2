"""The whole path on a real broker and a real CQL database: what was sent is stored once, in order, whatever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.calls import an_error, calls, messages
from tests.real.sinks import Place, by_call, stored
from tests.running import committed, ends, produce, read_topic, running_sink, sink, wait_until

from voicelog.events import SHARDS
from voicelog_sink.rows import hour_of

pytestmark = pytest.mark.real


@pytest.fixture
def place(brokers: str, topic_prefix: str, cql_url: str) -> Place:
    return Place(brokers, topic_prefix, cql_url)


def test_200_calls_of_25_events_are_stored_once_and_in_order(place: Place, tmp_path: Path) -> None:
    place.init()
    sent = calls(200, 25)
    produce(place.brokers, [*messages(sent), *messages([an_error(1)])], place.prefix)
    with running_sink(tmp_path / "log", "run", **place.settings()) as running:
        wait_until(lambda: committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics()),
                   "every offset committed", 120)  # fmt: skip
        with place.opened() as store:
            assert stored(store, by_call(sent)) == by_call(sent)
            hours = {hour_of(event.ts) for event in sent}
            keys = [{"stage_hour": f"llm#{hour}#{shard:02}"} for hour in hours for shard in range(SHARDS)]
            llm = {(str(e.session_id), e.seq) for e in sent if e.stage == "llm"}

            def viewed() -> set[tuple[str, int]]:
                return {(row["session_id"], row["seq"]) for row in store.select("interactions_by_stage", keys)}

            wait_until(lambda: viewed() == llm, "the view's rows")
            wait_until(lambda: len(list(store.partitions("session_summaries"))) == 200, "200 summaries", 120)
            (summary,) = store.select("session_summaries", [{"session_id": "call-7"}])
            received = {name: summary[name] for name in ("expected", "received", "missing", "completeness")}
            assert received == {"expected": 25, "received": 25, "missing": 0, "completeness": "complete"}
        assert running.stop() == 0
        assert "Traceback" not in running.output()
    assert read_topic(place.brokers, f"{place.prefix}voicelog-dlq") == []
    assert sink("init", "--check", **place.settings()).stdout == "ok\n"


def test_init_is_repeatable_and_check_names_what_was_dropped_by_hand(place: Place, cql_admin: Any) -> None:
    assert sink("init", "--check", **place.settings()).returncode == 1
    first = place.init()
    assert f"made topic {place.prefix}stt-results with 4 partitions" in first
    assert place.init() == "ok, nothing to do\n"
    keyspace = place.store.rpartition("/")[2].partition("?")[0]
    cql_admin.execute(f'ALTER TABLE "{keyspace}".error_logs DROP error_stack')
    ended = sink("init", "--check", **place.settings())
    assert (ended.returncode, ended.stderr) == (1, "")
    (line,) = ended.stdout.splitlines()
    assert "error_logs" in line
    assert "error_stack" in line


def test_init_changes_topics_that_differ_and_check_says_each_difference(place: Place) -> None:
    place.init()
    changed = place.settings(topic_partitions=6, topic_retention_ms=3_600_000, topic_compression="lz4")
    found = sink("init", "--check", **changed)
    name = f"{place.prefix}voice-events"
    assert found.returncode == 1
    assert [line for line in found.stdout.splitlines() if name in line] == [
        f"topic {name} has retention.ms=604800000, expected 3600000: voicelog-sink init",
        f"topic {name} has compression.type=zstd, expected lz4: voicelog-sink init",
        f"topic {name} has 4 partitions, expected at least 6: voicelog-sink init",
    ]
    assert f"grew topic {name} from 4 to 6 partitions" in sink("init", **changed).stdout
    assert sink("init", "--check", **changed).stdout == "ok\n"


def test_two_sinks_share_the_work(place: Place, tmp_path: Path) -> None:
    place.init()
    first_half, second_half = calls(60, 25)[:750], calls(60, 25)[750:]
    with running_sink(tmp_path / "a", "run", **place.settings()) as a:
        a.wait_for(f"assigned: {place.prefix}")
        produce(place.brokers, messages(first_half), place.prefix)
        with running_sink(tmp_path / "b", "run", **place.settings()) as b:
            b.wait_for(f"assigned: {place.prefix}")
            produce(place.brokers, messages(second_half), place.prefix)
            wait_until(
                lambda: committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics()),
                "every offset committed",
            )
            assert b.stop() == 0
        assert a.stop() == 0
    with place.opened() as store:
        found = stored(store, by_call(first_half + second_half))
    assert {key: [e.seq for e in events] for key, events in found.items()} == {
        f"call-{n}": list(range(1, 26)) for n in range(60)
    }
