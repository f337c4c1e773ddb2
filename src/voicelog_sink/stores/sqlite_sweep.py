"""Taking out of SQLite what is over. Takes the connection's `execute`, imports no driver."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from voicelog_sink.stores import ddl
from voicelog_sink.stores.lifetime import Lifetimes
from voicelog_sink.tables import TABLES, Table

Run = Callable[..., Any]
"""sqlite3.Connection.execute."""

SWEEP_EVERY_S = 3600.0
SWEEP_ROWS = 5_000
"""Most expired rows that one write deletes of a table, so that no write waits for a day's worth."""
EMPTY_LOG_AGAIN_S = 60.0
"""When the log is tried again that could not be emptied, because somebody reads."""

BEGINNING_MS = -(2**62)


class Sweep:
    """What is over, by these lifetimes: once an hour, a bounded number of rows a step until none is left.

    Texts are taken out from the oldest rows on, and no row is looked at twice: what is written later and is older than
    that comes without its texts. Used by the store's thread.
    """

    def __init__(self, lifetimes: Lifetimes) -> None:
        """Begin at once, with the oldest rows."""
        self._lifetimes = lifetimes
        self._blanked_to_ms: dict[str, int] = {}
        self._empty_log_s = math.inf
        self.next_s = 0.0
        """When the next step is due, monotonic seconds."""

    def step_if_due(self, run: Run, now_ms: int) -> None:
        """Take out some of what is over, in the transaction that is open; `failed` if that is rolled back."""
        if time.monotonic() < self.next_s:
            return
        is_done, changes = True, 0
        for name, lifetime in self._lifetimes.rows_ms.items():
            deleted = run(ddl.sweep(TABLES[name]), (now_ms - lifetime, SWEEP_ROWS)).rowcount
            is_done, changes = is_done and deleted < SWEEP_ROWS, changes + deleted
        for name, lifetime in self._lifetimes.texts_ms.items():
            blanked, was_all = self._blank(run, TABLES[name], now_ms - lifetime)
            is_done, changes = is_done and was_all, changes + blanked
        if changes:
            self._empty_log_s = 0.0
        if is_done:
            self.next_s = time.monotonic() + SWEEP_EVERY_S

    def _blank(self, run: Run, table: Table, until_ms: int) -> tuple[int, bool]:
        """Take out the texts of some rows born before `until_ms`; return of how many, and whether that was all."""
        since_ms = self._blanked_to_ms.get(table.name, BEGINNING_MS)
        found = run(ddl.nth_birth(table), (since_ms, until_ms, SWEEP_ROWS)).fetchone()
        end_ms = max(found[0], since_ms + 1) if found else max(until_ms, since_ms)
        changed: int = run(ddl.sweep_texts(table), (since_ms, end_ms)).rowcount
        self._blanked_to_ms[table.name] = end_ms
        return changed, end_ms >= until_ms

    def failed(self) -> None:
        """Begin again, with the oldest texts: a step was perhaps undone."""
        self._blanked_to_ms.clear()
        self.next_s = 0.0

    def should_empty_log(self) -> bool:
        """Say whether the log is to be emptied of what was taken out of the file: when a sweep is done."""
        now_s = time.monotonic()
        return self._empty_log_s <= now_s < self.next_s

    def note_log(self, busy: bool) -> None:
        """Take down that the log was emptied, or could not be."""
        self._empty_log_s = time.monotonic() + EMPTY_LOG_AGAIN_S if busy else math.inf
