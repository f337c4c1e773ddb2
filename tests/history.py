"""Rollups of earlier days, written as the sink would have written them: for what compares today with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from voicelog_sink.parts import EXCLUDED, FAILED, STAGE
from voicelog_sink.rollup import Dimensions, Name, Rollup, name_row, names_of
from voicelog_sink.rows import hour_of
from voicelog_sink.stores.base import Row, Store

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
MONDAY = 24 * (4 + 7 * 2944)
"""The hour, since the epoch, in which a Monday begins (2026-06-08)."""

WHO: Dimensions = ("front-desk", "openai", "gpt-4o", "")


def rollup(took_ms: Sequence[float], errors: int = 0, cost_usd: float | None = None) -> Rollup:
    """Return the rollup of stages that took so long, and of others that failed."""
    made = Rollup()
    flags = [0] * len(took_ms) + [EXCLUDED | FAILED] * errors
    made.add([*took_ms, *[1.0] * errors], flags, [cost_usd] * len(flags))
    return made


def latencies(random: Random, number: int, median_ms: float = 400.0) -> list[float]:
    """Return log-normal times."""
    return [median_ms * random.lognormvariate(0, 0.5) for _ in range(number)]


def hour_rows(
    hours: Iterable[int], made: Callable[[int], Rollup], source: str = "llm", kind: str = STAGE, who: Dimensions = WHO
) -> list[Row]:
    """Return a row an hour, of what `made` makes of it, and those that list the name."""
    return _rows("hour", HOUR_MS, hours, made, source, kind, who)


def minute_rows(
    minutes: Iterable[int], made: Callable[[int], Rollup], source: str = "llm", kind: str = STAGE, who: Dimensions = WHO
) -> list[Row]:
    """Return a row a minute, as `hour_rows` does."""
    return _rows("minute", MINUTE_MS, minutes, made, source, kind, who)


def day_rows(
    days: Iterable[int], made: Callable[[int], Rollup], source: str = "llm", kind: str = STAGE, who: Dimensions = WHO
) -> list[Row]:
    """Return a row a day, as `hour_rows` does."""
    return _rows("day", 24 * HOUR_MS, days, made, source, kind, who)


def write(store: Store, *rows: Sequence[Row]) -> None:
    """Write all of them."""
    assert store.write([row for some in rows for row in some]) == []


def _rows(
    tier: str,
    length_ms: int,
    numbers: Iterable[int],
    made: Callable[[int], Rollup],
    source: str,
    kind: str,
    who: Dimensions,
) -> list[Row]:
    name = names_of(source, kind)[0]
    rows = []
    for number in numbers:
        hour = hour_of(number * length_ms * 1000)
        rows.append(made(number).row(name, tier, hour, number * length_ms, who))
        rows.append(name_row(Name(name, kind, source, "ms"), hour))
    return rows
