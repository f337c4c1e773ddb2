"""What a store has already of the rows that are to be restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import attrs

from voicelog_sink.restore_chunks import Chunk
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.stores.lifetime import born_column
from voicelog_sink.tables import METRIC_ROLLUPS, TIME, Life, Table

Identity = Callable[[Values], tuple[Any, ...]]


@attrs.frozen
class There:
    """The rows that a store has in the partitions of a chunk.

    `rank` has each by its identity, with its version, or its time where rows are replaced without one. `mixed` has a
    row of each partition of which both sides have what the other may not have: what is derived from it must be derived
    anew.
    """

    identity: Identity
    version: str | None
    rank: dict[tuple[Any, ...], int]
    mixed: list[Values]

    @classmethod
    def of(cls, store: Store, table: Table, chunk: Chunk) -> There:
        """Read what the store has. Blocks; raises StoreError as it does."""
        appended = table.life is Life.APPENDED
        version = None if appended else table.version or born_column(table)
        identity = _identity(_names(table) if appended else table.key)
        wanted = {identity(row): row for row in chunk.rows}
        rank: dict[tuple[Any, ...], int] = {}
        mixed: dict[tuple[Any, ...], Values] = {}
        partition = _identity(table.partition_key)
        for row in (_short if appended else _whole)(store, table, chunk):
            found = identity(row)
            ours = wanted.get(found)
            if ours is not None:
                rank[found] = (row[version] or 0) if version else 0
            if _differs(table, chunk, row, ours):
                mixed[partition(row) if appended else found] = row
        return cls(identity, version, rank, list(mixed.values()))

    def lacks(self, row: Values) -> bool:
        """Return whether the store has neither the row nor a newer one."""
        rank = self.rank.get(self.identity(row))
        return rank is None or (self.version is not None and rank < row.get(self.version, 0))


def _differs(table: Table, chunk: Chunk, row: Values, ours: Values | None) -> bool:
    if table is METRIC_ROLLUPS:
        return ours is not None and row["sketch"] != ours.get("sketch")
    if table.life is not Life.APPENDED or ours is not None:
        return False
    # Of a partition that was cut, rows at the time of its edges may be in the chunk beside this one.
    edges = () if chunk.whole else (_at_ms(chunk.rows[0]), _at_ms(chunk.rows[-1]))
    return _at_ms(row) is None or _at_ms(row) not in edges


def _at_ms(row: Values) -> int | None:
    ts_us: int | None = row.get("ts_us")
    return None if ts_us is None else ts_us // 1000


def _identity(names: Sequence[str]) -> Identity:
    return itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)


def _names(table: Table) -> tuple[str, ...]:
    """Return columns that identify an appended row and that are the same in every store as they are."""
    precise = ("ts_us",) if "ts_us" in table.columns else ()
    return (*(name for name in table.key if table.columns[name] != TIME), *precise)


def _whole(store: Store, table: Table, chunk: Chunk) -> Iterator[Values]:
    return store.select(table.name, _partitions(table, chunk), **_bounds(table, chunk))


def _short(store: Store, table: Table, chunk: Chunk) -> Iterator[Values]:
    """Yield the columns that identify a row, without the cost of the others."""
    names = _names(table)
    for values in store.tuples(table.name, names, _partitions(table, chunk), **_bounds(table, chunk)):
        yield dict(zip(names, values, strict=True))


def _partitions(table: Table, chunk: Chunk) -> list[Values]:
    key_of = _identity(table.partition_key)
    return [dict(zip(table.partition_key, key, strict=True)) for key in dict.fromkeys(map(key_of, chunk.rows))]


def _bounds(table: Table, chunk: Chunk) -> dict[str, Any]:
    """Return the bounds of a partition that was cut; the others are read whole."""
    first = table.clustering[0] if table.clustering else ""
    if chunk.whole or table.columns.get(first) != TIME:
        return {}
    times = [row[first] for row in chunk.rows]
    return {"since_ms": min(times), "until_ms": max(times) + 1}
