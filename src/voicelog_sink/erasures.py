"""What was erased, and must stay so: asked of every event before it is stored.

An erased session is never stored again. Of an erased person nothing is stored that happened before the erasure; calls
after it are new ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from voicelog.events import Event
from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.tables import ERASURES

Kind = Literal["session", "user"]

REFRESH_S = 15.0
"""How often a sink reads what was erased."""
SETTLE_S = 2 * REFRESH_S
"""After so long every sink drops what is erased, and has written what it had sent to the store before.

A batch that waits for a store that is away is asked anew before it is written. Only a single write that a limping store
draws out for longer brings something later: then it has to be erased once more.
"""

_NOTHING: Mapping[str, int] = MappingProxyType({})


@attrs.frozen
class Erasure:
    """One session or person that was erased, `at_ms` epoch milliseconds; `name` is the session's or user's id."""

    kind: Kind
    name: str
    at_ms: int
    reason: str = ""

    @classmethod
    def of(cls, row: Values) -> Erasure:
        """Return what a row of the table says."""
        return cls(row["kind"], row["subject"].partition(":")[2], row["erased_at"], row.get("reason") or "")

    @property
    def row(self) -> Row:
        """The row that says so."""
        values = {"subject": subject(self.kind, self.name), "kind": self.kind, "erased_at": self.at_ms}
        return Row(ERASURES.name, {**values, "reason": self.reason})


def subject(kind: Kind, name: str) -> str:
    """Return the key under which the table has it."""
    return f"{kind}:{name}"


class Erasures:
    """What was erased, as it was last read. `load` is for the thread with the store, `covers` for any."""

    def __init__(self, erased: Iterable[Erasure] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with these."""
        self._keep(erased)
        self._clock = clock
        self._read_s = -math.inf

    def load(self, store: Store) -> None:
        """Read the table anew. Blocks while the store works; raises StoreError as it does, and nothing changes then."""
        begin_s = self._clock()
        keys = list(store.partitions(ERASURES.name))
        rows = list(store.select(ERASURES.name, keys))
        self._keep(map(Erasure.of, rows))
        self._read_s = begin_s

    def renew(self, store: Store) -> None:
        """Read the table anew where that is REFRESH_S ago: for who writes old rows, as `forget` waits no longer."""
        if self._clock() >= self._read_s + REFRESH_S:
            self.load(store)

    def covers(self, event: Event) -> bool:
        """Return whether the event must not be stored."""
        return self.of_session(event.session_id) or self.of_user(event.user_id, event.ts)

    def of_session(self, session_id: str | None) -> bool:
        """Return whether the call was erased."""
        return session_id in self._erased[0]

    def of_user(self, user_id: str | None, ts_us: int) -> bool:
        """Return whether the person was erased at that moment or after it, epoch microseconds."""
        at_ms = self._erased[1].get(user_id) if user_id else None
        return at_ms is not None and ts_us <= at_ms * 1000

    def covers_row(self, values: Values) -> bool:
        """Return whether a row of any table must not be written, as far as it says whose it is."""
        sessions, users = self._erased
        if values.get("session_id") in sessions:
            return True
        at_ms = users.get(values.get("user_id") or "")
        return at_ms is not None and (values.get("ts") or values.get("started_at") or 0) <= at_ms

    def __bool__(self) -> bool:
        return self._erased != (_NOTHING, _NOTHING)

    def _keep(self, erased: Iterable[Erasure]) -> None:
        sessions, users = dict[str, int](), dict[str, int]()
        for erasure in erased:
            (sessions if erasure.kind == "session" else users)[erasure.name] = erasure.at_ms
        self._erased = (sessions, users)  # at once, for the threads that ask
