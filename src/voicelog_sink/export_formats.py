"""The formats of an export that are made of lines: JSON Lines and CSV. Parquet is in export_parquet.py."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO, Any

from voicelog_sink.export import Export
from voicelog_sink.export_columns import columns_of, moment_us, reader
from voicelog_sink.stores.base import Values
from voicelog_sink.tables import BOOL, INT, REAL, SMALL, TEXT, TIME

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
        columns = columns_of(export.table)
        self._read = reader(columns)
        self._texts = [CSV_TEXTS[column.kind] for column in columns]
        self._file = file
        self._line([column.name for column in columns])

    def write(self, row: Values) -> None:
        """Write one line, or more where a text has line breaks."""
        values = zip(self._texts, self._read(row), strict=True)
        self._line(["" if value is None else text(value) for text, value in values])

    def finish(self) -> None:
        """Do nothing: every line is written already."""

    def _line(self, cells: list[str]) -> None:
        self._file.write((",".join(cells) + "\r\n").encode())


def _quoted(text: str) -> str:
    """Return a text as CSV has it, an empty one in quotes: the csv module can't write those before Python 3.12."""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


CSV_TEXTS: dict[str, Callable[[Any], str]] = {
    TEXT: _quoted,
    INT: str,
    SMALL: str,
    REAL: repr,
    BOOL: {True: "true", False: "false"}.__getitem__,
    TIME: moment_us,
}
"""How CSV writes a value of each type."""
