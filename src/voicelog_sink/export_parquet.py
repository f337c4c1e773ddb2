"""Parquet: typed columns, zstd, row groups of a bounded size. The only file that imports pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
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


def pyarrow(otherwise: str = ", or take --format jsonl or csv") -> Any:
    """Return pyarrow with its module for Parquet; raises ParquetMissing, which says what to do `otherwise`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as exc:
        message = (
            f"Parquet needs pyarrow, which can't be imported ({exc}): expected the extra `parquet`; "
            f"pip install 'voicelog[sink,parquet]'{otherwise}"
        )
        raise ParquetMissing(message) from exc
    return pa


class Groups(Writer):
    """A Parquet file of any columns; without `finish` it has no end, and no reader takes it for whole."""

    def __init__(
        self,
        file: IO[bytes],
        fields: Sequence[tuple[str, Any]],
        read: Callable[[Values], Sequence[Any]],
        group_rows: int,
        group_bytes: int,
    ) -> None:
        """Write the beginning; `fields` are names with Arrow's types, whose values `read` takes out of a row.

        Raises ParquetMissing.
        """
        self._pa = pa = pyarrow()
        self._read = read
        self._schema = pa.schema(fields)
        texts = [place for place, (_, kind) in enumerate(fields) if kind == pa.string()]
        self._texts = itemgetter(*texts, texts[0])  # one more, since of one column it would give no tuple
        self._blobs = [place for place, (_, kind) in enumerate(fields) if kind == pa.binary()]
        self._way = _Way(file)
        self._writer = pa.parquet.ParquetWriter(cast("Any", self._way), self._schema, compression="zstd")
        self._group_rows = group_rows
        self._group_bytes = group_bytes
        self._rows: list[Sequence[Any]] = []
        self._characters = 0
        self._batches: list[Any] = []

    def write(self, row: Values) -> None:
        """Keep the row; write a row group where enough is kept."""
        values = self._read(row)
        self._rows.append(values)
        self._characters += len("".join(filter(None, self._texts(values))))
        self._characters += sum(len(values[place] or b"") for place in self._blobs)
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
        rows, size_bytes = sum(map(len, self._batches)), sum(batch.nbytes for batch in self._batches)
        if rows >= self._group_rows or size_bytes >= self._group_bytes:
            self._write_group()

    def _write_group(self) -> None:
        if self._batches:
            table = self._pa.Table.from_batches(self._batches, self._schema)
            self._batches = []
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))


class Parquet(Groups):
    """The Parquet file of an export."""

    def __init__(self, export: Export, file: IO[bytes]) -> None:
        """Write the beginning; raises ParquetMissing."""
        pa = pyarrow()
        types = {
            TEXT: pa.string(), INT: pa.int64(), SMALL: pa.int32(), REAL: pa.float64(), BOOL: pa.bool_(),
            TIME: pa.timestamp("us", tz="UTC"), BLOB: pa.binary(),
        }  # fmt: skip
        columns = columns_of(export.table)
        fields = [(column.name, types[column.kind]) for column in columns]
        super().__init__(file, fields, reader(columns), GROUP_ROWS, GROUP_BYTES)


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
