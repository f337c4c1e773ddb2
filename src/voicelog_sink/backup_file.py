"""A backup's one file: which rows go into it, and writing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO

import attrs

from voicelog_sink.backup_parquet import writer
from voicelog_sink.backup_plan import Plan
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.stores.lifetime import born_column
from voicelog_sink.tables import TIME, Table

FILE_ROWS = 100_000
FILE_BYTES = 64 * 1024 * 1024
SLICE_ROWS = 10_000
"""A file ends at the next partition after so much of it; about so many rows are asked for at once."""
FIRST_PARTITIONS = 8
MOST_PARTITIONS = 256
"""Partitions that are asked for at once, when it is not known yet how large they are and at most."""


class Reading:
    """The rows of a table for one file; `at` is the partition after those that were read.

    `size_bytes` is asked how large the file is already.
    """

    def __init__(
        self, store: Store, table: Table, plan: Plan, first: int, period: tuple[int | None, int | None]
    ) -> None:
        """Begin with the plan's partition `first`; reads nothing yet."""
        self._store = store
        self._table = table
        self._partitions = plan.partitions(first)
        self._since_ms, self._until_ms = period
        self._born = born_column(table)
        self.at = first
        self.size_bytes: Callable[[], int] = lambda: 0

    def rows(self) -> Iterator[Values]:
        """Yield rows until the file is full and a partition ends, or there are none left."""
        at_once, total = FIRST_PARTITIONS, 0
        while some := list(islice(self._partitions, at_once)):
            before = total
            for row in self._select(some):
                total += 1
                yield row
            self.at += len(some)
            if total >= FILE_ROWS or self.size_bytes() >= FILE_BYTES:
                return
            at_once = max(1, min(MOST_PARTITIONS, SLICE_ROWS * at_once // max(total - before, 1)))

    def _select(self, partitions: list[Values]) -> Iterator[Values]:
        clustering = self._table.clustering
        if clustering and self._table.columns[clustering[0]] == TIME:
            name, since_ms, until_ms = self._table.name, self._since_ms, self._until_ms
            return self._store.select(name, partitions, since_ms=since_ms, until_ms=until_ms)
        return filter(self._is_of_period, self._store.select(self._table.name, partitions))

    def _is_of_period(self, row: Values) -> bool:
        at_ms = row[self._born]
        if at_ms is None:
            return True
        return (self._since_ms is None or at_ms >= self._since_ms) and (
            self._until_ms is None or at_ms < self._until_ms
        )


@attrs.define
class Written:
    """How many rows a file has, and the earliest and latest of their times, epoch milliseconds."""

    rows: int = 0
    first: int | None = None
    last: int | None = None


def write_rows(table: Table, file: IO[bytes], rows: Iterator[Values]) -> Written:
    """Write every row into an open file, some at a time. Raises OSError, StoreError and ParquetMissing as they come."""
    born, written, made = born_column(table), Written(), writer(table, file)
    first, last = None, None
    try:
        for row in rows:
            made.write(row)
            written.rows += 1
            at_ms = row[born]
            if at_ms is not None:
                first = at_ms if first is None or at_ms < first else first
                last = at_ms if last is None or at_ms > last else last
        made.finish()
    except BaseException:
        made.abandon()
        raise
    written.first, written.last = first, last
    return written
