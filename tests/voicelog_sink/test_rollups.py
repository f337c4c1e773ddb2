"""Rollups recomputed from the store's rows: the same whatever was delivered how often, in which order, to whom."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder, health, realistic_call, sqlite_store

from voicelog.events import Event, Figure, Metric, Turn
from voicelog_sink.derived import Deriver
from voicelog_sink.parts import measurements
from voicelog_sink.pending import ADOPT_AFTER_MS, BUCKETS
from voicelog_sink.percentiles import percentiles
from voicelog_sink.rank import erased
from voicelog_sink.rollup import Minutes, Rollup, name_row, start_ms_of, unpack
from voicelog_sink.rollup_work import AFTER_EVENT_MS
from voicelog_sink.rows import rows_of
from voicelog_sink.sketch import RELATIVE_ERROR, quantile
from voicelog_sink.stores.base import Row, Store, StoreUnavailable, Values
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.summary import summarise, summary_rows
from voicelog_sink.tables import METRIC_ROLLUPS, TABLES

NOW = START_US // 1000
HOUR = "2026-11-22T10"
DERIVED = ("metric_rollups", "metric_names", "session_summaries", "sessions_by_day")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


def deriver_of(store: Store, sink_id: str = "sink-1", **settings: Any) -> Deriver:
    """Return a deriver for which work takes no time, so that it never rests."""
    return Deriver(store, sink_id, clock=lambda: 0.0, **settings)


def take_in(store: Store, deriver: Deriver, events: Iterable[Event], now_ms: int = NOW) -> None:
    """Do with a batch what the daemon does."""
    rows = [row for event in events for row in rows_of(event)]
    assert store.write([*rows, *deriver.pending(list(events), now_ms)]) == []


def table(store: Store, name: str) -> list[Values]:
    rows = [row for partition in store.partitions(name) for row in store.select(name, [partition])]
    return sorted(rows, key=lambda row: [str(row[column]) for column in TABLES[name].key])


def pending_rows(store: Store) -> list[Values]:
    return list(store.select("derived_pending", [{"bucket": bucket} for bucket in range(BUCKETS)]))


def derived_from(events: Iterable[Event]) -> dict[str, list[Values]]:
    """Return the derived rows of all the events, computed at once: no minute is merged into an hour."""
    events = list(events)
    by_session: dict[str, list[Event]] = {}
    for event in events:
        by_session.setdefault(event.session_id or "", []).append(event)
    rows: list[Row] = []
    for tier, length_us in (("minute", 60_000_000), ("hour", 3_600_000_000), ("day", 86_400_000_000)):
        times = Minutes()
        for place, grouped in measurements(attrs.evolve(e, ts=e.ts // length_us * length_us) for e in events).items():
            for group, measured in grouped.items():
                times.add(place.minute, group, measured)
        for cell, rollup in times.rollups.items():
            hour = HOUR[:11] + f"{cell.minute // 60 % 24:02d}"
            rows.append(rollup.row(cell.name, tier, hour, cell.minute * 60_000, cell.dimensions))
        rows += [name_row(name, HOUR) for name in times.names] if tier == "day" else []
    for session_id, its in by_session.items():
        summary = summarise(its) if session_id else None
        rows += summary_rows(summary) if summary else []
    found: dict[str, list[Values]] = {name: [] for name in DERIVED}
    for name, values in rows:
        found[name].append({**dict.fromkeys(TABLES[name].columns), **values})
    return {n: sorted(v, key=lambda row: [str(row[c]) for c in TABLES[n].key]) for n, v in found.items()}


def forget_parts(store: Store) -> None:
    store.delete("metric_parts", table(store, "metric_parts"))


def test_minute_hour_and_day_are_rolled_up_within_a_minute_of_the_events(store: Store) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events)
    deriver.run_due(NOW + 60_000)
    assert {name: table(store, name) for name in DERIVED} == derived_from(events)
    assert {row["tier"] for row in table(store, "metric_rollups")} == {"minute", "hour", "day"}


def test_late_event_changes_its_own_minute_hour_and_day(store: Store) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events)
    deriver.run_all(NOW)
    late = CallBuilder("call-9", stream_id="late")
    late.stage("llm", 30_000, 999, provider="openai", model="gpt-4o-mini")
    take_in(store, deriver, late.events, NOW + 7_200_000)
    deriver.run_due(NOW + 7_200_000 + AFTER_EVENT_MS)
    assert table(store, "metric_rollups") == derived_from([*events, *late.events])["metric_rollups"]


def test_nothing_stays_pending_and_a_second_run_writes_nothing(store: Store, tmp_path: Path) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events)
    deriver.run_all(NOW)
    before = table(store, "metric_rollups")
    assert pending_rows(store) == []
    assert (deriver.hours, deriver.sessions, deriver.waiting(NOW)) == (0, 0, (0, 0.0))
    take_in(store, deriver, events, NOW)
    deriver.run_all(NOW)
    assert table(store, "metric_rollups") == before


def test_what_waits_is_counted_with_its_age(store: Store) -> None:
    deriver = deriver_of(store)
    call = CallBuilder()
    call.stage("llm", 0, 1)
    take_in(store, deriver, call.events)
    assert deriver.waiting(NOW + 5_000) == (2, 5.0)
    deriver.run_all(NOW)
    assert deriver.waiting(NOW + 9_000) == (0, 0.0)


class Dying(SqliteStore):
    """A store that fails at the call it is told to."""

    calls_left = -1

    def _count(self) -> None:
        self.calls_left -= 1
        if self.calls_left == -1:
            message = "killed here"
            raise StoreUnavailable(message)

    def write(self, rows: Any) -> Any:
        self._count()
        return super().write(rows)

    def delete(self, *given: Any) -> None:
        self._count()
        super().delete(*given)

    def tuples(self, *given: Any, **named: Any) -> Any:
        self._count()
        return super().tuples(*given, **named)


def some_events(random: Random) -> list[Event]:
    calls = [CallBuilder(f"call-{n}", stream_id=f"s{n}", variant="ab"[n % 2]) for n in range(3)]
    for call in calls:
        for _ in range(random.randint(1, 6)):
            at_ms = random.choice([0, 59_999.9, 60_000, 3_599_999, 3_600_000, 5_400_000]) + random.random()
            status = random.choice(["ok", "ok", "error"])
            call.stage("llm", at_ms, random.lognormvariate(6, 1), first_item_ms=random.choice([None, 5.0]),
                       status=status, cost_usd=random.choice([None, 0.1, 0.03]))  # fmt: skip
            call.add(Metric, at_ms, name=random.choice(["llm", "depth"]), value=random.gauss(0, 1), unit="1")
        figure = Figure(value_ms=random.lognormvariate(6, 1), quality=random.choice(["ok", "estimated"]))
        call.add(Turn, 100, figures={"llm_ttft_ms": figure}, user_bot_latency_ms=figure.value_ms)
        call.ended(6_000_000)
    return [event for call in calls for event in call.events]


def run_until_it_dies(store: Dying, deriver: Deriver, now_ms: int, budget_ms: float) -> bool:
    """Return whether the sink lives on; it rests nowhere, so that it stops anywhere in what it does."""
    try:
        deriver.run_due(now_ms, budget_ms)
    except StoreUnavailable:
        return False
    return True


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.randoms(use_true_random=False), st.data())
def test_any_delivery_by_any_sinks_that_die_anywhere_ends_in_the_same_rows(random: Random, data: st.DataObject) -> None:
    store = Dying(_settings(), lambda: NOW)
    store.open(1000), store.init()
    events = some_events(random)
    delivered = events + random.sample(events, len(events) // 2)
    random.shuffle(delivered)
    now_ms, sinks = NOW, [0, 0]
    derivers = [deriver_of(store, "sink-0.0"), deriver_of(store, "sink-1.0")]
    while delivered:
        who, size = random.randrange(2), data.draw(st.integers(1, 12))
        batch, delivered = delivered[:size], delivered[size:]
        store.calls_left = data.draw(st.sampled_from([-1, 0, 1, 2, 5, 9, 14, 20, 30]))
        alive = True
        try:
            take_in(store, derivers[who], batch, now_ms)
        except StoreUnavailable:
            delivered, alive = batch + delivered, False
        now_ms += data.draw(st.sampled_from([0, 40_000, ADOPT_AFTER_MS]))
        if not alive or not run_until_it_dies(store, derivers[who], now_ms, 1e9):
            sinks[who] += 1
            derivers[who] = deriver_of(store, f"sink-{who}.{sinks[who]}")
        store.calls_left = -1
        if random.random() < 0.3:
            derivers[who].adopt(now_ms)
    last = deriver_of(store, "last")
    last.adopt(now_ms, everything=True)
    last.run_all(now_ms)
    found = {name: table(store, name) for name in DERIVED}
    starts = {row["session_id"]: row["started_at"] for row in found["session_summaries"]}
    found["sessions_by_day"] = [
        row for row in found["sessions_by_day"] if row["started_at"] == starts[row["session_id"]]
    ]
    assert found == derived_from(events)
    assert pending_rows(store) == []
    store.close()


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_two_sinks_that_roll_up_the_same_hours_step_by_step_at_once_end_in_the_same_rows(random: Random) -> None:
    store = SqliteStore(_settings(), lambda: NOW)
    store.open(1000), store.init()
    events = some_events(random)
    derivers = [deriver_of(store, "sink-0"), deriver_of(store, "sink-1")]
    for event in events:
        take_in(store, random.choice(derivers), [event])
    busy = list(derivers)
    for deriver in busy:
        deriver._rollup_work.hurry()
    while busy:
        deriver = random.choice(busy)
        if deriver._rollups.step(NOW) is None:
            busy.remove(deriver)
    assert table(store, "metric_rollups") == derived_from(events)["metric_rollups"]
    store.close()


def _settings() -> Any:
    from voicelog.settings import load

    return load({"store": "sqlite:///:memory:"}, {})[0]


def test_percentile_over_merged_rollups_is_within_the_stated_error(store: Store) -> None:
    random, deriver, call = Random(7), deriver_of(store), CallBuilder()
    for _ in range(1500):
        call.stage("llm", random.uniform(0, 7_000_000), random.lognormvariate(6, 0.7), model=random.choice("abc"))
    take_in(store, deriver, call.events)
    deriver.run_all(NOW)
    exact = percentiles([event.duration_ms or 0 for event in call.events], (50, 90, 95, 99))
    for tier, periods in (
        ("minute", [f"{HOUR[:11]}{h}" for h in (10, 11)]),
        ("hour", [HOUR[:10]]),
        ("day", [HOUR[:7]]),
    ):
        partitions = [{"name": "llm.duration_ms", "tier": tier, "period": period} for period in periods]
        blobs = [blob for (blob,) in store.tuples("metric_rollups", ("sketch",), partitions)]
        for point, expected in zip((0.5, 0.9, 0.95, 0.99), exact, strict=True):
            found = quantile((unpack(blob).values for blob in blobs), point)
            assert found == pytest.approx(expected, rel=RELATIVE_ERROR)


def test_rollup_that_was_made_of_more_rows_stays_when_rows_have_expired(store: Store, tmp_path: Path) -> None:
    deriver, call = deriver_of(store), CallBuilder()
    for at_ms in range(5):
        call.stage("llm", at_ms, 100 + at_ms)
    take_in(store, deriver, call.events)
    deriver.run_all(NOW)
    whole = table(store, "metric_rollups")
    forget_parts(store)
    take_in(store, deriver, call.events[3:])
    deriver.run_all(NOW)
    assert table(store, "metric_rollups") == whole


def test_erased_rollup_is_not_undone_by_a_late_event_and_goes_on_counting(store: Store) -> None:
    deriver, call = deriver_of(store), CallBuilder()
    for at_ms in range(5):
        call.stage("llm", at_ms, 100.0 + at_ms)
    take_in(store, deriver, call.events)
    deriver.run_all(NOW)
    left = Rollup()
    left.add([104.0], [0])
    who = ("front-desk", "", "", "")
    row = left.row("llm.duration_ms", "minute", HOUR, start_ms_of("hour", HOUR), who)
    store.write([Row("metric_rollups", {**row.values, "rows_read": erased(5, 1)})])
    forget_parts(store)
    call.stage("llm", 5, 105.0), call.stage("llm", 70_000, 200.0)
    take_in(store, deriver, call.events[4:])
    deriver.run_all(NOW)
    found = {(r["tier"], r["start"] - NOW): (r["count"], r["rows_read"]) for r in table(store, "metric_rollups")}
    assert found == {
        ("minute", 0): (2, erased(0, 2)), ("minute", 60_000): (1, 1),
        ("hour", 0): (3, erased(0, 3)), ("day", -36_000_000): (3, erased(0, 3)),
    }  # fmt: skip


def test_rollup_or_part_that_can_not_be_read_holds_up_no_other_and_is_told_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    deriver = deriver_of(store)
    row = Rollup().row("stt.duration_ms", "minute", HOUR, NOW, ("", "", "", ""))
    part = {"minute": f"{HOUR}:01", "shard": 3, "start": NOW + 60_000, "part": "new", "data": b"\x91\x07"}
    store.write([Row("metric_rollups", {**row.values, "sketch": b"\x91\x07"}), Row("metric_parts", part)])
    call = CallBuilder()
    call.stage("stt", 0, 5), call.stage("llm", 0, 7), call.stage("llm", 60_000, 7)
    take_in(store, deriver, call.events)
    with caplog.at_level(logging.WARNING):
        deriver.run_all(NOW)
    found = {(r["name"], r["tier"]): r["count"] for r in table(store, "metric_rollups") if r["count"]}
    assert found == {
        ("llm.duration_ms", "minute"): 1, ("llm.duration_ms", "hour"): 2, ("llm.duration_ms", "day"): 2,
        ("stt.duration_ms", "minute"): 1,
    }  # fmt: skip
    assert [r["key"] for r in pending_rows(store)] == [HOUR]
    assert deriver.failed_total == 2
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"metrics of {HOUR} can't be rolled up, their rows are stored"
    ]


def test_store_that_is_away_loses_no_work(store: SqliteStore) -> None:
    deriver, events = deriver_of(store), realistic_call().events
    take_in(store, deriver, events)
    store.close()
    with pytest.raises(StoreUnavailable):
        deriver.run_due(NOW + 60_000)
    store.open(1000)
    deriver.run_all(NOW + 62_000)
    assert table(store, "metric_rollups") == derived_from(events)["metric_rollups"]
    assert pending_rows(store) == []


@pytest.mark.parametrize("calls_before", range(0, 40, 3))
def test_store_that_fails_anywhere_in_a_rollup_leaves_it_to_be_done(calls_before: int) -> None:
    store, call = Dying(_settings(), lambda: NOW), CallBuilder()
    store.open(1000), store.init()
    call.stage("llm", 0, 5), call.add(Metric, 1, name="depth", value=1.0)
    deriver = deriver_of(store)
    take_in(store, deriver, call.events)
    deriver._session_work.hurry(), deriver._summaries.step(NOW, 0)
    store.calls_left = calls_before
    alive = run_until_it_dies(store, deriver, NOW + 70_000, 1e9)
    store.calls_left = -1
    deriver.run_due(NOW + 72_000)
    assert table(store, "metric_rollups") == derived_from(call.events)["metric_rollups"]
    assert alive or deriver.waiting(NOW) == (0, 0.0)
    store.close()


def test_part_that_is_announced_and_not_written_yet_leaves_its_hour_pending(store: Store) -> None:
    deriver, call = deriver_of(store), CallBuilder()
    call.stage("llm", 0, 5), call.stage("llm", 1, 7)
    take_in(store, deriver, call.events[:1])
    (row,) = deriver.pending(call.events[1:], NOW)
    deriver.run_due(NOW + 65_000)
    assert sorted(r["key"] for r in pending_rows(store)) == [HOUR, "call-1"]
    store.write([row])
    deriver.run_due(NOW + 75_000)
    assert table(store, "metric_rollups") == derived_from(call.events)["metric_rollups"]


def test_hours_without_number_take_no_memory_without_bound(store: Store) -> None:
    deriver, call = deriver_of(store, max_hours=3), CallBuilder()
    for number in range(10):
        call.add(Metric, number * 3_600_000, name="depth", value=1.0)
    take_in(store, deriver, call.events)
    for _ in range(4):
        assert deriver.hours <= 3
        deriver.run_all(NOW)
        deriver.adopt(NOW)
    assert sum(row["tier"] == "hour" for row in table(store, "metric_rollups")) == 10
    assert pending_rows(store) == []


def test_call_that_is_named_like_an_hour_is_another_key_than_the_hour(store: Store) -> None:
    call = CallBuilder(HOUR)
    call.stage("llm", 0, 7)
    take_in(store, deriver_of(store), call.events)
    assert [row["key"] for row in pending_rows(store)] == [HOUR, HOUR]
    other = deriver_of(store, "sink-2")
    assert other.adopt(NOW, everything=True) == 2
    other.run_all(NOW)
    assert {name: table(store, name) for name in DERIVED} == derived_from(call.events)
    assert pending_rows(store) == []


def test_event_without_measurements_changes_no_rollup(store: Store) -> None:
    assert deriver_of(store).pending([health()], NOW) == []


def test_sketch_holds_what_the_columns_beside_it_say(store: Store) -> None:
    deriver = deriver_of(store)
    take_in(store, deriver, realistic_call().events)
    deriver.run_all(NOW)
    for row in table(store, METRIC_ROLLUPS.name):
        rollup = Rollup()
        rollup.merge(unpack(row["sketch"]))
        assert (rollup.count, rollup.errors, rollup.excluded, rollup.cost_usd, rollup.rank) == tuple(
            row[name] for name in ("count", "errors", "excluded", "cost_usd", "rows_read")
        )
