"""Erasing a call or a person from the store: what there is, and taking it out of every table.

What stays are rollups and their parts: figures that name no person, no call and no text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter

import attrs

from voicelog.events import shard_of
from voicelog_sink.erasures import Erasure
from voicelog_sink.errors import SinkError
from voicelog_sink.rows import DAY_MS, day_of, event_of, rows_of
from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.tables import SESSION_SUMMARIES, SESSIONS_BY_DAY, TABLES, VOICE_INTERACTIONS

CHUNK = 500
"""Events whose rows are taken out together."""

Key = tuple[str, Values]
"""A table's name and a row's whole key."""


@attrs.frozen
class Erased:
    """Which calls were erased, and how many rows by table."""

    sessions: tuple[str, ...]
    rows: dict[str, int]


def forget(
    store: Store, sessions: Sequence[str], user: str | None, like: Erasure, settle: Callable[[], None]
) -> Erased:
    """Erase calls for good, or with `user` a person, whose calls they are; `like` has the moment and the reason.

    Writes the erasures down, deletes, calls `settle` to wait until every sink knows, deletes what they had on the way
    or wrote of other calls of the person, and purges the store's files. Blocks for all of it. Raises StoreError as the
    store does, and SinkError where something is left: it can be done again.
    """
    if user is not None:
        _record(store, [attrs.evolve(like, kind="user", name=user)])
    _record_calls(store, sessions, like)
    rows = erase(store, sessions)
    settle()
    late = [name for name in (sessions_of(store, user) if user is not None else ()) if name not in sessions]
    _record_calls(store, late, like)
    everyone = (*sessions, *late)
    rows += erase(store, everyone)
    store.purge()
    if left := traces(store, everyone):
        message = f"{left.total()} rows were written again meanwhile: run it again"
        raise SinkError(message)
    return Erased(everyone, dict(rows))


def sessions_of(store: Store, user_id: str) -> list[str]:
    """Return the ids of a person's calls, as their summaries know them: a minute after a call began."""
    found = store.select(SESSION_SUMMARIES.name, [{"user_id": user_id}])
    return sorted(row["session_id"] for row in found)


def traces(store: Store, sessions: Iterable[str]) -> Counter[str]:
    """Return how many rows the store has of these calls, by table; reads all of it. Raises StoreError as it does."""
    return Counter(table for session_id in sessions for table, _ in _keys(store, session_id))


def erase(store: Store, sessions: Iterable[str]) -> Counter[str]:
    """Delete every row of these calls; return how many by table. Can be done again where it was cut short.

    The events go last, since the others are found by them. Raises StoreError as the store does.
    """
    counts: Counter[str] = Counter()
    for session_id in sessions:
        keys = _keys(store, session_id)
        while chunk := list(islice(keys, CHUNK)):
            _delete(store, chunk)
            counts.update(table for table, _ in chunk)
    return counts


def _record_calls(store: Store, sessions: Iterable[str], like: Erasure) -> None:
    _record(store, [attrs.evolve(like, kind="session", name=name) for name in sessions])


def _record(store: Store, erasures: Iterable[Erasure]) -> None:
    """Write down that they were erased, so that nothing that comes later is stored."""
    if refused := store.write([erasure.row for erasure in erasures]):
        message = f"an erasure can't be written down: {refused[0].message}"
        raise SinkError(message)


def _delete(store: Store, keys: Sequence[Key]) -> None:
    ordered = sorted(keys, key=lambda key: (key[0] == VOICE_INTERACTIONS.name, key[0]))
    for table, group in groupby(ordered, key=itemgetter(0)):
        store.delete(table, [key for _, key in group])


def _keys(store: Store, session_id: str) -> Iterator[Key]:
    """Yield the key of every row of a call: those that its events have made, its summary, and where it is listed."""
    started_ms = ended_ms = None
    for row in store.select(VOICE_INTERACTIONS.name, [{"session_id": session_id}]):
        started_ms = row["ts"] if started_ms is None else started_ms
        ended_ms = row["ts"]
        event, *others = rows_of(event_of(row))
        yield from ((made.table, _key(made)) for made in (*others, event))
    for row in store.select(SESSION_SUMMARIES.name, [{"session_id": session_id}]):
        started_ms = min(started_ms or row["started_at"], row["started_at"])
        ended_ms = max(ended_ms or 0, row["started_at"] + int(row["duration_ms"] or 0))
        yield SESSION_SUMMARIES.name, {"session_id": session_id}
    if started_ms is not None and ended_ms is not None:
        yield from _listings(store, session_id, started_ms, ended_ms)


def _listings(store: Store, session_id: str, started_ms: int, ended_ms: int) -> Iterator[Key]:
    """Yield where the list of calls has it: also under the later start of a summary that was made of fewer events."""
    days = range(started_ms // DAY_MS, ended_ms // DAY_MS + 1)
    partitions = [{"day": day_of(day * DAY_MS * 1000), "shard": shard_of(session_id)} for day in days]
    for row in store.select(SESSIONS_BY_DAY.name, partitions):
        if row["session_id"] == session_id:
            yield SESSIONS_BY_DAY.name, _key(Row(SESSIONS_BY_DAY.name, row))


def _key(row: Row) -> Values:
    return {name: row.values[name] for name in TABLES[row.table].key}
