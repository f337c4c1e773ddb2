"""Erasing a call or a person from the store: what there is, and taking it out of every table.

What stays are rollups and their parts: figures that name no person, no call and no text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
class Traces:
    """How many rows the store has of each call, by table."""

    rows: dict[str, int]
    sessions: tuple[str, ...]


def sessions_of(store: Store, user_id: str) -> list[str]:
    """Return the ids of a person's calls, as their summaries know them: a minute after a call began."""
    found = store.select(SESSION_SUMMARIES.name, [{"user_id": user_id}])
    return sorted(row["session_id"] for row in found)


def traces(store: Store, sessions: Sequence[str]) -> Traces:
    """Return what the store has of these calls; reads all of it. Raises StoreError as the store does."""
    counts: Counter[str] = Counter()
    for session_id in sessions:
        counts.update(table for table, _ in _keys(store, session_id))
    return Traces(dict(counts), tuple(sessions))


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


def record(store: Store, erasures: Iterable[Erasure]) -> None:
    """Write down that they were erased, so that nothing that comes later is stored."""
    rows = [erasure.row for erasure in erasures]
    refused = store.write(rows)
    if refused:
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
