"""Which minutes have to be rolled up again, and when. In memory, without I/O. Used by one thread, `waiting` by any.

What is announced, and goes into derived_pending, is an hour, so that there are few rows of them at any rate and for
any number of metrics; a sink that adopts one rolls the whole hour up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import attrs

from voicelog.events import Event
from voicelog_sink.parts import MINUTE_MS, MINUTE_US, measurements, part_row
from voicelog_sink.pending import ROLLUP_BUCKETS, Announcer, key_of
from voicelog_sink.rollup import start_ms_of
from voicelog_sink.rows import hour_of
from voicelog_sink.stores.base import Row, Values
from voicelog_sink.tables import DERIVED_PENDING
from voicelog_sink.work import IDLE_MS, PUT_BACK_MS, RETRY_MS

AFTER_EVENT_MS = 32_000
AFTER_MINUTE_MS = 3_000
"""A minute is rolled up so long after its first event, and so long after its end: each part is read one and a half
times, where one wait of nearly a minute would read it twice.
"""

LARGE_MINUTE = 20_000
"""A minute of more measurements is rolled up only at its end, at most 63 seconds after an event: once, not twice."""

MINUTES_A_JOB = 10
"""Most minutes that are in memory together."""


@attrs.define
class Minute:
    """A minute with measurements that are in no rollup yet, the last of them in the part `last`; '' if not known."""

    due_ms: int
    since_ms: int
    last: str
    tries: int = 0


@attrs.define
class _Hour:
    """One hour. `size` is how many measurements its last minute had, `minutes` are those to do, since the epoch."""

    due_ms: int
    rows: list[Values]
    minutes: dict[int, Minute] = attrs.Factory(dict)
    taken: list[Minute] | None = None
    last_event_ms: int = 0
    size: int = 0


@attrs.define
class HourJob:
    """Minutes in a row that were taken to be worked on; none of them where only the hour's row must go.

    `unwritten` are those of which a part that was announced can't be read yet.
    """

    hour: str
    minutes: dict[int, Minute]
    size: int = 0
    unwritten: set[int] = attrs.Factory(set)
    failed: bool = False


class RollupWork:
    """The minutes with something to do, by when it is due."""

    def __init__(self, sink_id: str, max_hours: int) -> None:
        """Hold at most `max_hours` hours."""
        self._sink_id = sink_id
        self._announcer = Announcer(sink_id, first_bucket=ROLLUP_BUCKETS)
        self._max_hours = max_hours
        self._batches = 0
        self._last_size = 0
        self._hours: dict[str, _Hour] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._hours)

    def waiting(self) -> tuple[int, int | None]:
        """Return how many minutes have something to do, and since when the one that waits longest.

        For any thread: it looks at copies, which another thread can't change in mid-count. A minute that is just being
        taken may be counted twice or not at all.
        """
        since: list[int] = []
        for hour in self._hours.copy().values():
            since += [minute.since_ms for minute in (*hour.minutes.copy().values(), *(hour.taken or ()))]
        return len(since), min(since, default=None)

    def note(self, events: Iterable[Event], now_ms: int) -> list[Row]:
        """Note what events about to be written measured; return the rows that must be written with them."""
        places = measurements(events)
        if not places:
            return []
        self._batches += 1
        part = f"{self._sink_id}.{self._batches}"
        pending = [self._note(minute, part, now_ms) for minute in {place.minute for place in places}]
        rows = [part_row(place, part, grouped) for place, grouped in places.items()]
        return rows + [Row(DERIVED_PENDING.name, values) for values in pending if values]

    def _note(self, minute: int, part: str, now_ms: int) -> Values | None:
        key = hour_of(minute * MINUTE_US)
        row = self._row_for(key, now_ms)
        hour = self._hours.get(key)
        if hour is not None:
            hour.last_event_ms = now_ms
            self._mark(key, hour, minute, part, now_ms)
        return row

    def _row_for(self, key: str, now_ms: int) -> Values | None:
        hour = self._hours.get(key)
        if hour is not None:
            return self._announcer.renewed(hour.rows, key, now_ms)
        row = self._announcer.new(key, now_ms)
        if len(self._hours) < self._max_hours:
            self._hours[key] = _Hour(now_ms, [dict(row)], size=self._last_size)
        return row

    def _mark(self, key: str, hour: _Hour, minute: int, part: str, now_ms: int) -> None:
        known = hour.minutes.get(minute)
        if known is not None:
            known.last = part
            return
        due_ms = due_after(minute, now_ms, hour.size)
        hour.minutes[minute] = Minute(due_ms, now_ms, part)
        if len(hour.minutes) == 1 or due_ms < hour.due_ms:
            self._schedule(key, hour, due_ms)

    def _schedule(self, key: str, hour: _Hour, due_ms: int) -> None:
        hour.due_ms = due_ms
        heapq.heappush(self._heap, (due_ms, key))

    def take(self, now_ms: int, limit: int, max_rows: int) -> list[HourJob]:
        """Return up to `limit` jobs that are due and have about `max_rows` measurements together, at least one.

        Each must be given to `settle` or `put_back`.
        """
        jobs: list[HourJob] = []
        rows = 0
        while self._heap and self._heap[0][0] <= now_ms and len(jobs) < limit and rows < max_rows:
            due_ms, key = heapq.heappop(self._heap)
            hour = self._hours.get(key)
            if hour and hour.due_ms == due_ms and hour.taken is None:
                jobs.append(_job(key, hour, now_ms))
                rows += hour.size * len(jobs[-1].minutes)
        return jobs

    def settle(self, jobs: Iterable[HourJob], now_ms: int, idle_ms: int = IDLE_MS) -> list[Values]:
        """Take back jobs that were done; return the keys of the derived_pending rows that may go now.

        An hour is held on to until `idle_ms` after its last event.
        """
        return [key_of(row) for job in jobs for row in self._settle(job, now_ms, idle_ms)]

    def _settle(self, job: HourJob, now_ms: int, idle_ms: int) -> list[Values]:
        key, hour = job.hour, self._hours[job.hour]
        hour.taken = None
        hour.size = self._last_size = job.size
        if job.failed:
            del self._hours[key]
            return []
        for number in job.unwritten:
            _again(hour, number, job.minutes[number], now_ms)
        if hour.minutes:
            self._schedule(key, hour, min(minute.due_ms for minute in hour.minutes.values()))
            return []
        if now_ms < hour.last_event_ms + idle_ms:
            self._schedule(key, hour, hour.last_event_ms + idle_ms)
            return []
        del self._hours[key]
        return hour.rows

    def put_back(self, jobs: Iterable[HourJob], now_ms: int) -> None:
        """Take back jobs that could not be done: they are due again a little later."""
        for job in jobs:
            hour = self._hours.get(job.hour)
            if hour and hour.taken is not None:
                hour.taken = None
                for number, minute in job.minutes.items():
                    newer = hour.minutes.get(number, minute)
                    hour.minutes[number] = Minute(now_ms + PUT_BACK_MS, minute.since_ms, newer.last, minute.tries)
                self._schedule(job.hour, hour, now_ms + PUT_BACK_MS)

    def hurry(self) -> None:
        """Make every minute due at once."""
        for key, hour in self._hours.items():
            for minute in hour.minutes.values():
                minute.due_ms = 0
            if hour.taken is None:
                self._schedule(key, hour, 0)

    def adopt(self, row: Values, now_ms: int) -> bool:
        """Take over a derived_pending row that the store holds; False where it is known, or there is no room."""
        key = row["key"]
        hour = self._hours.get(key)
        if hour is None:
            if len(self._hours) >= self._max_hours:
                return False
            hour = self._hours[key] = _Hour(now_ms, [])
        elif hour.taken is not None or any(key_of(known) == key_of(row) for known in hour.rows):
            return False
        hour.rows.insert(0, {**key_of(row), "added_at": row["added_at"]})
        first = start_ms_of("hour", key) // MINUTE_MS
        for number in range(first, first + 60):
            known = hour.minutes.get(number)
            hour.minutes[number] = Minute(now_ms, now_ms, known.last if known else "")
        self._schedule(key, hour, now_ms)
        return True


def due_after(minute: int, now_ms: int, size: int = 0) -> int:
    """Return when a minute is to be rolled up that got a part now: at its end, where that is soon or it is large."""
    ended_ms = (minute + 1) * MINUTE_MS + AFTER_MINUTE_MS
    wait_ms = MINUTE_MS + AFTER_MINUTE_MS if size > LARGE_MINUTE else AFTER_EVENT_MS
    return ended_ms if now_ms < ended_ms <= now_ms + wait_ms else now_ms + AFTER_EVENT_MS


def _job(key: str, hour: _Hour, now_ms: int) -> HourJob:
    due = sorted(number for number, minute in hour.minutes.items() if minute.due_ms <= now_ms)
    together = [number for place, number in enumerate(due[:MINUTES_A_JOB]) if number == due[0] + place]
    job = HourJob(key, {number: hour.minutes.pop(number) for number in together}, hour.size)
    hour.taken = list(job.minutes.values())
    return job


def _again(hour: _Hour, number: int, minute: Minute, now_ms: int) -> None:
    """Leave a minute to do whose last part could not be read: its write failed, or the store refused it."""
    if number in hour.minutes:
        return
    if now_ms < (number + 1) * MINUTE_MS + AFTER_MINUTE_MS:
        hour.minutes[number] = attrs.evolve(minute, due_ms=due_after(number, now_ms))
    elif minute.tries < len(RETRY_MS):
        due_ms = now_ms + RETRY_MS[minute.tries]
        hour.minutes[number] = attrs.evolve(minute, due_ms=due_ms, tries=minute.tries + 1)
