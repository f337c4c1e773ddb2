"""Keeping what is derived from the events: each call's summary, recomputed from its rows soon after they change.

The row in derived_pending is written with the events, before their offsets are released; it goes only after a
recompute has read all that it stands for. So whoever dies in between, another sink finds it and does the work.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from voicelog.events import Event
from voicelog_sink.rows import event_of
from voicelog_sink.stores.base import Row, Store, StoreError, Values
from voicelog_sink.summary import Summary, summarise, summary_rows
from voicelog_sink.tables import DERIVED_PENDING, VOICE_INTERACTIONS
from voicelog_sink.work import ADOPT_AFTER_MS, BUCKETS, IDLE_MS, Job, Work, owner_of

CHUNK_SESSIONS = 32
CHUNK_ROWS = 2_000
"""Calls that are read, written and released together, and their rows."""

BUDGET_MS = 50
"""How long run_due goes on before it lets its caller do something else."""

SHARE = 0.15
"""The part of the time that run_due takes at most: with more to do, summaries come later and events are not held up."""

log = logging.getLogger(__name__)


class Deriver:
    """Recomputes summaries. `pending` may be called by another thread than the rest, which uses the store."""

    def __init__(
        self,
        store: Store,
        sink_id: str,
        *,
        max_sessions: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep up to `max_sessions` calls in memory; those above it wait in derived_pending for `adopt`."""
        self._store = store
        self._sink_id = sink_id
        self._work = Work(sink_id, max_sessions)
        self._clock = clock
        self._rested_at_s = -math.inf
        self.recomputed_total = 0
        self.failed_total = 0

    @property
    def sessions(self) -> int:
        """The number of calls in memory: those with something to recompute and those that are still going on."""
        return len(self._work)

    def pending(self, events: Iterable[Event], now_ms: int) -> list[Row]:
        """Note that the calls of these events changed; return the rows to write together with the events.

        To be called once for a batch, before it is written; the rows are part of the batch and are written again
        with it until that succeeds. Does no I/O. `now_ms` is epoch milliseconds, as in the other methods.
        """
        return [Row(DERIVED_PENDING.name, values) for values in self._work.note(events, now_ms)]

    def run_due(self, now_ms: int, budget_ms: float = BUDGET_MS) -> int:
        """Recompute calls that are due, for about `budget_ms`; return how many: none while it rests from the last time.

        Blocks while the store works. Raises StoreError as the store does: what was not done stays due a little later.
        """
        start_s = self._clock()
        if start_s < self._rested_at_s:
            return 0
        try:
            return self._run_until(now_ms, budget_ms, IDLE_MS)
        finally:
            end_s = self._clock()
            self._rested_at_s = end_s + (end_s - start_s) * (1 / SHARE - 1)

    def run_all(self, now_ms: int | None = None, budget_ms: float = math.inf) -> int:
        """Recompute every call in memory that changed, due or not, and let go of the others; return how many changed.

        For the sink's end and for tests. Blocks and raises as run_due.
        """
        self._work.hurry()
        return self._run_until(int(time.time() * 1000) if now_ms is None else now_ms, budget_ms, idle_ms=0)

    def adopt(self, now_ms: int, everything: bool = False) -> int:
        """Take over the work of sinks that died; return how many rows. Blocks and raises as run_due.

        A row of another sink counts as left behind once it is ADOPT_AFTER_MS old, at once with `everything`; an own
        one that is not in memory (from before a restart) always.
        """
        buckets = [{"bucket": bucket} for bucket in range(BUCKETS)]
        return sum(
            self._work.adopt(row, now_ms)
            for row in self._store.select(DERIVED_PENDING.name, buckets)
            if everything or owner_of(row) == self._sink_id or row["added_at"] + ADOPT_AFTER_MS <= now_ms
        )

    def _run_until(self, now_ms: int, budget_ms: float, idle_ms: int) -> int:
        end = self._clock() + budget_ms / 1000
        done = 0
        while self._clock() < end and (jobs := self._work.take(now_ms, CHUNK_SESSIONS, CHUNK_ROWS)):
            done += self._run(jobs, now_ms, idle_ms)
        return done

    def _run(self, jobs: Sequence[Job], now_ms: int, idle_ms: int) -> int:
        try:
            changed = [job for job in jobs if job.changed]
            start_s = self._clock()
            for job, summary in zip(changed, self._recompute(changed), strict=True):
                end_s = self._clock()
                job.summary, job.cost_ms, start_s = summary, (end_s - start_s) * 1000, end_s
            self._write(changed)
            released = self._work.settle(jobs, now_ms, idle_ms)
        except BaseException:
            self._work.put_back(jobs, now_ms)
            raise
        if released:
            self._store.delete(DERIVED_PENDING.name, released)
        self.recomputed_total += len(changed)
        return len(changed)

    def _recompute(self, jobs: Sequence[Job]) -> Iterator[Summary | None]:
        """Yield each job's summary, None where there is nothing to summarise."""
        partitions = [{"session_id": job.session_id} for job in jobs]
        rows = self._store.select(VOICE_INTERACTIONS.name, partitions)
        read = groupby(rows, key=itemgetter("session_id"))
        session_id, group = next(read, (None, iter(())))
        for job in jobs:
            if session_id == job.session_id:
                yield self._summarise(job, group)
                session_id, group = next(read, (None, iter(())))
            else:
                yield None

    def _summarise(self, job: Job, rows: Iterable[Values]) -> Summary | None:
        try:
            return summarise(job.reading(event_of(row) for row in rows))
        except StoreError:
            raise
        except Exception as exc:  # one call that trips a bug must not hold up all the others
            self._failed(job, f"{type(exc).__name__}: {exc}")
            return None

    def _write(self, jobs: Sequence[Job]) -> None:
        rows = [(job, row) for job in jobs if job.summary for row in summary_rows(job.summary)]
        for rejected in self._store.write([row for _, row in rows]) if rows else []:
            self._failed(rows[rejected.index][0], f"{rejected.error}: {rejected.message}")

    def _failed(self, job: Job, why: str) -> None:
        """Count a summary that can't be made; its row stays in derived_pending, so that it is tried again later."""
        job.failed = True
        self.failed_total += 1
        level = logging.WARNING if self.failed_total == 1 else logging.DEBUG
        log.log(level, "the summary of session %r can't be computed, its events are stored: %s", job.session_id, why)
