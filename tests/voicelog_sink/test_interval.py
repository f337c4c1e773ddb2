"""Confidence intervals: what they cover, how few values they need, and known examples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import exp, log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicelog_sink.errors import SinkError
from voicelog_sink.interval import Estimate, difference, least_count, quantile_estimate, share_estimate
from voicelog_sink.sketch import Sketch

RUNS = 400
NORMAL_95 = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    sketch.add(values)
    return sketch


def covered(true: float, estimate: Callable[[], Estimate]) -> float:
    """Return in which share of the runs the interval holds the true value."""
    found = [estimate() for _ in range(RUNS)]
    assert all(one.low <= one.value <= one.high for one in found)
    return sum(one.low <= true <= one.high for one in found) / RUNS


@pytest.mark.parametrize(
    ("point", "count_a", "count_b", "least", "most"),
    [(0.5, 40, 400, 0.935, 0.99), (0.5, 400, 400, 0.935, 0.995), (0.95, 80, 300, 0.935, 0.995),
     (0.95, 600, 600, 0.935, 0.99)],
)  # fmt: skip
def test_interval_of_a_difference_of_percentiles_covers_the_truth_about_95_times_of_100(
    point: float, count_a: int, count_b: int, least: float, most: float
) -> None:
    """Log-normal latencies; the true percentiles are known. More often with many values, by the sketch's own 1 %."""
    random = Random(7)
    z = 0.0 if point == 0.5 else NORMAL_95
    true = exp(6.1 + 0.9 * z) - exp(6 + 0.6 * z)

    def estimate() -> Estimate:
        a = sketch_of([random.lognormvariate(6, 0.6) for _ in range(count_a)])
        b = sketch_of([random.lognormvariate(6.1, 0.9) for _ in range(count_b)])
        return difference(known(quantile_estimate(a, point)), known(quantile_estimate(b, point)))

    assert least <= covered(true, estimate) <= most


def known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


@pytest.mark.parametrize(("share_a", "share_b"), [(0.02, 0.05), (0.3, 0.3)])
def test_interval_of_a_difference_of_shares_covers_the_truth_about_95_times_of_100(
    share_a: float, share_b: float
) -> None:
    random = Random(7)

    def estimate() -> Estimate:
        parts = (sum(random.random() < share for _ in range(200)) for share in (share_a, share_b))
        a, b = (share_estimate(part, 200) for part in parts)
        return difference(a, b)

    assert 0.93 <= covered(share_b - share_a, estimate) <= 0.985


def test_difference_of_shares_is_as_newcombe_published_it() -> None:
    """Newcombe 1998, table II, contrast a, method 10: 56/70 - 48/80 is 0.2, from 0.0524 to 0.3339."""
    found = difference(share_estimate(48, 80), share_estimate(56, 70))
    assert (found.value, round(found.low, 4), round(found.high, 4)) == (pytest.approx(0.2), 0.0524, 0.3339)


def test_interval_of_a_median_has_the_ranks_of_the_binomial_distribution() -> None:
    """Of 100 values those of ranks 40 and 61 (Hahn and Meeker, table A.15), and the sketch's 1 % beyond."""
    found = known(quantile_estimate(sketch_of([float(value) for value in range(1, 101)]), 0.5))
    assert (found.low, found.value, found.high) == pytest.approx((40 * 0.99, 50, 61 * 1.01), rel=0.0101)


@pytest.mark.parametrize(("point", "least"), [(0.5, 6), (0.95, 72), (0.05, 72), (0.99, 368)])
def test_too_few_values_have_no_interval(point: float, least: int) -> None:
    assert least_count(point) == least
    values = [100.0 + number for number in range(least)]
    found = known(quantile_estimate(sketch_of(values), point))
    assert found.low <= found.value <= found.high
    assert quantile_estimate(sketch_of(values[1:]), point) is None
    assert quantile_estimate(Sketch(), point) is None


@given(st.lists(st.floats(-1e9, 1e9), min_size=72, max_size=200), st.sampled_from((0.5, 0.95)))
@settings(max_examples=30)
def test_interval_holds_its_value_whatever_the_values_are(values: list[float], point: float) -> None:
    found = known(quantile_estimate(sketch_of(values), point))
    assert found.low <= found.value <= found.high
    wide = known(quantile_estimate(sketch_of(values), point, confidence=0.9))
    assert found.low <= wide.low <= wide.high <= found.high


def test_differences_that_the_sketch_can_not_tell_apart_are_never_clear() -> None:
    """However many values there are: 1000 and 1010 ms may be the same value's bin."""
    a, b = (known(quantile_estimate(sketch_of([value] * 100_000), 0.5)) for value in (1000.0, 1010.0))
    assert difference(a, b).low < 0 < difference(a, b).high


@given(st.integers(1, 300), st.data())
def test_share_s_interval_is_within_0_and_1_and_turns_round_with_it(count: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, count))
    one, other = share_estimate(part, count), share_estimate(count - part, count)
    assert -1e-12 <= one.low <= one.value + 1e-12
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-9)


def test_without_scipy_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(SinkError, match=r"compare needs scipy, .* pip install 'voicelog\[sink,analysis\]'$"):
        share_estimate(1, 2)


def test_least_count_is_where_the_largest_value_bounds_the_percentile() -> None:
    assert least_count(0.95) - 1 < log(0.025) / log(0.95) < least_count(0.95)
