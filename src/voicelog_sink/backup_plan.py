"""The order in which a backup reads a table's partitions, written down, so that one that was cut short can go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from voicelog_sink.export_file import whole_file
from voicelog_sink.parts import MINUTE_US, minute_text
from voicelog_sink.rows import day_of, hour_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.tables import Table

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Any]).decode

PERIODS: dict[str, Callable[[int], str]] = {
    "hour": hour_of,
    "day": day_of,
    "minute": lambda ts_us: minute_text(ts_us // MINUTE_US),
}
"""Columns of partition keys that say when their rows were: the text for a moment, epoch microseconds."""


class Plan:
    """The partitions of a table, in a file: a line each."""

    def __init__(self, folder: Path, table: Table) -> None:
        """Name the file, which need not be there."""
        self.name = f"{table.name}.plan"
        self._path = folder / self.name
        self._table = table
        self._count: int | None = None

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return self._path.exists()

    def make(self, store: Store, since_ms: int | None, until_ms: int | None) -> None:
        """Write down the partitions that may have rows of the time, unless that is done already.

        Blocks while the whole table's keys are read. Raises StoreError as the store does, and Unwritable.
        """
        if self.exists:
            return
        wanted = _wanted(self._table, since_ms, until_ms)
        with whole_file(str(self._path)) as file:
            for partition in store.partitions(self._table.name):
                if wanted(partition):
                    file.write(_encode([partition[name] for name in self._table.partition_key]) + b"\n")

    def __len__(self) -> int:
        if self._count is None:
            with self._path.open("rb") as file:
                self._count = sum(1 for _ in file)
        return self._count

    def partitions(self, first: int) -> Iterator[Values]:
        """Yield the partitions from number `first` on."""
        with self._path.open("rb") as file:
            for line in islice(file, first, None):
                yield dict(zip(self._table.partition_key, _decode(line), strict=True))

    def remove(self) -> None:
        """Delete the file, if it is there."""
        self._path.unlink(missing_ok=True)


def _wanted(table: Table, since_ms: int | None, until_ms: int | None) -> Callable[[Values], bool]:
    """Return what says of a partition whether it may have rows of the time."""
    column = next((name for name in table.partition_key if name in PERIODS), None)
    if column is None:
        return lambda _: True
    text_of = PERIODS[column]
    first = text_of(since_ms * 1000) if since_ms is not None else ""
    last = text_of(until_ms * 1000 - 1) if until_ms is not None else None
    return lambda partition: first <= partition[column] and (last is None or partition[column] <= last)
