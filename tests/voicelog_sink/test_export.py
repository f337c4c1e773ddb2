"""What an export takes out of a store: every row of a period or call, once. Against a real SQLite file."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder, health, realistic_call, sqlite_store, store_calls, troubled_call

from voicelog.events import Error, ErrorInfo, Event, Log, Metric
from voicelog.settings import load
from voicelog_sink.derived import Deriver
from voicelog_sink.export import CALLS_AT_ONCE, EXPORTS, PARTITIONS_AT_ONCE
from voicelog_sink.queries import sessions
from voicelog_sink.rows import DAY_MS, event_of, rows_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.summary import summarise, summary_of, summary_rows

NOW = START_US // 1000
MINUTE_US = 60_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


def exported(store: Store, since_ms: int, until_ms: int) -> list[Event]:
    return [event_of(row) for row in EXPORTS["events"].between(store, since_ms, until_ms)]


def sorted_events(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.stream_id, event.seq))


def numbered(name: str, number: int, start_us: int) -> CallBuilder:
    built = CallBuilder(f"{name}-{number:03d}", stream_id=f"{number:016x}", start_us=start_us)
    built.started(), built.stage("stt", 5, 20, transcript=f"{number}"), built.ended(30)
    return built


def test_every_event_of_every_call_is_exported_once_call_by_call(store: SqliteStore) -> None:
    calls = [numbered("call", n, START_US - n * 37 * MINUTE_US) for n in range(3 * CALLS_AT_ONCE)]
    calls += [realistic_call("call-long", seed=500, start_us=START_US + 1), troubled_call("call-bad", seed=501)]
    store_calls(store, calls)
    found = exported(store, NOW - 10 * DAY_MS, NOW + DAY_MS)
    assert sorted_events(found) == sorted_events([event for call in calls for event in call.events])
    in_order = [event.session_id for event in found]
    assert [a for a, b in zip(in_order, [None, *in_order], strict=False) if a != b] == [
        call.session_id for call in sorted(calls, key=lambda c: (-(c.start_us // 1000), c.session_id))
    ]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=6), st.lists(st.integers(-6, 6), max_size=3))
def test_periods_side_by_side_hold_every_event_once(
    tmp_path_factory: pytest.TempPathFactory, starts_ms: list[int], cuts_ms: list[int]
) -> None:
    store = sqlite_store(tmp_path_factory.mktemp("periods") / "calls.db")
    calls = [numbered("call", n, START_US + at * 1000) for n, at in enumerate(starts_ms)]
    store_calls(store, calls)
    edges = [NOW - DAY_MS, *sorted(NOW + cut for cut in cuts_ms), NOW + DAY_MS]
    found = [event for a, b in pairwise(edges) for event in exported(store, a, b)]
    assert sorted_events(found) == sorted_events([event for call in calls for event in call.events])
    store.close()


def test_call_belongs_to_the_period_it_began_in_with_all_that_came_after(store: SqliteStore) -> None:
    built = realistic_call()
    store_calls(store, [built])
    assert len(exported(store, NOW, NOW + 1)) == len(built.events)
    assert exported(store, NOW + 1, NOW + DAY_MS) == []


def test_call_that_goes_on_is_exported_as_far_as_it_is_stored(store: SqliteStore) -> None:
    """Its summary is not made yet, or is of fewer events: derived_pending knows of it."""
    calls = [numbered("call", n, START_US + n * 1000) for n in range(4)]
    late = numbered("late", 9, START_US + 60 * MINUTE_US)
    deriver = Deriver(store, "sink-1")
    events = [event for call in [*calls, late] for event in call.events[:2]]
    store.write([*(row for event in events for row in rows_of(event)), *deriver.pending(events, NOW)])
    store_calls(store, calls[:2])
    assert sessions(store, NOW, NOW + DAY_MS, 10) != []
    expected = [event for n, call in enumerate(calls) for event in (call.events if n < 2 else call.events[:2])]
    assert sorted_events(exported(store, NOW, NOW + 1000)) == sorted_events(expected)


def test_call_without_its_beginning_began_with_its_first_event(store: SqliteStore) -> None:
    events = numbered("call", 1, START_US).events[1:]
    store.write([*(row for e in events for row in rows_of(e)), *Deriver(store, "sink-1").pending(events, NOW)])
    assert exported(store, NOW + 5, NOW + 6) == events
    assert exported(store, NOW, NOW + 5) == exported(store, NOW + 6, NOW + DAY_MS) == []


def test_erased_call_is_in_no_export(store: SqliteStore) -> None:
    built = realistic_call()
    store_calls(store, [built])
    store.delete("session_summaries", [{"session_id": built.session_id}])
    assert exported(store, NOW - 1, NOW + 1) == []


def outside(at_us: int) -> list[Event]:
    """Return an event of each kind that needs no call."""
    own: dict[str, Any] = {"stream_id": "process-1", "ts": at_us, "service": "front-desk", "host": "bot-1"}
    return [
        health(at_us),
        Metric(**own, seq=1, name="queue_depth", value=2.0, unit="1"),
        Log(**own, seq=2, level="WARNING", message="slow", attributes={"after_ms": 3}),
        Error(**own, seq=3, error=ErrorInfo(type="OSError", message="no disk")),
    ]


def rows_in(name: str, events: Sequence[Event]) -> list[Values]:
    table = EXPORTS[name].table
    blank = dict.fromkeys(table.columns)
    return [{**blank, **row.values} for event in events for row in rows_of(event) if row.table == table.name]


def by_key(name: str, rows: Sequence[Values]) -> list[Values]:
    return sorted(rows, key=lambda row: [str(row[column]) for column in EXPORTS[name].table.key])


@pytest.mark.parametrize("name", ["metrics", "errors", "health"])
def test_rows_of_a_time_are_exported_once_whether_of_a_call_or_not(store: SqliteStore, name: str) -> None:
    calls = [troubled_call(f"call-{n}", seed=n + 1, start_us=START_US + n * 17 * MINUTE_US) for n in range(30)]
    store_calls(store, calls)
    others = [event for n in range(40) for event in outside(START_US + n * 29 * MINUTE_US)]
    store.write([row for event in others for row in rows_of(event)])
    since_ms, until_ms = NOW + 95 * 60_000, NOW + 400 * 60_000
    expected = rows_in(name, [*others, *(event for call in calls for event in call.events)])
    expected = [row for row in expected if since_ms <= row["ts"] < until_ms]
    found = list(EXPORTS[name].between(store, since_ms, until_ms))
    assert len(found) > 5
    assert by_key(name, found) == by_key(name, expected)


@pytest.mark.parametrize("name", list(EXPORTS))
def test_export_of_a_call_holds_its_rows_alone(store: SqliteStore, name: str) -> None:
    own = troubled_call("call-1")
    own.add(type(health()), 5000, seq=99, component="caller", state="ok", attributes={"rtt_ms": 20})
    store_calls(store, [own, troubled_call("call-2", seed=9)])
    store.write([row for event in outside(START_US) for row in rows_of(event)])
    found = list(EXPORTS[name].of_call(store, "call-1"))
    if name == "sessions":
        assert [summary_of(row) for row in found] == [summarise(own.events)]
    elif name == "events":
        assert sorted_events([event_of(row) for row in found]) == sorted_events(own.events)
    else:
        assert by_key(name, found) == by_key(name, rows_in(name, own.events)) != []


def test_exported_sessions_are_the_list(store: SqliteStore) -> None:
    store_calls(store, [numbered("call", n, START_US + n) for n in range(50)])
    found = [summary_of(row) for row in EXPORTS["sessions"].between(store, NOW, NOW + 1)]
    assert found == sessions(store, NOW, NOW + 1, 100)
    assert len(found) == 50


def test_summary_outlives_its_events(store: SqliteStore) -> None:
    built = realistic_call()
    store_calls(store, [built])
    keys = [{name: row[name] for name in EXPORTS["events"].table.key}
            for row in EXPORTS["events"].of_call(store, "call-1")]  # fmt: skip
    store.delete("voice_interactions", keys)
    assert [summary_of(row) for row in EXPORTS["sessions"].of_call(store, "call-1")] == [summarise(built.events)]


class Alive(dict[str, Any]):
    """A row whose life is counted."""


class CountingStore(SqliteStore):
    """A store that knows how many of the rows it gave out are still held, and how many partitions it was asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(load({"store": f"sqlite:///{path}"}, {})[0], lambda: NOW)
        self.rows = self.held = self.most_held = self.most_partitions = 0

    def _gone(self) -> None:
        self.held -= 1

    def select(self, source: str, partitions: Sequence[Mapping[str, Any]], **bounds: Any) -> Iterator[Values]:
        self.most_partitions = max(self.most_partitions, len(partitions))
        for row in super().select(source, partitions, **bounds):
            given = Alive(row)
            weakref.finalize(given, self._gone)
            self.held += 1
            self.rows += 1
            self.most_held = max(self.most_held, self.held)
            yield given
            del given


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "calls.db"
    store = sqlite_store(path)
    calls = [troubled_call(f"call-{n:03d}", seed=n, start_us=START_US + n * 7 * MINUTE_US) for n in range(300)]
    summaries = [summarise(call.events) for call in calls]
    rows = [row for call in calls for event in call.events for row in rows_of(event)]
    assert store.write(rows + [row for summary in summaries if summary for row in summary_rows(summary)]) == []
    store.close()
    return path


@pytest.mark.parametrize("name", ["events", "sessions", "metrics", "errors"])
def test_however_many_rows_there_are_few_are_held(full: Path, name: str) -> None:
    store = CountingStore(full)
    store.open(1000)
    count = sum(1 for _ in EXPORTS[name].between(store, NOW, NOW + 5 * DAY_MS))
    store.close()
    assert count >= 300
    assert store.rows >= count
    assert store.most_held <= 250  # what is left of a day's list, by shard, and a page of summaries
    assert store.most_partitions <= PARTITIONS_AT_ONCE
