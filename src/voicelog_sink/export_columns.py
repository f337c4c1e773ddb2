"""The columns of a CSV or Parquet export: a stored table's, typed, without those that only place a row. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from voicelog_sink.stores.base import Values
from voicelog_sink.tables import TIME, Table

PLACES = frozenset({"ts_us", "stage_hour", "hour", "day", "shard"})
"""Columns that are left out: `ts` has the microseconds itself, the others follow from it or from the key."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen
class Column:
    """One column; `kind` is one of tables.py's types. A TIME's values are epoch microseconds."""

    name: str
    kind: str
    precise: bool = False

    def value(self, row: Values) -> Any:
        """Return the column's value in a row of the store, None where it is absent."""
        if self.precise:
            return row["ts_us"]
        value = row[self.name]
        return value * 1000 if self.kind == TIME and value is not None else value


def columns_of(table: Table) -> tuple[Column, ...]:
    """Return the columns of a table's export."""
    precise = "ts_us" in table.columns
    return tuple(
        Column(name, kind, precise and name == "ts") for name, kind in table.columns.items() if name not in PLACES
    )


def moment_us(at_us: int) -> str:
    """Return epoch microseconds as an ISO 8601 text in UTC."""
    text = (EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")
