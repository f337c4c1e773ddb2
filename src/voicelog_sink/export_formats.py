"""The formats of an export that are made of lines: JSON Lines and CSV. Parquet is in export_parquet.py."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import IO, Any

from voicelog_sink.export import Export
from voicelog_sink.export_columns import columns_of, moment_us
from voicelog_sink.stores.base import Values
from voicelog_sink.tables import BOOL, TIME

_SPECIAL = re.compile(r'[",\r\n]|^$|^\s|\s$')


class Writer(ABC):
    """Writes rows into an open binary file, which it neither flushes nor closes. Raises OSError as the file does."""

    @abstractmethod
    def write(self, row: Values) -> None:
        """Write one row of the store, or keep it until there are more."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left; without it the file is not whole."""

    def abandon(self) -> None:  # noqa: B027 - lines need nothing
        """Let go of the file as it is, where `finish` will not be called."""


class JsonLines(Writer):
    """One JSON object a line; an event is what it was on the wire."""

    def __init__(self, export: Export, file: IO[bytes]) -> None:
        """Write nothing yet."""
        self._json = export.json
        self._file = file

    def write(self, row: Values) -> None:
        """Write one line."""
        self._file.write(self._json(row) + b"\n")

    def finish(self) -> None:
        """Do nothing: every line is written already."""


class Csv(Writer):
    """RFC 4180 in UTF-8 with a heading; absent is nothing at all, and an empty text is `""`."""

    def __init__(self, export: Export, file: IO[bytes]) -> None:
        """Write the heading."""
        self._columns = columns_of(export.table)
        self._file = file
        self._line([column.name for column in self._columns])

    def write(self, row: Values) -> None:
        """Write one line, or more where a text has line breaks."""
        self._line([csv_cell(column.kind, column.value(row)) for column in self._columns])

    def finish(self) -> None:
        """Do nothing: every line is written already."""

    def _line(self, cells: list[str]) -> None:
        self._file.write((",".join(cells) + "\r\n").encode())


def csv_cell(kind: str, value: Any) -> str:
    """Return a value as CSV has it."""
    if value is None:
        return ""  # and an empty text is "": the csv module can't tell them apart before Python 3.12
    if kind == TIME:
        return moment_us(value)
    if kind == BOOL:
        return "true" if value else "false"
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if isinstance(value, str) and _SPECIAL.search(text) else text
