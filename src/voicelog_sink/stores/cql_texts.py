"""Rows whose texts go before their figures, as CQL. Pure.

A TTL is a cell's, so texts are written with one of their own. The figures are INSERTed, and with them the row itself;
the texts are an UPDATE in the same batch, which makes no row. Tables whose texts stay as long as their rows do not come
here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from voicelog_sink.stores.cql_rows import PACK_ERRORS, PACKERS, SHAPES, Encoded, TableEncoder
from voicelog_sink.stores.lifetime import born_column, left_ms
from voicelog_sink.tables import Table

_pack_int = struct.Struct(">i").pack


class DividedEncoder:
    """Encodes one table's rows, each as what is kept and the texts that go before. Used by one thread."""

    def __init__(self, table: Table, lifetime_ms: int, text_ms: int, unset: Any) -> None:
        """Work out what is the same for every row."""
        self._table = table
        self._texts = frozenset(table.texts)
        self._text_ms = text_ms
        self._born = born_column(table)
        self._unset = unset
        self._figures = TableEncoder(table, lifetime_ms, unset, left_out=self._texts)
        self._shapes: set[tuple[str, ...]] = set()

    def encode(self, number: int, values: Mapping[str, Any], now_ms: int) -> list[Encoded]:
        """Return what there is to write of the row, nothing where its time is over; raises RowError."""
        kept = {name: value for name, value in values.items() if name not in self._texts}
        figures = self._figures.encode(number, kept, now_ms)
        if figures is None:
            return []
        # A row with a version replaces the older one, with the texts that this one does not have.
        texts = (
            self._table.texts
            if self._table.version
            else tuple(n for n in self._table.texts if values.get(n) is not None)
        )
        left = left_ms(values, self._born, self._text_ms, now_ms)
        if not texts or (left <= 0 and not self._table.version):
            return [figures]
        return [figures, self._encode_texts(figures, values, texts, left)]

    def _encode_texts(self, figures: Encoded, values: Mapping[str, Any], names: tuple[str, ...], left: int) -> Encoded:
        """Return the UPDATE: its timestamp where the table has a version, its TTL, the texts, the key."""
        if names not in self._shapes and len(self._shapes) >= SHAPES:
            names = self._table.texts
        self._shapes.add(names)
        columns = self._table.columns
        try:
            texts = [self._packed(values.get(name), left) for name in names]
            params = [*texts, *(PACKERS[columns[name]](values[name]) for name in self._table.key)]
        except PACK_ERRORS:
            raise self._figures.explain(values) from None
        using = [_pack_int(max(1, -(-left // 1000)))]
        if self._table.version is not None:
            using.insert(0, self._figures.timestamp(values))
        return Encoded(figures.number, figures.routing_key, [*using, *params], sum(map(_size, texts)), names)

    def _packed(self, value: Any, left: int) -> Any:
        if value is None or left <= 0:
            return None if self._table.version else self._unset
        return PACKERS["text"](value)


def _size(packed: Any) -> int:
    return len(packed) if isinstance(packed, bytes) else 0
