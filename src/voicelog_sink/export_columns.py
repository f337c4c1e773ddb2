"""The columns of a CSV or Parquet export: a stored table's, typed, without those that only place a row. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import attrs

from voicelog_sink.stores.base import Values
from voicelog_sink.tables import TIME, Table

PLACES = frozenset({"ts_us", "stage_hour", "hour", "day", "shard"})
"""Columns that are left out: `ts` has the microseconds itself, the others follow from it or from the key."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen
class Column:
    """One column, read from the stored column `source`; `kind` is one of tables.py's types."""

    name: str
    kind: str
    source: str


def columns_of(table: Table) -> tuple[Column, ...]:
    """Return the columns of a table's export."""
    precise = {"ts": "ts_us"} if "ts_us" in table.columns else {}
    kept = [(name, kind) for name, kind in table.columns.items() if name not in PLACES]
    return tuple(Column(name, kind, precise.get(name, name)) for name, kind in kept)


def reader(columns: Sequence[Column]) -> Callable[[Values], Sequence[Any]]:
    """Return what takes the columns' values out of a row of the store: a TIME's are epoch microseconds."""
    read = itemgetter(*(column.source for column in columns))
    times = [place for place, column in enumerate(columns) if column.kind == TIME and column.source != "ts_us"]

    def read_times(row: Values) -> Sequence[Any]:
        values = list(read(row))
        for place in times:
            values[place] = None if values[place] is None else values[place] * 1000
        return values

    return read_times if times else read


def moment_us(at_us: int) -> str:
    """Return epoch microseconds as an ISO 8601 text in UTC."""
    text = (EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")
