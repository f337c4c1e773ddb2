"""A table's rows as they come out of its files, cut where partitions end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

import attrs

from voicelog_sink.stores.base import Values
from voicelog_sink.tables import Table

CHUNK_ROWS = 4_000
"""Rows that are compared with the store and written together, about; a larger partition is cut."""


@attrs.frozen
class Chunk:
    """Rows of one table. `whole` says that each partition's rows are all here; else they are some of one partition."""

    rows: list[Values]
    whole: bool


def chunks(table: Table, batches: Iterable[list[Values]]) -> Iterator[Chunk]:
    """Yield the rows of a table's file in chunks, whose partitions are whole where they are not larger than a chunk."""
    key_of = itemgetter(*table.partition_key)
    held: list[Values] = []
    cut: Any = None
    for batch in batches:
        held += batch
        edge = _edge(held, key_of)
        if edge:
            yield from _divided(held[:edge], cut, key_of)
            held, cut = held[edge:], None
        elif len(held) >= CHUNK_ROWS or cut == key_of(held[0]):
            cut = key_of(held[0])
            yield Chunk(held, whole=False)
            held = []
    if held:
        yield from _divided(held, cut, key_of)


def _divided(rows: list[Values], cut: Any, key_of: Callable[[Values], Any]) -> Iterator[Chunk]:
    """Yield the rest of a partition that was cut by itself, and then the others."""
    rest = next((place for place, row in enumerate(rows) if key_of(row) != cut), len(rows)) if cut is not None else 0
    if rest:
        yield Chunk(rows[:rest], whole=False)
    if rows[rest:]:
        yield Chunk(rows[rest:], whole=True)


def _edge(rows: list[Values], key_of: Callable[[Values], Any]) -> int:
    """Return where the last partition begins."""
    last = key_of(rows[-1])
    return next((place + 1 for place in range(len(rows) - 1, -1, -1) if key_of(rows[place]) != last), 0)
