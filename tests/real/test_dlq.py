"""Dead letters on a real broker: read without a trace at it, sent back, and stored as if they had never been dead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from tests.calls import a_call, calls, messages
from tests.real.sinks import Place, by_call, stored
from tests.running import Raw, committed, ends, produce, read_topic, running_sink, sink, wait_until

from voicelog.events import Event
from voicelog_sink.tables import ERROR_LOGS, PERFORMANCE_METRICS, VOICE_INTERACTIONS

pytestmark = pytest.mark.real


@pytest.fixture
def place(brokers: str, topic_prefix: str, tmp_path: Path) -> Place:
    return Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/calls.db")


def dlq(place: Place, *args: str) -> Any:
    settings = {name: place.settings()[name] for name in ("brokers", "topic_prefix", "start_timeout_ms")}
    ended = sink("dlq", *args, **settings)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()] if "--json" in args else ended.stdout


def drain(place: Place, log: Path, **more: Any) -> None:
    """Run a sink until it has taken all that is in the topics."""
    with running_sink(log, "run", **place.settings(**more)) as running:
        wait_until(
            lambda: committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics()),
            "every offset committed", 120,
        )  # fmt: skip
        assert running.stop() == 0, running.output()


def rows(place: Place) -> dict[str, list[Any]]:
    """Return every row that events became, without what says when it was written."""
    tables = (VOICE_INTERACTIONS, PERFORMANCE_METRICS, ERROR_LOGS)
    with place.opened() as store:
        return {
            table.name: sorted((dict(row) for key in store.partitions(table.name) for row in store.select(table.name, [key])),
                               key=lambda row: json.dumps(row, default=str, sort_keys=True))
            for table in tables
        }  # fmt: skip


def long_call() -> list[Event]:
    return a_call("call-long", 9)


def test_letter_that_is_replayed_twice_is_stored_once_as_if_it_had_never_been_dead(
    place: Place, tmp_path: Path
) -> None:
    place.init()
    sent = [*calls(2, 9), *long_call()]
    produce(place.brokers, messages(sent), place.prefix)
    short = max(len(m.value or b"") for m in messages(sent)) - 1
    drain(place, tmp_path / "log", max_message_bytes=short)  # a limit too low: the longest are dead
    dead = dlq(place, "list", "--json", "--limit", "1000")
    assert dead
    assert {letter["reason"] for letter in dead} == {"too_large"}
    with place.opened() as store:
        assert len([e for events in stored(store, by_call(sent)).values() for e in events]) == len(sent) - len(dead)

    assert {s["outcome"] for s in dlq(place, "replay", "--reason", "too_large", "--dry-run", "--json")} == {"readable"}
    for _ in range(2):
        assert [s["sent"] for s in dlq(place, "replay", "--reason", "too_large", "--json")] == [True] * len(dead)
    drain(place, tmp_path / "log")  # the limit is mended
    never_dead = Place(place.brokers, place.prefix, f"sqlite:///{tmp_path}/other.db", "other")
    drain(never_dead, tmp_path / "other")
    assert rows(place) == rows(never_dead)
    with place.opened() as store:
        assert stored(store, by_call(sent)) == by_call(sent)
    assert len(dlq(place, "list", "--json", "--limit", "1000")) == len(dead)


def test_message_that_fails_again_comes_back_with_its_count(place: Place, tmp_path: Path) -> None:
    place.init()
    headers = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("empty", b"")]
    produce(place.brokers, [Raw("stt-results", b"\x00 garbage", b"call-0", headers)], place.prefix)
    drain(place, tmp_path / "log")
    for times in range(1, 3):
        never = dlq(place, "list", "--json", "--max-replays", str(times - 1))
        again = [letter for letter in never if letter["replays"] == times - 1]
        assert len(again) == 1
        dlq(place, "replay", f"{again[0]['partition']}:{again[0]['offset']}")
        drain(place, tmp_path / "log")
    letters = dlq(place, "list", "--json", "--oldest-first")
    assert [(letter["replays"], letter["reason"]) for letter in letters] == [(n, "not_json") for n in range(3)]
    assert [m.headers() for m in read_topic(place.brokers, f"{place.prefix}stt-results")] == [
        headers,
        [*headers, ("voicelog.replayed", b"1")],
        [*headers, ("voicelog.replayed", b"2")],
    ]


def test_reading_leaves_no_group_and_no_offset_at_the_broker(place: Place, tmp_path: Path) -> None:
    place.init()
    produce(place.brokers, [Raw("voice-events", b"garbage %d" % n, b"%d" % n) for n in range(50)], place.prefix)
    drain(place, tmp_path / "log")
    admin = AdminClient({"bootstrap.servers": place.brokers})
    groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    assert len(dlq(place, "list", "--json", "--limit", "100", "--since", "1h")) == 50
    assert dlq(place, "list", "--json", "--since", "2100-01-01") == []
    dlq(place, "replay", "--all", "--json")
    assert {group.group_id for group in admin.list_consumer_groups().result().valid} == groups
    assert committed(place.brokers, "voicelog-sink-reader", [f"{place.prefix}voicelog-dlq"]) == {}
