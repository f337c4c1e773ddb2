"""What a restore must not bring back: what was erased, in the store it writes to or in the backup."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import attrs

from voicelog_sink.erasures import SETTLE_S, Erasure, Erasures
from voicelog_sink.errors import SinkError
from voicelog_sink.forget import erase
from voicelog_sink.patience import patiently
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.stores.lifetime import born_column
from voicelog_sink.tables import ERASURES, SESSION_SUMMARIES, TABLES

REASON = "a call of an erased person, met by restore"


class Gate:
    """Asked of every row before it is written. Used by the thread that has the store.

    An erased person's call of before the erasure is taken for erased as a whole and written down so, as `forget` does:
    its rows that name no person are known by the call. With `dry_run` nothing is written.
    """

    def __init__(self, store: Store, dry_run: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of nothing yet."""
        self._store = store
        self._dry_run = dry_run
        self._clock = clock
        self._known = Erasures(clock=clock)
        self._brought = Erasures()
        self._found: set[str] = set()
        self._new: list[Erasure] = []
        self._new_s = 0.0
        self.erased: Counter[str] = Counter()
        """Rows that the store had of what the backup says was erased, and that were deleted, by table."""

    def bring(self, rows: Sequence[Values]) -> int:
        """Take a backup's erasures; write those that the store does not know, or only from before; return how many.

        Then delete what the store has of them. To be called once, first. Raises StoreError as the store does.
        """
        patiently(self._known.load, self._store)
        found = {row["subject"]: row for row in patiently(self._there, rows)}
        erasures = [(Erasure.of(row), found.get(row["subject"])) for row in rows]
        self._brought = Erasures(erasure for erasure, _ in erasures)
        self._new = [erasure for erasure, there in erasures if there is None or there["erased_at"] < erasure.at_ms]
        self._write(self._new)
        self._new_s = self._clock()
        self._erase()
        return len(self._new)

    def _there(self, rows: Sequence[Values]) -> list[Values]:
        return list(self._store.select(ERASURES.name, [{"subject": row["subject"]} for row in rows]))

    def renew(self) -> None:
        """Read what the store knows anew, as often as a sink does: `forget` waits for no longer than that."""
        patiently(self._known.renew, self._store)

    def covers(self, table: str, row: Values) -> bool:
        """Return whether the row must not be stored. Writes down a call that it finds."""
        session_id = row.get("session_id")
        if session_id in self._found or self._known.of_session(session_id) or self._brought.of_session(session_id):
            return True
        user_id = row.get("user_id")
        if not user_id:
            return False
        at_us = row.get("ts_us") or row.get(born_column(TABLES[table]), 0) * 1000
        if not (self._known.of_user(user_id, at_us) or self._brought.of_user(user_id, at_us)):
            return False
        if session_id:
            self._found.add(session_id)
            self._write([Erasure("session", session_id, time.time_ns() // 1_000_000, REASON)])
        return True

    def finish(self, settle: Callable[[], None]) -> None:
        """Delete once more what sinks wrote of what they did not know to be erased, after `settle` has waited for them.

        Does nothing where the backup had no erasure that was new. Raises StoreError as the store does.
        """
        if not self._new or self._dry_run:
            return
        if self._clock() < self._new_s + SETTLE_S:
            settle()
        self._erase()
        if self.erased:
            patiently(self._store.purge)

    def _erase(self) -> None:
        if not self._dry_run:
            for session_id in self._sessions():
                self.erased += patiently(erase, self._store, [session_id])

    def _sessions(self) -> Iterator[str]:
        """Yield the calls that are newly erased, those of persons too, which are written down."""
        for erasure in self._new:
            if erasure.kind == "session":
                yield erasure.name
                continue
            for row in patiently(self._calls_of, erasure.name):
                if row["started_at"] <= erasure.at_ms:
                    self._write([attrs.evolve(erasure, kind="session", name=row["session_id"])])
                    yield row["session_id"]

    def _calls_of(self, user_id: str) -> list[Values]:
        return list(self._store.select(SESSION_SUMMARIES.name, [{"user_id": user_id}]))

    def _write(self, erasures: Sequence[Erasure]) -> None:
        if self._dry_run or not erasures:
            return
        if refused := patiently(self._store.write, [erasure.row for erasure in erasures]):
            message = f"an erasure can't be written down: {refused[0].message}"
            raise SinkError(message)
