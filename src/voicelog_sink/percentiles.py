"""Percentiles of measured values. Exact, by nearest rank: every answer is a value that was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable


def percentiles(values: Iterable[float], points: tuple[float, ...]) -> tuple[float, ...]:
    """Return for each point (0 to 100) the smallest value that so many percent do not exceed; () without values."""
    ordered = sorted(values)
    if not ordered:
        return ()
    return tuple(ordered[max(math.ceil(point * len(ordered) / 100), 1) - 1] for point in points)
