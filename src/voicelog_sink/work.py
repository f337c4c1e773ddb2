"""Which calls have to be recomputed, and when. In memory, without I/O. Used by one thread, `waiting` by any.

A call's row in derived_pending stays for as long as the call goes on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import attrs

from voicelog.events import Event, SessionEnded
from voicelog_sink.pending import Announcer, key_of
from voicelog_sink.stores.base import Values
from voicelog_sink.summary import Summary

AFTER_END_MS = 3_000
"""From a call's end to its recompute: what the other topics still carry may arrive first."""

AFTER_EVENT_MS = 45_000
"""From the first event after a recompute to the next one: within the promised minute."""

COST_SHARE = 100
"""A call is recomputed so rarely that it takes at most one part in so many of the time: only for calls of tens of
thousands of events this is longer than the minute.
"""

IDLE_MS = 120_000
"""A call without an end is let go of after so long without an event."""

RETRY_MS = (5_000, 20_000, 60_000)
"""When rows that were announced can't be read yet: the next tries. After them they count as refused by the store."""

PUT_BACK_MS = 1_000


@attrs.define
class _Entry:
    """One call. `unread` is the highest seq of each stream that no recompute has been asked to read yet.

    `since_ms` is when the first event came that no recompute has read, None where all were; `size` about how many rows
    it has, `cost_ms` what the last recompute took.
    """

    session_id: str
    due_ms: int
    rows: list[Values]
    changed: bool = True
    taken: bool = False
    unread: dict[str, int] = attrs.Factory(dict)
    tries: int = 0
    last_event_ms: int = 0
    size: int = 0
    cost_ms: float = 0.0
    since_ms: int | None = None


@attrs.define
class Job:
    """One call that was taken to be worked on; `changed` is False where only its row must go."""

    session_id: str
    changed: bool
    rows: list[Values]
    expected: dict[str, int]
    seen: dict[str, int] = attrs.Factory(dict)
    size: int = 0
    summary: Summary | None = None
    cost_ms: float = 0.0
    failed: bool = False

    def reading(self, events: Iterable[Event]) -> Iterator[Event]:
        """Pass the events on and note which were read."""
        for event in events:
            if event.seq > self.seen.get(event.stream_id, -1):
                self.seen[event.stream_id] = event.seq
            yield event

    @property
    def read_all(self) -> bool:
        """Whether everything that was announced has been read."""
        return all(self.seen.get(stream_id, -1) >= seq for stream_id, seq in self.expected.items())


