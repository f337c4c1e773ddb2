"""How long a row is kept: the arithmetic that both stores share. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from voicelog_sink.tables import TIME, Life, Table

DAY_MS = 24 * 3600 * 1000


def wall_ms() -> int:
    """Return the wall clock, epoch milliseconds: what a row's `ts` is compared with."""
    return time.time_ns() // 1_000_000


def lifetime_ms(table: Table, ttl_days: int) -> int | None:
    """Return how long the table's rows are kept, counted from their `born_column`; None for ever."""
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
