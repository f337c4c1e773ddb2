"""What each hour had, by group: how many, percentiles with their limits, error rate, cost. Read from hour rollups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from voicelog_sink.errors import SinkError
from voicelog_sink.rolled import Key
from voicelog_sink.rollup import COST_UNITS, PackedRollup, period_of, unpack
from voicelog_sink.rows import hour_of
from voicelog_sink.sketch import RELATIVE_ERROR, Sketch, quantiles_of
from voicelog_sink.stores.base import Store
from voicelog_sink.tables import METRIC_ROLLUPS
from voicelog_sink.tiers import HOUR_MS

POINTS = {"p50": 0.5, "p95": 0.95}
ERROR_RATE, COST, COUNT = "error_rate", "cost_usd", "count"
MEASURES = (*POINTS, ERROR_RATE, COST, COUNT)

CERTAIN = 3.2905
"""The normal deviate of 99.9 %: limits that are found by it hold the true value 998 times of 1,000 or more."""


class Measured(NamedTuple):
    """A measure of one group and hour: between which limits the true value is, and of how many values it is made.

    The limits are of chance alone: what would come of more values of the same kind. A cost has none, and a count needs
    none: theirs are the value.
    """

    value: float
    low: float
    high: float
    number: int


Hour = dict[str, Measured]
"""A group's measures of one hour, by their names; what was not measured is not there."""


class Hourly:
    """The hours of a name in metric_rollups by group, read once, when they are needed. Used by one thread.

    Hours are numbered from the epoch on. Holds about 1 kB an hour and group.
    """

    def __init__(self, store: Store, name: str, dimensions: Sequence[str], limits_from: int = 0) -> None:
        """Read nothing yet. Hours before `limits_from` get no limits, which take longer than the rest."""
        self._store = store
        self.name = name
        self.dimensions = tuple(dimensions)
        self._limits_from = limits_from
        self._read: set[int] = set()
        self._hours: dict[Key, dict[int, Hour]] = {}

    @property
    def keys(self) -> list[Key]:
        """The groups that any of the hours has, in order."""
        return sorted(self._hours)

    def get(self, key: Key, hour: int, measure: str) -> Measured | None:
        """Return a measure; None where there is none, or the hour was not needed yet."""
        return self._hours[key].get(hour, {}).get(measure) if key in self._hours else None

    def need(self, hours: Iterable[int]) -> None:
        """Have these hours read; blocks for a query a day. Raises StoreError, and SinkError for what can't be read."""
        wanted = sorted(set(hours) - self._read)
        for first, last in _spans(wanted):
            self._read_span(first, last)
        self._read.update(wanted)

    def _read_span(self, first: int, last: int) -> None:
        partition = {"name": self.name, "tier": "hour", "period": period_of("hour", hour_of(first * HOUR_MS * 1000))}
        since_ms, until_ms = first * HOUR_MS, (last + 1) * HOUR_MS
        found: defaultdict[tuple[Key, int], list[PackedRollup]] = defaultdict(list)
        for row in self._store.select(METRIC_ROLLUPS.name, [partition], since_ms=since_ms, until_ms=until_ms):
            key = tuple(row[name] for name in self.dimensions)
            found[key, row["start"] // HOUR_MS].append(unpacked(row["sketch"], f"{self.name}, by hour"))
        for (key, hour), rows in found.items():
            self._hours.setdefault(key, {})[hour] = measured(rows, limits=hour >= self._limits_from)


def unpacked(blob: bytes, what: str) -> PackedRollup:
    """Return a rollup from how it is stored; raises SinkError, with `what` it is, where this version can't read it."""
    try:
        return unpack(blob)
    except ValueError as exc:
        message = f"{what}: {exc}"
        raise SinkError(message) from exc


def measured(rows: Sequence[PackedRollup], limits: bool = True) -> Hour:
    """Return the measures of some rollups together; without `limits` those are the values. Pure."""
    if len(rows) == 1:
        values = rows[0].values
        number = values.zeros + sum(values.counts) + sum(values.negative_counts)
        return _percentiles(number, partial(quantiles_of, values), limits) | _rates(rows, limits)
    sketch = Sketch()
    for row in rows:
        sketch.merge(row.values)
    return _percentiles(sketch.count, sketch.quantiles, limits) | _rates(rows, limits)


def _rates(rows: Sequence[PackedRollup], limits: bool) -> Hour:
    count = sum(row.count for row in rows)
    if count <= 0:
        return {}
    errors = sum(row.errors for row in rows)
    share = errors / count
    found = {
        ERROR_RATE: Measured(share, *(wilson(errors, count) if limits else (share, share)), count),
        COUNT: Measured(count, count, count, count),
    }
    costs = [row.usd * COST_UNITS + row.usd_rest for row in rows if row.usd is not None]
    if costs:
        mean = sum(costs) / COST_UNITS / count
        found[COST] = Measured(mean, mean, mean, count)
    return found


def wilson(part: int, count: int) -> tuple[float, float]:
    """Return the limits of the share `part` of `count`: Wilson's score interval, as interval.py has it by scipy."""
    share, square = part / count, CERTAIN**2
    middle = share + square / (2 * count)
    apart = CERTAIN * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    low, high = ((middle + sign * apart) / (1 + square / count) for sign in (-1, 1))
    return (0.0 if part == 0 else low), (1.0 if part == count else high)


def limit_ranks(point: float, count: int) -> tuple[int, int]:
    """Return the ranks, from 1 on, of the values that bound the quantile; outside 1 to `count` there is no bound.

    By the normal approximation of how many values are below it, each a rank further out than that says.
    """
    apart = CERTAIN * math.sqrt(count * point * (1 - point))
    return math.floor(count * point - apart), math.ceil(count * point + apart) + 1


def _percentiles(count: int, quantiles: Callable[[Iterable[float]], Sequence[float]], limits: bool) -> Hour:
    if not count:
        return {}
    if not limits:
        return {
            n: Measured(value, value, value, count) for n, value in zip(POINTS, quantiles(POINTS.values()), strict=True)
        }
    ranks = [rank for point in POINTS.values() for rank in (math.ceil(point * count), *limit_ranks(point, count))]
    found = iter(quantiles([(rank - 0.5) / count for rank in ranks]))
    return {name: _bounded(count, found, limit_ranks(point, count)) for name, point in POINTS.items()}


def _bounded(count: int, found: Iterator[float], ranks: tuple[int, int]) -> Measured:
    """Return the next value with its limits, which are as much wider as the sketch's own error may be."""
    value, low, high = next(found), next(found), next(found)
    return Measured(
        value,
        low - abs(low) * RELATIVE_ERROR if ranks[0] >= 1 else -math.inf,
        high + abs(high) * RELATIVE_ERROR if ranks[1] <= count else math.inf,
        count,
    )


def _spans(hours: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of hours in a row, none of them over midnight."""
    numbered = enumerate(hours)
    for _, group in groupby(numbered, key=lambda pair: (pair[1] - pair[0], pair[1] // 24)):
        span = [hour for _, hour in group]
        yield span[0], span[-1]
