"""Recomputing calls' summaries from their rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from voicelog_sink.rows import event_of
from voicelog_sink.stores.base import Store, StoreError, Values
from voicelog_sink.summary import Summary, summarise, summary_rows
from voicelog_sink.tables import DERIVED_PENDING, VOICE_INTERACTIONS
from voicelog_sink.tally import SLOW_TURN_MS
from voicelog_sink.work import IDLE_MS, Job, Work

CHUNK_SESSIONS = 32
CHUNK_ROWS = 2_000
"""Calls that are read, written and released together, and their rows."""

log = logging.getLogger(__name__)


class Summaries:
    """Recomputes summaries, some at a time. Used by one thread, which uses the store."""

    def __init__(
        self,
        store: Store,
        work: Work,
        clock: Callable[[], float] = time.monotonic,
        slow_turn_ms: float = SLOW_TURN_MS,
    ) -> None:
        """Do what `work` says; a turn of `slow_turn_ms` or more counts as slow."""
        self._slow_turn_ms = slow_turn_ms
        self._store = store
        self._work = work
        self._clock = clock
        self.recomputed_total = 0
        self.failed_total = 0

    def step(self, now_ms: int, idle_ms: int = IDLE_MS) -> int | None:
        """Recompute some calls that are due; return how many, None where nothing is due.

        Blocks while the store works. Raises StoreError as the store does: what was not done is due a little later.
        """
        jobs = self._work.take(now_ms, CHUNK_SESSIONS, CHUNK_ROWS)
        if not jobs:
            return None
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
            return summarise(job.reading(event_of(row) for row in rows), self._slow_turn_ms)
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
