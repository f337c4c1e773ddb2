"""A table's rows as a Parquet file, and back: every column of the store by its own type, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from voicelog_sink.export_parquet import Groups, pyarrow
from voicelog_sink.stores.base import Values
from voicelog_sink.tables import BLOB, BOOL, INT, REAL, SMALL, TEXT, TIME, Table

GROUP_ROWS = 20_000
GROUP_BYTES = 16 * 1024 * 1024
"""Of a row group, about: what a backup holds as Arrow's columns."""
BATCH_ROWS = 2_000
BATCH_BYTES = 8 * 1024 * 1024
"""Rows that are turned into Python objects at once, and their size, about."""


def needed() -> Any:
    """Return pyarrow; raises ParquetMissing."""
    return pyarrow(otherwise="")


def writer(table: Table, file: IO[bytes]) -> Groups:
    """Return what writes a table's rows into an open file."""
    pa = needed()
    types = {
        TEXT: pa.string(), INT: pa.int64(), SMALL: pa.int32(), REAL: pa.float64(), BOOL: pa.bool_(),
        TIME: pa.timestamp("ms", tz="UTC"), BLOB: pa.binary(),
    }  # fmt: skip
    fields = [(name, types[kind]) for name, kind in table.columns.items()]
    return Groups(file, fields, itemgetter(*table.columns), GROUP_ROWS, GROUP_BYTES)


def batches(table: Table, path: Path) -> Iterator[list[Values]]:
    """Yield a file's rows, some at a time, as a store takes them: what is absent is left out."""
    pa = needed()
    with pa.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            rows = max(1, BATCH_BYTES * len(batch) // max(batch.nbytes, 1))
            for first in range(0, len(batch), rows):
                yield _rows(pa, table, batch.slice(first, rows))


def _rows(pa: Any, table: Table, batch: Any) -> list[Values]:
    names, columns = [], []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count < len(column):
            names.append(name)
            columns.append((column.cast(pa.int64()) if table.columns[name] == TIME else column).to_pylist())
    return [
        {name: value for name, value in zip(names, values, strict=True) if value is not None}
        for values in zip(*columns, strict=True)
    ]
