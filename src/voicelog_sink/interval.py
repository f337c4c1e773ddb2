"""Confidence intervals of percentiles, of shares, and of how far two are apart. The only file that imports scipy.

- A percentile: two order statistics, by the binomial distribution of how many values are below it. No assumption about
  the distribution of the values (Hahn and Meeker, Statistical Intervals, 1991, section 5.2; David and Nagaraja, Order
  Statistics, 2003, section 7.1).
- A share, such as failed stages of all: Wilson's score interval (Wilson, JASA 22, 1927).
- A difference of either: by squaring and adding the two distances to the limits. For shares that is method 10 of
  Newcombe, Statistics in Medicine 17 (1998), 873-890; for any other figure "MOVER", Zou and Donner, Statistics in
  Medicine 27 (2008), 1693-1702.

All assume that the values are independent. Everything is computed, nothing is drawn: the same figures have the same
interval.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import attrs

from voicelog_sink.errors import SinkError
from voicelog_sink.sketch import RELATIVE_ERROR, Sketch

CONFIDENCE = 0.95


@attrs.frozen
class Estimate:
    """A value, and between which limits the true one is."""

    value: float
    low: float
    high: float


def quantile_estimate(sketch: Sketch, point: float, confidence: float = CONFIDENCE) -> Estimate | None:
    """Return a quantile (`point` is 0 to 1) with its interval; None where there are too few values for it.

    The limits are as much wider as the sketch's own error may be. Raises SinkError without scipy.
    """
    count = sketch.count
    if count < least_count(point, confidence):
        return None
    low, high = _ranks(count, point, confidence)
    value, least, most = sketch.quantiles([point, (low - 0.5) / count, (high - 0.5) / count])
    return Estimate(value, least - abs(least) * RELATIVE_ERROR, most + abs(most) * RELATIVE_ERROR)


def least_count(point: float, confidence: float = CONFIDENCE) -> int:
    """Return how many values an interval of that quantile needs: with fewer, none of them bounds it on both sides."""
    further = max(point, 1 - point)
    return math.floor(math.log((1 - confidence) / 2) / math.log(further)) + 1


def share_estimate(part: int, count: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return `part` of `count` (at least 1) as a number from 0 to 1 with its interval. Raises SinkError."""
    limits = _scipy_stats().binomtest(part, count).proportion_ci(confidence, method="wilson")
    return Estimate(part / count, float(limits.low), float(limits.high))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """Return how much more `b` is than `a`, with an interval of the confidence that theirs have."""
    apart = b.value - a.value
    low = apart - math.hypot(b.value - b.low, a.high - a.value)
    return Estimate(apart, low, apart + math.hypot(b.high - b.value, a.value - a.low))


@lru_cache(maxsize=256)
def _ranks(count: int, point: float, confidence: float) -> tuple[int, int]:
    """Return the ranks, from 1 on, of the values that bound the quantile."""
    binom, outside = _scipy_stats().binom, (1 - confidence) / 2
    return max(int(binom.ppf(outside, count, point)), 1), min(int(binom.ppf(1 - outside, count, point)) + 1, count)


def _scipy_stats() -> Any:
    """Return scipy.stats; the first call takes about a second."""
    try:
        from scipy import stats
    except ImportError as exc:
        message = "compare needs scipy, which is not installed: pip install 'voicelog[sink,analysis]'"
        raise SinkError(message) from exc
    return stats
