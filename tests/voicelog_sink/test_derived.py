"""Summaries recomputed from the store's rows."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.builders import START_US, CallBuilder, health, realistic_call, sqlite_store

from voicelog.events import Event, Metric
from voicelog_sink.derived import Deriver
from voicelog_sink.pending import ADOPT_AFTER_MS, BUCKETS
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Row, Store, StoreUnavailable, Values
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.summary import summarise, summary_rows
from voicelog_sink.work import AFTER_END_MS, AFTER_EVENT_MS, IDLE_MS

NOW = START_US // 1000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


def deriver_of(store: Store, sink_id: str = "sink-1", **settings: Any) -> Deriver:
    """Return a deriver for which work takes no time, so that it never rests."""
    return Deriver(store, sink_id, clock=lambda: 0.0, **settings)


def take_in(store: Store, deriver: Deriver, events: list[Event], now_ms: int = NOW) -> None:
    """Do with a batch what the daemon does, apart from the metrics: test_rollups.py has those."""
    rows = [row for event in events for row in rows_of(event)]
    announced = deriver._session_work.note(events, now_ms)
    assert store.write([*rows, *(Row("derived_pending", values) for values in announced)]) == []


def pending_rows(store: Store) -> list[Values]:
    return list(store.select("derived_pending", [{"bucket": bucket} for bucket in range(BUCKETS)]))


def derived_rows(store: Store, events: list[Event]) -> tuple[list[Values], list[Values]]:
    """Return the derived rows that are there, and those that should be."""
    summary = summarise(events)
    assert summary is not None
    in_table, in_list = summary_rows(summary)
    found = list(store.select("session_summaries", [{"session_id": summary.session_id}]))
    day = {"day": in_list.values["day"], "shard": in_list.values["shard"]}
    return found + list(store.select("sessions_by_day", [day])), [in_table.values, in_list.values]


def test_ended_call_is_summarised_seconds_later_and_nothing_stays_pending(store: Store) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events)
    assert deriver.run_due(NOW + AFTER_END_MS - 1) == 0
    assert [row["key"] for row in pending_rows(store)] == ["call-1"]
    assert deriver.run_due(NOW + AFTER_END_MS) == 1
    found, expected = derived_rows(store, events)
    assert found == expected
    assert pending_rows(store) == []
    assert deriver.sessions == 0


def test_call_that_goes_on_is_summarised_within_a_minute_and_stays_pending(store: Store) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events[:5])
    assert deriver.run_due(NOW + 60_000) == 1
    found, expected = derived_rows(store, events[:5])
    assert found == expected
    assert len(pending_rows(store)) == 1
    assert deriver.run_due(NOW + 60_000 + IDLE_MS) == 0
    assert pending_rows(store) == []


def test_late_event_of_an_ended_call_is_taken_into_its_summary(store: Store) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events[:3] + events[4:])
    deriver.run_due(NOW + AFTER_END_MS)
    take_in(store, deriver, [events[3]], NOW + 600_000)
    assert deriver.run_due(NOW + 600_000 + AFTER_EVENT_MS) == 1
    found, expected = derived_rows(store, events)
    assert found == expected


def test_many_calls_are_summarised_each_from_its_own_rows(store: Store) -> None:
    deriver = deriver_of(store)
    calls = [realistic_call(f"call-{number}", seed=number, turns=1 + number % 3) for number in range(80)]
    take_in(store, deriver, [event for call in calls for event in call.events])
    assert deriver.run_all(NOW) == 80
    assert pending_rows(store) == []
    for call in calls:
        (summary,) = store.select("session_summaries", [{"session_id": call.session_id}])
        whole = summarise(call.events)
        assert whole is not None
        assert summary == summary_rows(whole)[0].values


def test_events_without_a_session_are_nobodys_work(store: Store) -> None:
    assert deriver_of(store).pending([health()], NOW) == []


def test_call_without_rows_gets_no_summary(store: Store) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    store.write(deriver.pending(events, NOW))
    deriver.run_all(NOW)
    assert list(store.select("session_summaries", [{"session_id": "call-1"}])) == []


class Interrupting(SqliteStore):
    """A store during whose reading another event is stored: what a second sink thread would do."""

    during: Any = None

    def select(self, source: str, *arguments: Any, **named: Any) -> Iterator[Values]:
        yield from super().select(source, *arguments, **named)
        if self.during is not None and source == "voice_interactions":
            during, self.during = self.during, None
            during()


def test_event_stored_while_its_call_is_recomputed_leaves_it_pending(tmp_path: Path) -> None:
    sqlite_store(tmp_path / "calls.db").close()
    plain = sqlite_store(tmp_path / "calls.db")
    store = Interrupting(_settings(tmp_path), lambda: NOW)
    store.open(1000)
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events[:3] + events[4:])
    store.during = lambda: take_in(plain, deriver, [events[3]])
    assert deriver.run_due(NOW + AFTER_END_MS) == 1
    assert len(pending_rows(store)) == 1
    assert deriver.run_due(NOW + AFTER_EVENT_MS) == 1
    found, expected = derived_rows(store, events)
    assert found == expected
    store.close(), plain.close()


def _settings(tmp_path: Path) -> Any:
    from voicelog.settings import load

    return load({"store": f"sqlite:///{tmp_path / 'calls.db'}"}, {})[0]


def test_store_that_is_away_loses_no_work(store: SqliteStore) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events)
    store.close()
    with pytest.raises(StoreUnavailable):
        deriver.run_due(NOW + AFTER_END_MS)
    store.open(1000)
    assert deriver.run_due(NOW + AFTER_END_MS + 1000) == 1
    assert pending_rows(store) == []


def test_work_of_a_dead_sink_is_adopted_after_some_minutes(store: Store) -> None:
    events = realistic_call().events
    take_in(store, deriver_of(store), events)
    other = deriver_of(store, "sink-2")
    assert other.adopt(NOW + ADOPT_AFTER_MS - 1) == 0
    assert other.adopt(NOW + ADOPT_AFTER_MS) == 1
    assert other.adopt(NOW + ADOPT_AFTER_MS) == 0
    assert other.run_due(NOW + ADOPT_AFTER_MS) == 1
    found, expected = derived_rows(store, events)
    assert found == expected
    assert pending_rows(store) == []


def test_everything_is_adopted_at_once_when_asked(store: Store) -> None:
    take_in(store, deriver_of(store), realistic_call().events)
    other = deriver_of(store, "sink-2")
    assert other.adopt(NOW, everything=True) == 1
    assert other.run_due(NOW) == 1
    assert pending_rows(store) == []


def test_own_work_from_before_a_restart_is_adopted_at_once(store: Store) -> None:
    take_in(store, deriver_of(store), realistic_call().events)
    assert deriver_of(store).adopt(NOW) == 1


def test_calls_above_the_limit_are_done_later(store: Store) -> None:
    deriver = deriver_of(store, max_sessions=2)
    calls = [realistic_call(f"call-{number}", turns=1) for number in range(5)]
    take_in(store, deriver, [event for call in calls for event in call.events])
    done = 0
    for _ in range(3):
        assert deriver.sessions <= 2
        done += deriver.run_all(NOW)
        deriver.adopt(NOW)
    assert done == 5
    assert pending_rows(store) == []


def test_call_that_can_not_be_computed_holds_up_no_other_and_is_told_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deriver = deriver_of(store)
    for name in ("call-1", "call-2", "call-3", "call-4"):
        take_in(store, deriver, realistic_call(name, turns=1).events)
    with sqlite3.connect(tmp_path / "calls.db") as db:
        db.execute(
            "UPDATE voice_interactions SET usage = '{' WHERE session_id IN ('call-2', 'call-3') AND stage = 'llm'"
        )
    db.close()
    with caplog.at_level(logging.WARNING):
        deriver.run_all(NOW)
    assert [row["session_id"] for name in ("call-1", "call-2", "call-3", "call-4")
            for row in store.select("session_summaries", [{"session_id": name}])] == ["call-1", "call-4"]  # fmt: skip
    assert sorted(row["key"] for row in pending_rows(store)) == ["call-2", "call-3"]
    assert deriver.sessions == 0
    assert deriver.failed_total == 2
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "the summary of session 'call-2' can't be computed, its events are stored"
    ]


def test_work_ends_when_its_time_is_over(store: Store) -> None:
    ticks = iter(range(1000))
    deriver = Deriver(store, "sink-1", clock=lambda: next(ticks) * 0.15)
    calls = [CallBuilder(f"call-{number}") for number in range(100)]
    take_in(store, deriver, [call.ended(0) for call in calls])
    assert deriver.run_due(NOW + AFTER_END_MS, budget_ms=200) == 32
    assert deriver.run_all(NOW + AFTER_END_MS) == 68


@pytest.mark.parametrize(("idle", "rested_s"), [(False, 0.1 / 0.15 - 0.1), (True, 0.1)])
def test_work_takes_at_most_its_share_of_the_time_and_a_larger_one_where_nothing_waits(
    tmp_path: Path, idle: bool, rested_s: float
) -> None:
    sqlite_store(tmp_path / "calls.db").close()
    store, now_s = Interrupting(_settings(tmp_path), lambda: NOW), [0.0]
    store.open(1000)
    deriver = Deriver(store, "sink-1", clock=lambda: now_s[0])
    store.during = lambda: now_s.__setitem__(0, 0.1)
    take_in(store, deriver, [CallBuilder("call-1").ended(0)])
    assert deriver.run_due(NOW + AFTER_END_MS) == 1
    take_in(store, deriver, [CallBuilder("call-2").ended(0)])
    for at_s, done in ((0.1, 0), (0.1 + rested_s - 0.01, 0), (0.1 + rested_s + 0.01, 1)):
        now_s[0] = at_s
        assert deriver.run_due(NOW + AFTER_END_MS, idle=idle) == done
    store.close()


def test_what_waits_can_be_asked_for_by_a_thread_while_another_works(store: Store) -> None:
    deriver = deriver_of(store)
    names = [f"call-{number}" for number in range(3_000)]
    events: list[Event] = [
        Metric(name="depth", value=1.0, session_id=name, stream_id=name, seq=1, ts=START_US) for name in names
    ]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            noted = pool.submit(lambda: [deriver.pending([event], NOW) for event in events])
            seen = [0]
            while not noted.done():
                seen.append(deriver.waiting(NOW)[0])
    finally:
        sys.setswitchinterval(interval_s)
    assert len(noted.result()) == len(events)
    assert seen == sorted(seen)
    assert deriver.waiting(NOW)[0] == len(names) + 1


def test_slow_turns_are_counted_from_where_the_setting_says(store: Store) -> None:
    call = CallBuilder("call-1")
    events = [call.turn(0, 1500, {"user_speech_end": 0, "playback_start": 1000}), call.ended(1500)]
    deriver = deriver_of(store, slow_turn_ms=1000)
    take_in(store, deriver, events)
    deriver.run_all(NOW + AFTER_END_MS)
    (row,) = store.select("session_summaries", [{"session_id": "call-1"}])
    assert row["slow_turns"] == 1
