"""What is usual for an hour: median and spread of the same hour on earlier days. Pure.

docs/explanation/anomalies.md says why it is so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

import attrs

DAYS = 14
LEAST_DAYS = 7
"""A baseline needs so many days: fewer say little of how far days are apart."""

THRESHOLD = 5.0
FULL_SPREAD = 1.4826
"""Of a normal distribution, the standard deviation is so many times the median deviation from the median."""

RELATIVE_SPREAD = 0.02
"""A spread is at least so much of the median: closer values are within the error of two percentiles of sketches."""

MOST_Z = 1_000.0

ValueAt = Callable[[int], float | None]
"""An hour's value, by the hour's number since the epoch; None where it has none that counts."""


@attrs.frozen
class Baseline:
    """What is usual: the median of `days` days, and the spread about it, in the measure's unit."""

    median: float
    spread: float
    days: int

    def z(self, value: float) -> float:
        """Return how many spreads a value is above the median; MOST_Z at most, either way."""
        apart = value - self.median
        if not self.spread:
            return math.copysign(MOST_Z, apart) if apart else 0.0
        return max(-MOST_Z, min(MOST_Z, apart / self.spread))


def hours_of(hour: int, days: int = DAYS) -> list[int]:
    """Return the hours that the baseline of an hour is made from."""
    return [hour - 24 * day + beside for day in range(1, days + 1) for beside in (-1, 0, 1)]


def baseline(hour: int, value_at: ValueAt, days: int = DAYS, least_spread: float = 0.0) -> Baseline | None:
    """Return what is usual for an hour; None where fewer than LEAST_DAYS of the days before it have a value.

    Days of the same part of the week (Monday to Friday, or the weekend) alone count, where there are enough.
    """
    known = [day for day in range(1, days + 1) if value_at(hour - 24 * day) is not None]
    chosen = alike(hour, known)
    if len(chosen) < LEAST_DAYS:
        return None
    at = _values(hour, chosen, value_at)
    beside = [_values(hour + step, chosen, value_at) for step in (-1, 1)]
    middle = median(at)
    spread = max(_spread([at, *beside]), RELATIVE_SPREAD * abs(middle), least_spread)
    return Baseline(middle, spread * math.sqrt(1 + math.pi / (2 * len(at))), len(at))


def alike(hour: int, days: Sequence[int]) -> list[int]:
    """Return of these days before the hour's those of the same part of the week, or all where they are too few."""
    same = [day for day in days if is_weekend(hour - 24 * day) == is_weekend(hour)]
    return same if len(same) >= LEAST_DAYS else list(days)


def is_weekend(hour: int) -> bool:
    """Say whether an hour is of a Saturday or Sunday, UTC."""
    return (hour // 24 + 3) % 7 >= 5  # the epoch began on a Thursday


def _values(hour: int, days: Sequence[int], value_at: ValueAt) -> list[float]:
    return [value for day in days if (value := value_at(hour - 24 * day)) is not None]


def _spread(hours: Sequence[Sequence[float]]) -> float:
    """Return the spread of hours about their own medians, together: one hour's few days would make it a lottery."""
    known = [values for values in hours if len(values) >= LEAST_DAYS]
    apart = [abs(value - middle) for values in known for middle in [median(values)] for value in values]
    days = len(hours[0])
    return FULL_SPREAD * days / (days - 0.8) * median(apart)
