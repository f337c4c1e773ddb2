"""Parquet: typed columns, zstd, row groups of a bounded size. The only file that imports pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any, cast

from voicelog_sink.errors import SinkError
from voicelog_sink.export import Export
from voicelog_sink.export_columns import columns_of, reader
from voicelog_sink.export_formats import Writer
from voicelog_sink.stores.base import Values
from voicelog_sink.tables import BLOB, BOOL, INT, REAL, SMALL, TEXT, TIME

CHUNK_ROWS = 1_000
CHUNK_CHARACTERS = 8 * 1024 * 1024
"""Rows that are held as Python objects, and their texts, at most; one longer row is held alone."""
GROUP_ROWS = 100_000
GROUP_BYTES = 64 * 1024 * 1024
"""Of a row group, about: what is held as Arrow's columns until it is written."""


class ParquetMissing(SinkError):
    """Parquet was asked for and pyarrow is not installed."""


def pyarrow() -> Any:
    """Return pyarrow with its module for Parquet; raises ParquetMissing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as exc:
        message = (
            f"Parquet needs pyarrow, which can't be imported ({exc}): expected the extra `parquet`; "
            "pip install 'voicelog[sink,parquet]', or take --format jsonl or csv"
        )
        raise ParquetMissing(message) from exc
    return pa


class Parquet(Writer):
    """A Parquet file; without `finish` it has no end, and no reader takes it for whole."""

    def __init__(self, export: Export, file: IO[bytes]) -> None:
        """Write the beginning; raises ParquetMissing."""
        self._pa = pa = pyarrow()
        types = {
            TEXT: pa.string(), INT: pa.int64(), SMALL: pa.int32(), REAL: pa.float64(), BOOL: pa.bool_(),
            TIME: pa.timestamp("us", tz="UTC"), BLOB: pa.binary(),
        }  # fmt: skip
        columns = columns_of(export.table)
        self._read = reader(columns)
        self._schema = pa.schema([(column.name, types[column.kind]) for column in columns])
        self._way = _Way(file)
        self._writer = pa.parquet.ParquetWriter(cast("Any", self._way), self._schema, compression="zstd")
        self._rows: list[Sequence[Any]] = []
        self._characters = 0
        self._batches: list[Any] = []

    def write(self, row: Values) -> None:
        """Keep the row; write a row group where enough is kept."""
        values = self._read(row)
        self._rows.append(values)
        self._characters += sum(len(value) for value in values if isinstance(value, str))
        if len(self._rows) >= CHUNK_ROWS or self._characters >= CHUNK_CHARACTERS:
            self._pack()

    def finish(self) -> None:
        """Write the last row group and the file's end."""
        self._pack()
        self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """Leave the file without an end, also when pyarrow's writer is let go of, which would write one."""
        self._way.closed_off = True
        self._writer.close()

    def _pack(self) -> None:
        """Turn the kept rows into Arrow's columns."""
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [self._pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
            self._batches.append(self._pa.record_batch(arrays, schema=self._schema))
            self._rows, self._characters = [], 0
        if sum(map(len, self._batches)) >= GROUP_ROWS or sum(b.nbytes for b in self._batches) >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if self._batches:
            table = self._pa.Table.from_batches(self._batches, self._schema)
            self._batches = []
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))


class _Way:
    """The file as pyarrow writes it: counted, since a pipe can't say where it is, and never closed."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._written_bytes = 0
        self.closed_off = False

    def write(self, data: Any) -> int:
        if not self.closed_off:
            self._file.write(data)
        self._written_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written_bytes

    def flush(self) -> None:
        """Do nothing: the file is flushed by who opened it."""

    def close(self) -> None:
        """Do nothing: the file is closed by who opened it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