class Work:
    """The calls with something to do, by when it is due."""

    def __init__(self, sink_id: str, max_sessions: int) -> None:
        """Hold at most `max_sessions` calls."""
        self._announcer = Announcer(sink_id, first_bucket=0)
        self._max_sessions = max_sessions
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def waiting(self) -> tuple[int, int | None]:
        """Return how many calls have something to recompute, and since when the one that waits longest.

        For any thread: it looks at a copy, which another thread can't change in mid-count.
        """
        seen = [entry.since_ms for entry in self._entries.copy().values()]
        since = [since_ms for since_ms in seen if since_ms is not None]
        return len(since), min(since, default=None)

    def note(self, events: Iterable[Event], now_ms: int) -> list[Values]:
        """Note events about to be written; return the derived_pending rows that must be written with them."""
        rows: dict[str, Values] = {}
        for event in events:
            if event.session_id and event.session_id not in rows:
                row = self._row_for(event.session_id, now_ms)
                if row:
                    rows[event.session_id] = row
            entry = self._entries.get(event.session_id or "")
            if entry:
                self._note(entry, event, now_ms)
        return list(rows.values())

    def _row_for(self, session_id: str, now_ms: int) -> Values | None:
        entry = self._entries.get(session_id)
        if entry is not None:
            return self._announcer.renewed(entry.rows, session_id, now_ms)
        row = self._announcer.new(session_id, now_ms)
        if len(self._entries) < self._max_sessions:
            self._entries[session_id] = _Entry(session_id, now_ms + AFTER_EVENT_MS, [dict(row)], changed=False)
        return row

    def _note(self, entry: _Entry, event: Event, now_ms: int) -> None:
        entry.unread[event.stream_id] = max(event.seq, entry.unread.get(event.stream_id, -1))
        entry.last_event_ms = now_ms
        entry.size += 1
        if entry.since_ms is None:
            entry.since_ms = now_ms
        wait_ms = AFTER_END_MS if event.TYPE == SessionEnded.TYPE else AFTER_EVENT_MS
        due_ms = now_ms + max(wait_ms, round(entry.cost_ms * COST_SHARE))
        if not entry.changed or due_ms < entry.due_ms:
            entry.changed = True
            self._schedule(entry, due_ms)

    def _schedule(self, entry: _Entry, due_ms: int) -> None:
        entry.due_ms = due_ms
        heapq.heappush(self._heap, (due_ms, entry.session_id))

    def take(self, now_ms: int, limit: int, max_rows: int) -> list[Job]:
        """Return up to `limit` calls that are due and have about `max_rows` rows together, at least one.

        Each must be given to `settle` or `put_back`.
        """
        jobs: list[Job] = []
        rows = 0
        while self._heap and self._heap[0][0] <= now_ms and len(jobs) < limit and rows < max_rows:
            due_ms, session_id = heapq.heappop(self._heap)
            entry = self._entries.get(session_id)
            if entry and entry.due_ms == due_ms and not entry.taken:
                jobs.append(self._job(entry))
                rows += entry.size
        return jobs

    def _job(self, entry: _Entry) -> Job:
        job = Job(entry.session_id, entry.changed, list(entry.rows), entry.unread, size=entry.size)
        entry.taken, entry.changed, entry.unread = True, False, {}
        return job

    def settle(self, jobs: Iterable[Job], now_ms: int, idle_ms: int = IDLE_MS) -> list[Values]:
        """Take back jobs that were done; return the keys of the derived_pending rows that may go now.

        A call without an end is held on to until `idle_ms` after its last event.
        """
        return [key_of(row) for job in jobs for row in self._settle(job, now_ms, idle_ms)]

    def _settle(self, job: Job, now_ms: int, idle_ms: int) -> list[Values]:
        entry = self._entries[job.session_id]
        entry.taken = False
        if job.summary:
            entry.size += job.summary.rows_read - job.size
            entry.cost_ms = job.cost_ms
        if job.failed:
            del self._entries[job.session_id]
            return []
        if not job.read_all and entry.tries < len(RETRY_MS):
            self._unread_again(entry, job, now_ms + RETRY_MS[entry.tries])
            entry.tries += 1
            return []
        entry.tries = 0
        if entry.changed:
            self._schedule(entry, entry.due_ms)
            return []
        entry.since_ms = None
        ended = job.summary is not None and job.summary.ended_at is not None
        if job.changed and not ended and now_ms < entry.last_event_ms + idle_ms:
            self._schedule(entry, entry.last_event_ms + idle_ms)
            return []
        del self._entries[job.session_id]
        return job.rows

    def put_back(self, jobs: Iterable[Job], now_ms: int) -> None:
        """Take back jobs that could not be done: they are due again a little later."""
        for job in jobs:
            entry = self._entries.get(job.session_id)
            if entry and entry.taken:
                entry.taken = False
                self._unread_again(entry, job, now_ms + PUT_BACK_MS)

    def _unread_again(self, entry: _Entry, job: Job, due_ms: int) -> None:
        for stream_id, seq in job.expected.items():
            entry.unread[stream_id] = max(seq, entry.unread.get(stream_id, -1))
        entry.changed = entry.changed or job.changed
        self._schedule(entry, due_ms)

    def hurry(self) -> None:
        """Make every call due at once."""
        for entry in self._entries.values():
            if not entry.taken:
                self._schedule(entry, 0)

    def adopt(self, row: Values, now_ms: int) -> bool:
        """Take over a derived_pending row that the store holds; False where it is known, or there is no room."""
        entry = self._entries.get(row["key"])
        if entry is None:
            if len(self._entries) >= self._max_sessions:
                return False
            entry = self._entries[row["key"]] = _Entry(row["key"], now_ms, [])
        elif entry.taken or any(key_of(known) == key_of(row) for known in entry.rows):
            return False
        entry.rows.insert(0, {**key_of(row), "added_at": row["added_at"]})
        entry.changed = True
        entry.since_ms = entry.since_ms or now_ms
        self._schedule(entry, now_ms)
        return True
