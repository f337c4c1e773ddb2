"""Rows into the bytes and batches that the CQL driver sends: the hot loop, apart from the driver. Pure.

The columns are encoded here and not by the driver, which takes three times as long over it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from voicelog_sink.stores.lifetime import born_column, left_ms, lifetime_ms
from voicelog_sink.tables import BLOB, BOOL, INT, REAL, SMALL, TEXT, TIME, Table

MAX_ROWS = 32
MAX_BYTES = 40_000
"""Of one batch. Cassandra refuses batches above 50 kB and ScyllaDB above 1 MB by default."""
SHAPES = 4096
"""Sets of columns whose encoding plan is kept."""


class RowError(ValueError):
    """A row that can't be written as CQL: a value of the wrong type, a key that is absent, an unknown column."""


class Encoded(NamedTuple):
    """One row as CQL: its index in what was written, the partition's routing key, the bound values, their size."""

    number: int
    routing_key: bytes
    params: list[Any]
    size_bytes: int


def _blob(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    message = "expected bytes"
    raise TypeError(message)


_pack_bigint = struct.Struct(">q").pack
_pack_int = struct.Struct(">i").pack

PACKERS: dict[str, Callable[[Any], bytes]] = {
    TEXT: str.encode,
    INT: _pack_bigint,
    TIME: _pack_bigint,
    SMALL: _pack_int,
    REAL: struct.Struct(">d").pack,
    BOOL: {True: b"\x01", False: b"\x00"}.__getitem__,
    BLOB: _blob,
}
"""A column type's bytes; each raises one of PACK_ERRORS for what is not of the type."""
PACK_ERRORS = (struct.error, TypeError, KeyError, ValueError, OverflowError)


Places = tuple[tuple[int, Callable[[Any], bytes]], ...]
"""How rows of one set of columns are encoded: position and packer of each."""


class TableEncoder:
    """Encodes one table's rows for its INSERT; `unset` is what the driver takes for a column that is left as it is."""

    def __init__(self, table: Table, ttl_days: int, unset: Any) -> None:
        """Work out what is the same for every row."""
        self.table = table
        self._lifetime = lifetime_ms(table, ttl_days)
        self._born = born_column(table)
        # A row with a version replaces the whole older row, so an absent column must be null: left unset, the older
        # row's value would show through.
        self._blank = [None if table.version else unset] * len(table.columns)
        self._order = {name: place for place, name in enumerate(table.columns)}
        self._key_places = [self._order[name] for name in table.key]
        self._parts = len(table.partition_key)
        self._plans: dict[tuple[str, ...], Places] = {}

    def encode(self, number: int, values: Mapping[str, Any], now_ms: int) -> Encoded | None:
        """Return the row, None where its time is over; raises RowError."""
        params = self._blank.copy()
        size = 0
        try:
            for (place, pack), value in zip(self._places(tuple(values)), values.values(), strict=True):
                if value is not None:
                    packed = params[place] = pack(value)
                    size += len(packed)
        except PACK_ERRORS:
            raise self._explain(values) from None
        routing_key = self._routing_key(params)
        if self.table.version is not None:
            params.append(self._timestamp(values))
        if self._lifetime is not None:
            left = left_ms(values, self._born, self._lifetime, now_ms)
            if left <= 0:
                return None
            params.append(_pack_int(-(-left // 1000)))
        return Encoded(number, routing_key, params, size)

    def encode_key(self, number: int, values: Mapping[str, Any]) -> Encoded:
        """Return the key alone, for a DELETE; raises RowError."""
        key = {name: values.get(name) for name in self.table.key}
        params = self._blank.copy()
        try:
            for (place, pack), value in zip(self._places(tuple(key)), key.values(), strict=True):
                params[place] = None if value is None else pack(value)
        except PACK_ERRORS:
            raise self._explain(key) from None
        routing_key = self._routing_key(params)
        return Encoded(number, routing_key, [params[place] for place in self._key_places], 0)

    def _places(self, names: tuple[str, ...]) -> Places:
        places = self._plans.get(names)
        if places is None:
            places = tuple((self._order[name], PACKERS[self.table.columns[name]]) for name in names)
            if len(self._plans) < SHAPES:
                self._plans[names] = places
        return places

    def _routing_key(self, params: list[Any]) -> bytes:
        for place in self._key_places:
            if not isinstance(params[place], bytes):
                message = f"table {self.table.name}: key column {list(self.table.columns)[place]} is absent"
                raise RowError(message)
        parts: list[bytes] = [params[place] for place in self._key_places[: self._parts]]
        if len(parts) == 1:
            return parts[0]
        try:
            return b"".join(struct.pack(f">H{len(part)}sB", len(part), part, 0) for part in parts)
        except struct.error as exc:
            message = f"table {self.table.name}: its partition key is longer than 65535 bytes"
            raise RowError(message) from exc

    def _timestamp(self, values: Mapping[str, Any]) -> bytes:
        version = values.get(self.table.version or "")
        if not isinstance(version, int) or version < 0:
            message = f"table {self.table.name}: {self.table.version} is {version!r}: expected a whole number from 0 on"
            raise RowError(message)
        return _pack_bigint(version)

    def _explain(self, values: Mapping[str, Any]) -> RowError:
        """Return the error of the first column that can't be encoded."""
        for name, value in values.items():
            kind = self.table.columns.get(name)
            if kind is None:
                return RowError(f"table {self.table.name} has no column {name!r}")
            try:
                if value is not None:
                    PACKERS[kind](value)
            except PACK_ERRORS as exc:
                what = f"{type(value).__name__} is no {kind}" if isinstance(exc, (TypeError, KeyError)) else str(exc)
                return RowError(f"table {self.table.name}: column {name}: {what}")
        return RowError(f"table {self.table.name}: the row can't be written as CQL")


def batches(rows: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Yield the rows of one table grouped by partition, at most MAX_ROWS and about MAX_BYTES each."""
    open_batches: dict[bytes, list[Encoded]] = {}
    sizes: dict[bytes, int] = {}
    for row in rows:
        key = row.routing_key
        batch = open_batches.get(key)
        if batch is None or len(batch) >= MAX_ROWS or sizes[key] + row.size_bytes > MAX_BYTES:
            if batch:
                yield batch
            open_batches[key], sizes[key] = [row], row.size_bytes
        else:
            batch.append(row)
            sizes[key] += row.size_bytes
    yield from open_batches.values()
