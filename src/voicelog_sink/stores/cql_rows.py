"""Rows into the bytes and batches that the CQL driver sends: the hot loop, apart from the driver. Pure.

The columns are encoded here and not by the driver, which takes three times as long over it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from operator import call, itemgetter
from typing import Any, NamedTuple

from voicelog_sink.stores.lifetime import born_column, left_ms
from voicelog_sink.tables import BLOB, BOOL, INT, REAL, SMALL, TEXT, TIME, Table

MAX_ROWS = 32
MAX_BYTES = 40_000
"""Of one batch. Cassandra refuses batches above 50 kB and ScyllaDB above 1 MB by default."""
SHAPES = 64
"""Sets of a table's columns that have a statement of their own, which both sides keep; other rows name every column."""
ROUTING_KEYS = 4096


class RowError(ValueError):
    """A row that can't be written as CQL: a value of the wrong type, a key that is absent, an unknown column."""


class Encoded(NamedTuple):
    """One row as CQL: its index in what was written, the partition's routing key, the bound values, their size.

    `names` are the columns of its statement.
    """

    number: int
    routing_key: bytes
    params: list[Any]
    size_bytes: int
    names: tuple[str, ...] = ()


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


class Shape(NamedTuple):
    """How rows of one set of columns are encoded: a packer for each, and the places of the partition key's."""

    names: tuple[str, ...]
    packers: tuple[Callable[[Any], bytes], ...]
    partition: tuple[int, ...]


class TableEncoder:
    """Encodes one table's rows for an INSERT of their own columns; an absent column is left as it is.

    In a table with a version a row replaces the whole older one, so there every column is written: left as it is, the
    older row's value would show through. `unset` is what the driver takes for that. Used by one thread.
    """

    def __init__(self, table: Table, lifetime_ms: int | None, unset: Any, left_out: Collection[str] = ()) -> None:
        """Work out what is the same for every row; `lifetime_ms` is None for a table whose rows do not expire.

        Columns that are `left_out` are as they are, whatever the row says.
        """
        self.table = table
        self.columns = tuple(table.columns)
        self._lifetime = lifetime_ms
        self._born = born_column(table)
        self._blank = [None if table.version and name not in left_out else unset for name in table.columns]
        self._order = {name: place for place, name in enumerate(table.columns)}
        self._key_places = [self._order[name] for name in table.key]
        self._read_partition = itemgetter(*table.partition_key)
        self._routing_keys: dict[Any, bytes] = {}
        self._shapes: dict[tuple[str, ...], Shape | None] = {}

    def encode(self, number: int, values: Mapping[str, Any], now_ms: int) -> Encoded | None:
        """Return the row, None where its time is over; raises RowError."""
        names = tuple(values)
        shape = self._shapes.get(names) or self._shape(names)
        if shape is None:
            return self._encode_whole(number, values, now_ms)
        try:
            params: list[Any] = list(map(call, shape.packers, values.values()))
        except PACK_ERRORS:
            return self._encode_present(number, values, now_ms)
        routing_key = params[shape.partition[0]] if len(shape.partition) == 1 else self._joined(values, params, shape)
        size = sum(map(len, params))
        if self._lifetime is not None:
            left = left_ms(values, self._born, self._lifetime, now_ms)
            if left <= 0:
                return None
            params.append(_pack_int(-(-left // 1000)))
        return Encoded(number, routing_key, params, size, shape.names)

    def _shape(self, names: tuple[str, ...]) -> Shape | None:
        """Return how such rows are encoded; None where every column is written, the absent ones as unset or null."""
        columns = self.table.columns
        if self.table.version or not set(self.table.key) <= set(names) <= set(columns) or len(self._shapes) >= SHAPES:
            return None
        packers = tuple(PACKERS[columns[name]] for name in names)
        shape = Shape(names, packers, tuple(names.index(name) for name in self.table.partition_key))
        self._shapes[names] = shape
        return shape

    def _encode_present(self, number: int, values: Mapping[str, Any], now_ms: int) -> Encoded | None:
        """Encode a row without the columns that are None; raises RowError where that is not what is wrong with it."""
        present = {name: value for name, value in values.items() if value is not None}
        if len(present) == len(values):
            raise self.explain(values)
        return self.encode(number, present, now_ms)

    def _encode_whole(self, number: int, values: Mapping[str, Any], now_ms: int) -> Encoded | None:
        params = self._blank.copy()
        size = 0
        try:
            for name, value in values.items():
                if value is not None:
                    packed = params[self._order[name]] = PACKERS[self.table.columns[name]](value)
                    size += len(packed)
        except PACK_ERRORS:
            raise self.explain(values) from None
        routing_key = self._routing_key(params)
        if self.table.version is not None:
            params.append(self.timestamp(values))
        if self._lifetime is not None:
            left = left_ms(values, self._born, self._lifetime, now_ms)
            if left <= 0:
                return None
            params.append(_pack_int(-(-left // 1000)))
        return Encoded(number, routing_key, params, size, self.columns)

    def encode_key(self, number: int, values: Mapping[str, Any]) -> Encoded:
        """Return the key alone, for a DELETE; raises RowError."""
        key = {name: values.get(name) for name in self.table.key}
        params = self._blank.copy()
        try:
            for name, value in key.items():
                params[self._order[name]] = None if value is None else PACKERS[self.table.columns[name]](value)
        except PACK_ERRORS:
            raise self.explain(key) from None
        routing_key = self._routing_key(params)
        return Encoded(number, routing_key, [params[place] for place in self._key_places], 0, self.table.key)

    def _routing_key(self, params: list[Any]) -> bytes:
        for place in self._key_places:
            if not isinstance(params[place], bytes):
                message = f"table {self.table.name}: key column {self.columns[place]} is absent"
                raise RowError(message)
        return self._join([params[place] for place in self._key_places[: len(self.table.partition_key)]])

    def _joined(self, values: Mapping[str, Any], params: list[Any], shape: Shape) -> bytes:
        """Return the routing key of several columns; they are the same for many rows."""
        partition = self._read_partition(values)
        found = self._routing_keys.get(partition)
        if found is None:
            if len(self._routing_keys) >= ROUTING_KEYS:
                self._routing_keys.clear()
            found = self._routing_keys[partition] = self._join([params[place] for place in shape.partition])
        return found

    def _join(self, parts: list[bytes]) -> bytes:
        if len(parts) == 1:
            return parts[0]
        try:
            return b"".join(struct.pack(f">H{len(part)}sB", len(part), part, 0) for part in parts)
        except struct.error as exc:
            message = f"table {self.table.name}: its partition key is longer than 65535 bytes"
            raise RowError(message) from exc

    def timestamp(self, values: Mapping[str, Any]) -> bytes:
        """Return the row's version, which it is written with as timestamp; raises RowError for one that is none."""
        version = values.get(self.table.version or "")
        if not isinstance(version, int) or version < 0:
            message = f"table {self.table.name}: {self.table.version} is {version!r}: expected a whole number from 0 on"
            raise RowError(message)
        return _pack_bigint(version)

    def explain(self, values: Mapping[str, Any]) -> RowError:
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
