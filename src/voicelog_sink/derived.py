"""Keeping what is derived from the events: calls' summaries and metrics' rollups, recomputed soon after rows change.

The row in derived_pending is written with the events, before their offsets are released; it goes only after a
recompute has read all that it stands for. So whoever dies in between, another sink finds it and does the work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from voicelog.events import Event
from voicelog_sink.pending import ADOPT_AFTER_MS, BUCKETS, ROLLUP_BUCKETS, owner_of
from voicelog_sink.rollup_work import RollupWork
from voicelog_sink.rollups import Rollups
from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.summaries import Summaries
from voicelog_sink.tables import DERIVED_PENDING
from voicelog_sink.tally import SLOW_TURN_MS
from voicelog_sink.work import IDLE_MS, Work

BUDGET_MS = 50
"""How long run_due goes on before it lets its caller do something else."""

SHARE = 0.15
"""The part of the time that run_due takes at most: with more to do, derived rows come later, no event is held up."""

IDLE_SHARE = 0.5
"""The same where no event waits: what a sink that died has left behind is soon made up for."""


class Deriver:
    """Recomputes what is derived. Used by the thread that has the store; `waiting` alone may be called by any."""

    def __init__(
        self,
        store: Store,
        sink_id: str,
        *,
        max_sessions: int = 100_000,
        max_hours: int = 3_000,
        clock: Callable[[], float] = time.monotonic,
        slow_turn_ms: float = SLOW_TURN_MS,
    ) -> None:
        """Keep up to `max_sessions` calls and `max_hours` hours with measurements in memory.

        Those above it wait in derived_pending for `adopt`. A turn of `slow_turn_ms` or more counts as slow.
        """
        self._store = store
        self._sink_id = sink_id
        self._session_work = Work(sink_id, max_sessions)
        self._rollup_work = RollupWork(sink_id, max_hours)
        self._summaries = Summaries(store, self._session_work, clock, slow_turn_ms)
        self._rollups = Rollups(store, self._rollup_work)
        self._clock = clock
        self._ended_s = -math.inf
        self._took_s = 0.0

    @property
    def sessions(self) -> int:
        """The number of calls in memory: those with something to recompute and those that are still going on."""
        return len(self._session_work)

    @property
    def hours(self) -> int:
        """The number of hours with measurements in memory."""
        return len(self._rollup_work)

    @property
    def recomputed_total(self) -> int:
        """How many summaries and hours were recomputed."""
        return self._summaries.recomputed_total + self._rollups.recomputed_total

    @property
    def failed_total(self) -> int:
        """How many could not be, though the store worked."""
        return self._summaries.failed_total + self._rollups.failed_total

    def waiting(self, now_ms: int) -> tuple[int, float]:
        """Return how many calls and minutes of metrics wait to be recomputed, and since how many seconds the first."""
        calls, calls_since = self._session_work.waiting()
        minutes, minutes_since = self._rollup_work.waiting()
        since = min((ms for ms in (calls_since, minutes_since) if ms is not None), default=now_ms)
        return calls + minutes, max(now_ms - since, 0) / 1000

    def pending(self, events: Sequence[Event], now_ms: int) -> list[Row]:
        """Note what these events change; return the rows to write together with them.

        To be called once for a batch, before it is written; the rows are part of the batch and are written again
        with it until that succeeds. Does no I/O. `now_ms` is epoch milliseconds, as in the other methods.
        """
        calls = [Row(DERIVED_PENDING.name, values) for values in self._session_work.note(events, now_ms)]
        return calls + self._rollup_work.note(events, now_ms)

    def run_due(self, now_ms: int, budget_ms: float = BUDGET_MS, *, idle: bool = False) -> int:
        """Recompute what is due, for about `budget_ms`; return how many: none while it rests from the last time.

        It rests for less where the sink is `idle`, which is said of the time since the last call. Blocks while the
        store works. Raises StoreError as the store does: what was not done stays due a little later.
        """
        start_s = self._clock()
        if start_s < self._ended_s + self._took_s * (1 / (IDLE_SHARE if idle else SHARE) - 1):
            return 0
        try:
            return self._run_until(now_ms, budget_ms, IDLE_MS)
        finally:
            self._ended_s = self._clock()
            self._took_s = self._ended_s - start_s

    def run_all(self, now_ms: int | None = None, budget_ms: float = math.inf) -> int:
        """Recompute everything in memory that changed, due or not, and let go of the rest; return how many changed.

        For the sink's end and for tests. Blocks and raises as run_due.
        """
        self._session_work.hurry()
        self._rollup_work.hurry()
        return self._run_until(int(time.time() * 1000) if now_ms is None else now_ms, budget_ms, idle_ms=0)

    def adopt(self, now_ms: int, everything: bool = False) -> int:
        """Take over the work of sinks that died; return how many rows. Blocks and raises as run_due.

        A row of another sink counts as left behind once it is ADOPT_AFTER_MS old, at once with `everything`; an own
        one that is not in memory (from before a restart) always.
        """
        buckets = [{"bucket": bucket} for bucket in range(BUCKETS)]
        return sum(
            self._adopt(row, now_ms)
            for row in self._store.select(DERIVED_PENDING.name, buckets)
            if everything or owner_of(row) == self._sink_id or row["added_at"] + ADOPT_AFTER_MS <= now_ms
        )

    def _adopt(self, row: Values, now_ms: int) -> bool:
        work = self._session_work if row["bucket"] < ROLLUP_BUCKETS else self._rollup_work
        return work.adopt(row, now_ms)

    def _run_until(self, now_ms: int, budget_ms: float, idle_ms: int) -> int:
        """Do summaries and rollups in turn, until the time is over or nothing is due."""
        end = self._clock() + budget_ms / 1000
        done = 0
        while self._clock() < end:
            steps = [self._summaries.step(now_ms, idle_ms), self._rollups.step(now_ms, idle_ms)]
            if steps == [None, None]:
                break
            done += sum(step or 0 for step in steps)
        return done
