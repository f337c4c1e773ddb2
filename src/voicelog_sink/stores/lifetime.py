"""How long a row is kept, and the texts in it: the arithmetic that both stores share. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import attrs

from voicelog_sink.tables import TABLES, TIME, Life, Table

DAY_MS = 24 * 3600 * 1000


def wall_ms() -> int:
    """Return the wall clock, epoch milliseconds: what a row's `ts` is compared with."""
    return time.time_ns() // 1_000_000


def lifetime_ms(table: Table, ttl_days: int) -> int | None:
    """Return how long the table's rows are kept by default, counted from their `born_column`; None for ever."""
    days = ttl_days if table.life is Life.APPENDED else table.lifetime_days
    return None if days is None else days * DAY_MS


def born_column(table: Table) -> str:
    """Return the column that a row's lifetime counts from: the table's first timestamp."""
    return next(name for name, kind in table.columns.items() if kind == TIME)


def left_ms(values: Mapping[str, Any], born: str, lifetime: int, now_ms: int) -> int:
    """Return how long a row is still to be kept; 0 or less when its time is over.

    A row from the future, or without a time, counts from now: a wrong clock must not make a row that never expires,
    or one whose expiry lies beyond what the database can represent.
    """
    at_ms = values.get(born)
    if not isinstance(at_ms, int) or at_ms > now_ms:
        return lifetime
    return at_ms + lifetime - now_ms


def is_over(values: Mapping[str, Any], born: str, lifetime: int, now_ms: int) -> bool:
    """Say whether a row's time is over: whether `left_ms` is 0 or less."""
    at_ms = values.get(born)
    return isinstance(at_ms, int) and at_ms + lifetime <= now_ms


@attrs.frozen
class Lifetimes:
    """How long each table's rows are kept, milliseconds from their `born_column`; a table that is not named, for ever.

    `texts_ms` has the tables whose columns of text go before their row does.
    """

    rows_ms: Mapping[str, int]
    texts_ms: Mapping[str, int] = attrs.Factory(dict)

    @classmethod
    def by_default(cls, ttl_days: int) -> Lifetimes:
        """Return what holds while no rule says otherwise."""
        found = {name: lifetime_ms(table, ttl_days) for name, table in TABLES.items()}
        return cls({name: ms for name, ms in found.items() if ms is not None})

    @property
    def events_ms(self) -> int:
        """For how long anything is kept of an event: the longest of the tables that are appended to."""
        return max(ms for name, ms in self.rows_ms.items() if TABLES[name].life is Life.APPENDED)

    @property
    def is_uneven(self) -> bool:
        """Whether of one event's rows some are kept for longer than others."""
        return len({ms for name, ms in self.rows_ms.items() if TABLES[name].life is Life.APPENDED}) > 1

    def is_row_over(self, table: str, values: Mapping[str, Any], now_ms: int) -> bool:
        """Say whether the row's time is over."""
        lifetime = self.rows_ms.get(table)
        return lifetime is not None and is_over(values, born_column(TABLES[table]), lifetime, now_ms)

    def is_text_over(self, table: str, values: Mapping[str, Any], now_ms: int) -> bool:
        """Say whether the time of the row's texts is over, where it ends before the row's own."""
        lifetime = self.texts_ms.get(table)
        return lifetime is not None and is_over(values, born_column(TABLES[table]), lifetime, now_ms)

    def without_old_texts(self, table: str, values: dict[str, Any], now_ms: int) -> dict[str, Any]:
        """Return what may be stored of a row: itself, or without its texts where their time is over."""
        if not self.is_text_over(table, values, now_ms):
            return values
        texts = TABLES[table].texts
        return {name: value for name, value in values.items() if name not in texts}
