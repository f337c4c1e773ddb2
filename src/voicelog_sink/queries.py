"""The read side: the list of calls and one call, for the command line, the page and its API. Needs no broker.

Every function blocks while it reads, and raises StoreError as the store does.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterator
from itertools import islice

from voicelog.events import SHARDS
from voicelog_sink.calls import Call, call_of
from voicelog_sink.errors import SinkError
from voicelog_sink.rows import DAY_MS, day_of, event_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.summary import Summary, summarise, summary_of
from voicelog_sink.tables import SESSION_SUMMARIES, SESSIONS_BY_DAY, VOICE_INTERACTIONS

LAST = "last"
"""What stands for the newest call where a session id is expected."""

NEWEST_WITHIN_MS = 90 * DAY_MS
PAGE = 32
SHOWN = 5


class NoSuchSession(SinkError):
    """No call, or several, are meant by what was given; `near` are the ids it could have been."""

    def __init__(self, message: str, near: tuple[str, ...] = ()) -> None:
        """Keep the ids beside the sentence."""
        super().__init__(message)
        self.near = near


def sessions(store: Store, since_ms: int, until_ms: int, limit: int) -> list[Summary]:
    """Return the calls that began from `since_ms` (inclusive) to `until_ms` (exclusive), newest first.

    A row of the list that disagrees with the call's own summary is left out: the call is listed under another start,
    or was erased.
    """
    return list(islice(_sessions(store, since_ms, until_ms), limit))


def call(store: Store, session_id: str) -> Call | None:
    """Return a call, live or over, as its events say; None when nothing is known of it.

    Where the events have expired and the summary has not, the call has no turns.
    """
    events = [event_of(row) for row in store.select(VOICE_INTERACTIONS.name, [{"session_id": session_id}])]
    summary = summarise(events) or _summary(store, session_id)
    return call_of(summary, events) if summary else None


def find(store: Store, given: str, now_ms: int) -> str:
    """Return the session id that is meant: itself, the only one that begins so, or the newest for `last`.

    Raises NoSuchSession. A call is found by its beginning once it has a summary, a minute after it began.
    """
    if given == LAST:
        return _last(store, now_ms)
    if _is_known(store, given):
        return given
    known: list[str] = [row["session_id"] for row in store.partitions(SESSION_SUMMARIES.name)]
    found = sorted(session_id for session_id in known if session_id.startswith(given))
    if len(found) == 1:
        return found[0]
    raise _ambiguous(given, found) if found else _unknown(given, known)


def _sessions(store: Store, since_ms: int, until_ms: int) -> Iterator[Summary]:
    listed = _listed(store, since_ms, until_ms)
    while page := list(islice(listed, PAGE)):
        partitions = [{"session_id": row["session_id"]} for row in page]
        found = {row["session_id"]: row for row in store.select(SESSION_SUMMARIES.name, partitions)}
        for row in page:
            summary = found.get(row["session_id"])
            if summary and summary["started_at"] == row["started_at"]:
                yield summary_of(summary)


def _listed(store: Store, since_ms: int, until_ms: int) -> Iterator[Values]:
    day_ms = (until_ms - 1) // DAY_MS * DAY_MS
    while day_ms + DAY_MS > since_ms:
        day = day_of(day_ms * 1000)
        shards = [_shard(store, {"day": day, "shard": shard}, since_ms, until_ms) for shard in range(SHARDS)]
        yield from heapq.merge(*shards, key=lambda row: (-row["started_at"], row["session_id"]))
        day_ms -= DAY_MS


def _shard(store: Store, partition: Values, since_ms: int, until_ms: int) -> Iterator[Values]:
    """Yield a partition's rows, newest first, read a page at a time: most lists end long before a day does."""
    limit, seen = PAGE, set[str]()
    while True:
        rows = store.select(SESSIONS_BY_DAY.name, [partition], since_ms=since_ms, until_ms=until_ms, limit=limit)
        page = list(rows)
        yield from (row for row in page if row["session_id"] not in seen)
        if len(page) < limit:
            return
        until_ms = page[-1]["started_at"] + 1
        seen = {row["session_id"] for row in page if row["started_at"] == until_ms - 1}
        limit *= 2


def _summary(store: Store, session_id: str) -> Summary | None:
    row = next(store.select(SESSION_SUMMARIES.name, [{"session_id": session_id}]), None)
    return summary_of(row) if row else None


def _is_known(store: Store, session_id: str) -> bool:
    sources = (SESSION_SUMMARIES.name, VOICE_INTERACTIONS.name)
    return any(next(store.select(name, [{"session_id": session_id}], limit=1), None) for name in sources)


def _last(store: Store, now_ms: int) -> str:
    newest = sessions(store, now_ms - NEWEST_WITHIN_MS, now_ms + DAY_MS, 1)
    if not newest:
        message = (
            f"there is no call yet within {NEWEST_WITHIN_MS // DAY_MS} days (a call shows up a minute after it began)"
        )
        raise NoSuchSession(message)
    return newest[0].session_id


def _ambiguous(given: str, found: list[str]) -> NoSuchSession:
    shown = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    message = f"{len(found)} calls begin with {given!r}: {shown}; give more of the id"
    return NoSuchSession(message, tuple(found[:SHOWN]))


def _unknown(given: str, known: list[str]) -> NoSuchSession:
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.75)
    hint = f"did you mean {' or '.join(near)}?" if near else "`voicelog-sink sessions --since 90d` lists the calls"
    return NoSuchSession(f"no call {given!r} is stored: {hint}", tuple(near))
