"""Rows into as few SQLite statements as possible. Pure.

A statement of one row gives the interpreter's lock away and asks for it again for each row; beside a thread that
decodes, that is a wait of some milliseconds a row. A statement of many rows works on them all without the lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from voicelog_sink.stores import ddl
from voicelog_sink.tables import TABLES

SIZES = (128, 16)
"""Rows of a statement, so that few different ones are prepared; what is left over makes one more."""
STATEMENTS = 512
"""Statements that are kept."""


def inserts(
    table: str, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]], max_values: int
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield statements, each with its values, that write rows of the columns `names` in their order.

    No statement has more than `max_values` values, or more than one row.
    """
    most = max(1, max_values // len(names))
    start = 0
    while left := len(rows) - start:
        size = min(most, next((size for size in SIZES if size <= left), left))
        yield insert(table, names, size), tuple(chain.from_iterable(rows[start : start + size]))
        start += size


@lru_cache(maxsize=STATEMENTS)
def insert(table: str, names: tuple[str, ...], count: int = 1) -> str:
    """Return the statement that writes `count` rows of the columns `names`."""
    return ddl.insert(TABLES[table], names, count)
