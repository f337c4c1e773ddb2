"""Rolling metrics up: a minute from its measurements, an hour from its minutes, a day from its hours.

Each tier is written before the next one is read. So of two sinks that change the same hour at once, the one that reads
last has both changes, and what it writes was made from more rows and wins.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from voicelog.events import SHARDS
from voicelog_sink.parts import MINUTE_MS, Parts, minute_text
from voicelog_sink.rank import erasures_in
from voicelog_sink.rollup import Cell, Dimensions, Minutes, Name, name_row, period_of, start_ms_of
from voicelog_sink.rollup_work import HourJob, RollupWork
from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.tables import DERIVED_PENDING, METRIC_PARTS, METRIC_ROLLUPS
from voicelog_sink.total import Total
from voicelog_sink.work import IDLE_MS

CHUNK_JOBS = 8
CHUNK_SIZE = 200_000
"""Hours that are worked on together, and about how many measurements they have."""
STEP_SIZE = 4_000
"""About how many measurements a step computes; more where a metric has more in a shard and minute."""
READ_BYTES = 1_000_000
"""About how much is read at once; more where a shard of a minute has more."""
STEP_ROWS = 1_000
STEP_NAMES = 50
STEP_PARTITIONS = 4
"""Partitions of a tier that a step merges."""
KNOWN_NAMES = 50_000

_MERGED = ("service", "provider", "model", "variant", "rows_read", "sketch")
_SHORTER = {"hour": "minute", "day": "hour"}

T = TypeVar("T")

log = logging.getLogger(__name__)


class Rollups:
    """Recomputes rollups, piece by piece. Used by one thread, which uses the store."""

    def __init__(self, store: Store, work: RollupWork) -> None:
        """Do what `work` says."""
        self._store = store
        self._work = work
        self._jobs: list[HourJob] = []
        self._running: Iterator[int] | None = None
        self._now_ms = 0
        self._idle_ms = IDLE_MS
        self._known: set[tuple[Name, str]] = set()
        self.recomputed_total = 0
        self.failed_total = 0

    def step(self, now_ms: int, idle_ms: int = IDLE_MS) -> int | None:
        """Do a piece of what is due; return how many hours of metrics that completed, None where nothing is due.

        Blocks while the store works, for some thousand rows. Raises StoreError as the store does: what was not done is
        due again a little later.
        """
        self._now_ms, self._idle_ms = now_ms, idle_ms
        if self._running is None:
            self._jobs = self._work.take(now_ms, CHUNK_JOBS, CHUNK_SIZE)
            if not self._jobs:
                return None
            self._running = self._run(self._jobs)
        try:
            done = next(self._running, None)
        except BaseException:
            self._running = None
            self._work.put_back(self._jobs, now_ms)
            raise
        if done is None:
            self._running = None
        return done or 0

    def _run(self, jobs: Sequence[HourJob]) -> Iterator[int]:
        """Do the jobs; yield 0 wherever something else may be done meanwhile, and at last how many are done."""
        done: list[tuple[HourJob, Minutes]] = []
        for job in jobs:
            if job.minutes:
                minutes = Minutes()
                done.append((job, minutes))
                yield from self._gather(job, minutes)
                yield from self._write_minutes(job, minutes)
        for tier in ("hour", "day"):
            yield from self._roll_up(tier, done)
        self._write_names(done)
        self._release(jobs)
        yield len(done)

    def _gather(self, job: HourJob, minutes: Minutes) -> Iterator[int]:
        """Compute the job's minutes from their parts, and note those of which a part is still being written."""
        for number, minute in job.minutes.items():
            unread = bool(minute.last)
            first, at_once = 0, 1
            while first < SHARDS:
                read = self._read(number, range(first, min(first + at_once, SHARDS)))
                unread = unread and all(part != minute.last for part, _ in read)
                yield from self._compute(job, number, [data for _, data in read], minutes)
                size_bytes = sum(len(data) for _, data in read)
                first, at_once = first + at_once, max(1, READ_BYTES * at_once // (size_bytes + 1))
            if unread:
                job.unwritten.add(number)
        job.size = minutes.count // len(job.minutes)

    def _read(self, minute: int, shards: Iterable[int]) -> list[tuple[str, bytes]]:
        partitions = [{"minute": minute_text(minute), "shard": shard} for shard in shards]
        return [(part, data) for part, data in self._store.tuples(METRIC_PARTS.name, ("part", "data"), partitions)]

    def _compute(self, job: HourJob, number: int, blobs: Sequence[bytes], minutes: Minutes) -> Iterator[int]:
        parts, before = Parts(blobs), minutes.count
        for source in parts.sources:
            for group, rows in parts.of(source).items():
                minutes.add(number, group, rows)
            if minutes.count - before >= STEP_SIZE:
                before = minutes.count
                yield 0
        if parts.unreadable:
            self._failed([job], parts.unreadable)
        yield 0

    def _write_minutes(self, job: HourJob, minutes: Minutes) -> Iterator[int]:
        """Write what differs from what is there, after as many erasures as that."""
        cells: defaultdict[str, list[Cell]] = defaultdict(list)
        for cell in minutes.rollups:
            cells[cell.name].append(cell)
        for names in _slices(sorted(cells), STEP_NAMES):
            there = self._minutes_there(job, names)
            rows = [_changed(minutes, cell, there.get(cell)) for name in names for cell in cells[name]]
            for some in _slices([row for row in rows if row], STEP_ROWS):
                self._write([job], some)
                yield 0

    def _minutes_there(self, job: HourJob, names: Sequence[str]) -> dict[Cell, Values]:
        partitions = [{"name": name, "tier": "minute", "period": job.hour} for name in names]
        since_ms, until_ms = min(job.minutes) * MINUTE_MS, (max(job.minutes) + 1) * MINUTE_MS
        rows = self._store.select(METRIC_ROLLUPS.name, partitions, since_ms=since_ms, until_ms=until_ms)
        return {
            Cell(v["name"], v["start"] // MINUTE_MS, (v["service"], v["provider"], v["model"], v["variant"])): v
            for v in rows
        }

    def _roll_up(self, tier: str, done: Iterable[tuple[HourJob, Minutes]]) -> Iterator[int]:
        shorter = _SHORTER[tier]
        jobs: defaultdict[tuple[str, str], list[HourJob]] = defaultdict(list)
        for job, minutes in done:
            for name in {cell.name for cell in minutes.rollups}:
                jobs[name, period_of(shorter, job.hour)].append(job)
        for some in _slices(sorted(jobs), STEP_PARTITIONS):
            for name, period in some:
                self._merge(tier, name, period, jobs[name, period])
            yield 0

    def _merge(self, tier: str, name: str, period: str, jobs: Sequence[HourJob]) -> None:
        """Merge a partition of the shorter tier and write what comes of it."""
        merged: defaultdict[Dimensions, Total] = defaultdict(Total)
        shorter = {"name": name, "tier": _SHORTER[tier], "period": period}
        try:
            for service, provider, model, variant, rank, blob in self._store.tuples(
                METRIC_ROLLUPS.name, _MERGED, [shorter]
            ):
                merged[service, provider, model, variant].add(blob, erasures_in(rank))
        except ValueError as exc:  # one rollup that can't be read must not hold up all the others
            self._failed(jobs, f"{name}: {exc}")
            return
        hour, start_ms = jobs[0].hour, start_ms_of(tier, jobs[0].hour)
        for some in _slices(list(merged.items()), STEP_ROWS):
            self._write(jobs, [total.rollup().row(name, tier, hour, start_ms, who) for who, total in some])

    def _write_names(self, done: Iterable[tuple[HourJob, Minutes]]) -> None:
        named = {(name, period_of("day", job.hour)): job for job, minutes in done for name in minutes.names}
        new = [(key, job) for key, job in named.items() if key not in self._known]
        rows = [name_row(name, job.hour) for (name, _), job in new]
        if rows:
            self._write([job for _, job in new], rows)
        if len(self._known) + len(new) > KNOWN_NAMES:
            self._known.clear()
        self._known.update(key for key, job in new if not job.failed)

    def _write(self, jobs: Sequence[HourJob], rows: Sequence[Row]) -> None:
        rejected = self._store.write(rows)
        if rejected:
            self._failed(jobs, f"{rejected[0].error}: {rejected[0].message}")

    def _failed(self, jobs: Sequence[HourJob], why: str) -> None:
        """Count metrics that can't be rolled up; their hour stays in derived_pending, so that it is tried again."""
        for job in jobs:
            job.failed = True
        self.failed_total += 1
        level = logging.WARNING if self.failed_total == 1 else logging.DEBUG
        log.log(level, "metrics of %s can't be rolled up, their rows are stored: %s", jobs[0].hour, why)

    def _release(self, jobs: Sequence[HourJob]) -> None:
        released = self._work.settle(jobs, self._now_ms, self._idle_ms)
        if released:
            self._store.delete(DERIVED_PENDING.name, released)
        self.recomputed_total += sum(bool(job.minutes) for job in jobs)


def _changed(minutes: Minutes, cell: Cell, there: Values | None) -> Row | None:
    """Return a minute's row after as many erasures as what is there; None where that is the same, or outranks it."""
    minutes.rollups[cell].erasures = erasures_in(there["rows_read"]) if there else 0
    row = minutes.row(cell)
    if there is None or row.values["rows_read"] > there["rows_read"]:
        return row
    same = row.values["rows_read"] < there["rows_read"] or row.values["sketch"] == there["sketch"]
    return None if same else row


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
