"""Dead letters on a real broker: read without a trace at it, sent back, and stored as if they had never been dead."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from confluent_kafka.admin import AdminClient
from tests.calls import a_call, calls, messages
from tests.real.sinks import Place, by_call, stored
from tests.running import Raw, committed, ends, produce, read_topic, running_sink, wait_until

from voicelog_sink.cli import main
from voicelog_sink.stores.base import Store
from voicelog_sink.tables import ERROR_LOGS, PERFORMANCE_METRICS, VOICE_INTERACTIONS

pytestmark = pytest.mark.real

TABLES = (VOICE_INTERACTIONS, PERFORMANCE_METRICS, ERROR_LOGS)


@pytest.fixture
def place(brokers: str, topic_prefix: str, tmp_path: Path) -> Place:
    return Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/calls.db")


Dlq = Callable[..., list[Any]]


@pytest.fixture
def dlq(place: Place, capsys: pytest.CaptureFixture[str]) -> Dlq:
    def dlq(*args: str) -> list[Any]:
        status = main(["dlq", *args, "--json", "--brokers", place.brokers, "--topic-prefix", place.prefix])
        told = capsys.readouterr()
        assert status == 0, told.err
        return [json.loads(line) for line in told.out.splitlines()]

    return dlq


def drain(place: Place, log: Path, **more: Any) -> None:
    """Run a sink until it has taken all that is in the topics."""
    with running_sink(log, "run", **place.settings(**more)) as running:
        wait_until(
            lambda: committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics()),
            "every offset committed", 120,
        )  # fmt: skip
        assert running.stop() == 0, running.output()


def rows(place: Place) -> dict[str, list[Any]]:
    """Return every row that events became."""
    with place.opened() as store:
        return {table.name: sorted(rows_in(store, table.name), key=repr) for table in TABLES}


def rows_in(store: Store, table: str) -> Iterator[Any]:
    for partition in store.partitions(table):
        for row in store.select(table, [partition]):
            yield sorted(row.items())


@pytest.mark.parametrize("database", ["sqlite", "cql"])
def test_letter_that_is_replayed_twice_is_stored_once_as_if_it_had_never_been_dead(
    place: Place, dlq: Dlq, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    if database == "cql":
        place = attrs.evolve(place, store=request.getfixturevalue("cql_url"))
    place.init()
    sent = [*calls(2, 9), *a_call("call-long", 9)]
    produce(place.brokers, messages(sent), place.prefix)
    never_dead = attrs.evolve(place, store=f"sqlite:///{tmp_path}/other.db", group="other")
    drain(never_dead, tmp_path / "other")
    longest = max(len(m.value or b"") for m in messages(sent))
    drain(place, tmp_path / "log", max_message_bytes=longest - 1)  # a limit too low: the longest are dead
    dead = dlq("list", "--limit", "1000")
    assert {letter["reason"] for letter in dead} == {"too_large"}
    with place.opened() as store:
        assert sum(map(len, stored(store, by_call(sent)).values())) == len(sent) - len(dead)

    would = dlq("replay", "--reason", "too_large", "--dry-run", "--store", place.store)
    assert {shape["outcome"] for shape in would} == {"readable"}
    for _ in range(2):
        assert [s["sent"] for s in dlq("replay", "--reason", "too_large")] == [True] * len(dead)
    drain(place, tmp_path / "log")  # the limit is mended
    assert rows(place) == rows(never_dead)
    with place.opened() as store:
        assert stored(store, by_call(sent)) == by_call(sent)
    assert dlq("list", "--limit", "1000") == dead


def test_message_that_fails_again_comes_back_with_its_count(place: Place, dlq: Dlq, tmp_path: Path) -> None:
    place.init()
    headers = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("empty", b"")]
    produce(place.brokers, [Raw("stt-results", b"\x00 garbage", b"call-0", headers)], place.prefix)
    with running_sink(tmp_path / "log", "run", **place.settings()):
        for times in range(3):
            letters = wait_until(
                lambda times=times: [letter for letter in dlq("list") if letter["replays"] == times],
                f"a letter that was replayed {times} times", 120,
            )  # fmt: skip
            dlq("replay", *(f"{letter['partition']}:{letter['offset']}" for letter in letters))
    letters = dlq("list", "--max-replays", "2", "--oldest-first")
    assert [(letter["replays"], letter["reason"]) for letter in letters] == [(n, "not_json") for n in range(3)]
    assert [m.headers() for m in read_topic(place.brokers, f"{place.prefix}stt-results")] == [
        headers, *([*headers, ("voicelog.replayed", b"%d" % n)] for n in range(1, 4)),
    ]  # fmt: skip


def test_reading_leaves_no_group_and_no_offset_at_the_broker(place: Place, dlq: Dlq) -> None:
    place.init()
    was_in = [("__connect.errors.topic", f"{place.prefix}voice-events".encode()), ("voicelog.reason", b"not_json")]
    produce(place.brokers, [Raw("voicelog-dlq", b"%d" % n, b"%d" % n, was_in) for n in range(50)], place.prefix)
    admin = AdminClient({"bootstrap.servers": place.brokers})
    groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    assert len(dlq("list", "--limit", "100", "--since", "1h")) == 50
    assert dlq("list", "--since", "2100-01-01") == []
    assert len(dlq("replay", "--reason", "not_json")) == 50
    assert {group.group_id for group in admin.list_consumer_groups().result().valid} <= groups
    assert committed(place.brokers, "voicelog-sink-reader", [f"{place.prefix}voicelog-dlq"]) == {}
