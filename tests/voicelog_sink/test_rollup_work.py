"""When a minute is rolled up, and how long its hour's row in derived_pending stays."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import START_US, health

from voicelog.events import Event, Metric, shard_of
from voicelog_sink.pending import ADOPT_AFTER_MS, REFRESH_AFTER_MS, ROLLUP_BUCKETS, key_of
from voicelog_sink.rollup_work import AFTER_EVENT_MS, AFTER_MINUTE_MS, LARGE_MINUTE, HourJob, RollupWork
from voicelog_sink.rows import hour_of
from voicelog_sink.stores.base import Row, Values
from voicelog_sink.work import IDLE_MS, RETRY_MS

NOW = START_US // 1000
MINUTE = NOW // 60_000


def measured(ts: int = NOW, name: str = "depth") -> Event:
    return Metric(stream_id="s1", seq=1, ts=ts * 1000, session_id="call-1", name=name, value=1.0)


def pending(rows: list[Row]) -> list[Values]:
    return [row.values for row in rows if row.table == "derived_pending"]


def minutes(job: HourJob) -> list[int]:
    return [minute - MINUTE for minute in job.minutes]


def test_hour_is_announced_once_and_refreshed_in_place() -> None:
    work = RollupWork("sink-1", 10)
    key = "2026-11-22T10"
    row = {"bucket": ROLLUP_BUCKETS + shard_of(key), "key": key, "sink_id": "sink-1.1", "added_at": NOW}
    batch = [measured(), measured(NOW + 60_000, "other")]
    assert pending(work.note(batch, NOW)) == [row]
    assert pending(work.note(batch, NOW + REFRESH_AFTER_MS - 1)) == []
    assert pending(work.note(batch, NOW + REFRESH_AFTER_MS)) == [{**row, "added_at": NOW + REFRESH_AFTER_MS}]
    assert work.note([health()], NOW) == []


def test_minute_is_due_half_a_minute_after_its_first_row_and_again_at_its_end() -> None:
    work = RollupWork("sink-1", 10)
    work.note([measured()], NOW)
    work.note([measured()], NOW + 31_000)
    assert work.take(NOW + AFTER_EVENT_MS - 1, 9, 999) == []
    (job,) = work.take(NOW + AFTER_EVENT_MS, 9, 999)
    assert minutes(job) == [0]
    work.settle([job], NOW + AFTER_EVENT_MS)
    work.note([measured()], NOW + AFTER_EVENT_MS + 1)
    assert work.take(NOW + 60_000 + AFTER_MINUTE_MS - 1, 9, 999) == []
    (job,) = work.take(NOW + 60_000 + AFTER_MINUTE_MS, 9, 999)
    assert minutes(job) == [0]


def test_very_large_minute_is_rolled_up_once_at_its_end() -> None:
    work = RollupWork("sink-1", 10)
    work.note([measured()], NOW)
    (job,) = work.take(NOW + AFTER_EVENT_MS, 9, 999)
    job.size = LARGE_MINUTE + 1
    work.settle([job], NOW + AFTER_EVENT_MS)
    work.note([measured(NOW + 60_000)], NOW + 60_000)
    assert work.take(NOW + 120_000 + AFTER_MINUTE_MS - 1, 9, 999) == []
    (job,) = work.take(NOW + 120_000 + AFTER_MINUTE_MS, 9, 999)
    assert minutes(job) == [1]


@given(st.integers(0, 59_999), st.integers(0, 600_000))
def test_row_is_rolled_up_within_a_minute_whenever_it_comes(at_ms: int, late_ms: int) -> None:
    work, arrived = RollupWork("sink-1", 10), NOW + at_ms + late_ms
    work.note([measured(NOW + at_ms)], arrived)
    assert len(work.take(arrived + 40_000, 9, 999)) == 1


def test_hour_is_taken_some_minutes_in_a_row_at_a_time() -> None:
    work = RollupWork("sink-1", 10)
    work.note([measured(NOW + minute * 60_000) for minute in (0, 1, 2, 5, *range(20, 35))], NOW + 3_600_000)
    work.hurry()
    taken = []
    while jobs := work.take(NOW, 9, 999):
        taken += [minutes(job) for job in jobs]
        work.settle(jobs, NOW)
    assert taken == [[0, 1, 2], [5], [*range(20, 30)], [*range(30, 35)]]


def test_minute_whose_last_part_is_still_being_written_is_done_again() -> None:
    work, now = RollupWork("sink-1", 10), NOW + 100_000
    (row,) = pending(work.note([measured()], now))
    now += AFTER_EVENT_MS
    for wait_ms in RETRY_MS:
        (job,) = work.take(now, 9, 999)
        job.unwritten = set(job.minutes)
        assert work.settle([job], now, idle_ms=0) == []
        now += wait_ms
    (job,) = work.take(now, 9, 999)
    job.unwritten = set(job.minutes)
    assert work.settle([job], now, idle_ms=0) == [key_of(row)]


def test_open_minute_whose_last_part_is_still_being_written_waits_for_its_end() -> None:
    work = RollupWork("sink-1", 10)
    work.note([measured()], NOW)
    (job,) = work.take(NOW + AFTER_EVENT_MS, 9, 999)
    job.unwritten = set(job.minutes)
    work.settle([job], NOW + AFTER_EVENT_MS)
    assert work.take(NOW + 60_000 + AFTER_MINUTE_MS - 1, 9, 999) == []
    assert len(work.take(NOW + 60_000 + AFTER_MINUTE_MS, 9, 999)) == 1


def test_hour_above_the_limit_is_announced_but_not_remembered() -> None:
    work = RollupWork("sink-1", 2)
    rows = pending(work.note([measured(NOW + hour * 3_600_000) for hour in range(5)], NOW))
    assert sorted(row["key"] for row in rows) == [f"2026-11-22T{hour}" for hour in range(10, 15)]
    assert len(work) == 2
    assert sum(work.adopt(row, NOW) for row in rows) == 0


def test_adopted_hour_is_rolled_up_whole() -> None:
    work = RollupWork("sink-2", 10)
    (row,) = pending(RollupWork("sink-1", 10).note([measured()], NOW))
    assert work.adopt(row, NOW)
    assert not work.adopt(row, NOW)
    done = []
    while jobs := work.take(NOW, 9, 999):
        done += [(job.hour, minute) for job in jobs for minute in minutes(job)]
        assert work.settle(jobs, NOW, idle_ms=0) == ([key_of(row)] if len(done) == 60 else [])
    assert done == [("2026-11-22T10", minute) for minute in range(60)]


def test_waiting_minutes_are_counted_from_their_first_row_until_they_are_done() -> None:
    work = RollupWork("sink-1", 10)
    assert work.waiting() == (0, None)
    work.note([measured(), measured(NOW + 60_000)], NOW)
    work.note([measured()], NOW + 5_000)
    assert work.waiting() == (2, NOW)
    jobs = work.take(NOW + AFTER_EVENT_MS, 9, 999)
    assert work.waiting() == (2, NOW)
    work.settle(jobs, NOW + AFTER_EVENT_MS)
    assert work.waiting() == (0, None)


class Simulation:
    """A sink and its tables, in which everything may happen late: writes, rollups, deletions."""

    def __init__(self) -> None:
        self.work = RollupWork("sink-1", 2)
        self.now = NOW
        self.queue: list[Row] = []
        self.stored: dict[int, list[str]] = {}
        self.rolled_up: dict[int, int] = {}
        self.pending: dict[tuple[Any, ...], Values] = {}
        self.jobs: list[HourJob] = []
        self.read: dict[int, int] = {}
        self.deletions: list[Values] = []

    def event(self, hour: int, minute: int) -> None:
        """Note a measurement; its rows are written only by the next `write`."""
        self.queue += self.work.note([measured(NOW + hour * 3_600_000 + minute * 60_000)], self.now)

    def write(self) -> None:
        for table, values in self.queue:
            if table == "derived_pending":
                self.pending[tuple(key_of(values).values())] = values
            else:
                self.stored.setdefault(values["start"] // 60_000, []).append(values["part"])
        self.queue = []

    def begin(self) -> None:
        if not self.jobs:
            self.jobs = self.work.take(self.now, 2, 999)
            for number, minute in ((n, m) for job in self.jobs for n, m in job.minutes.items()):
                parts = self.stored.get(number, [])
                self.read[number] = len(parts)
                if minute.last and minute.last not in parts:
                    next(job for job in self.jobs if number in job.minutes).unwritten.add(number)

    def finish(self) -> None:
        for job in self.jobs:
            self.rolled_up.update({number: self.read[number] for number in job.minutes})
        self.deletions += self.work.settle(self.jobs, self.now)
        self.jobs = []

    def fail(self) -> None:
        self.work.put_back(self.jobs, self.now)
        self.jobs = []

    def delete(self) -> None:
        for key in self.deletions:
            self.pending.pop(tuple(key.values()), None)
        self.deletions = []

    def adopt(self) -> None:
        for row in list(self.pending.values()):
            self.work.adopt(row, self.now)

    def check(self) -> None:
        gone = {tuple(key.values()) for key in self.deletions}
        announced = {row["key"] for key, row in self.pending.items() if key not in gone}
        stale = {n for n, parts in self.stored.items() if len(parts) > self.rolled_up.get(n, 0)}
        assert {hour_of(number * 60_000_000) for number in stale} <= announced


steps = st.one_of(
    st.tuples(st.just("event"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.sampled_from(["write", "begin", "finish", "fail", "delete", "adopt"])),
    st.tuples(st.just("wait"), st.sampled_from([1, AFTER_MINUTE_MS, AFTER_EVENT_MS, IDLE_MS, ADOPT_AFTER_MS])),
)


@settings(max_examples=300)
@given(st.lists(steps, max_size=60))
def test_hour_with_anything_not_rolled_up_always_has_a_row(script: list[tuple[Any, ...]]) -> None:
    simulation = Simulation()
    for name, *arguments in script:
        if name == "wait":
            simulation.write()  # what waits for the store is written long before anything is due
            simulation.now += arguments[0]
        else:
            getattr(simulation, name)(*arguments)
        simulation.check()
