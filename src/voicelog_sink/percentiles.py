"""Percentiles of measured values. Exact, by nearest rank: every answer is a value that was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable


def percentiles(values: Iterable[float], points: tuple[float, ...]) -> tuple[float | None, ...]:
    """Return for each point (0 to 100) the smallest value that so many percent do not exceed; None without values."""
    ordered = sorted(values)
    if not ordered:
        return tuple(None for _ in points)
    return tuple(ordered[max(math.ceil(point * len(ordered) / 100), 1) - 1] for point in points)
