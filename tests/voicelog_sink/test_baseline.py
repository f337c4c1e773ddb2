"""What is usual for an hour: the rules that hold for any values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.history import MONDAY

from voicelog_sink.baseline import (
    DAYS,
    LEAST_DAYS,
    MOST_Z,
    RELATIVE_SPREAD,
    Baseline,
    alike,
    baseline,
    hours_of,
    is_weekend,
)

HOUR = MONDAY + 28 * 24 + 15
values_ms = st.floats(1, 1e5)
days = st.lists(st.tuples(values_ms, values_ms, values_ms), min_size=DAYS, max_size=DAYS)


def at(found: Sequence[Sequence[float]]) -> Callable[[int], float | None]:
    """Return what gives each of the latest days' three hours its value."""
    known = dict(zip(hours_of(HOUR, len(found)), [value for day in found for value in day], strict=True))
    return known.get


def test_median_is_of_that_hour_on_weekdays_before_a_weekday() -> None:
    weekend = [is_weekend(HOUR - 24 * day) for day in range(1, DAYS + 1)]
    found = baseline(HOUR, at([(0, 9000.0 if off else 400.0, 0) for off in weekend]))
    assert found is not None
    assert (found.median, found.days) == (400.0, 10)


def test_weekend_with_too_few_weekends_before_it_is_compared_with_all_days() -> None:
    saturday = HOUR + 5 * 24
    assert is_weekend(saturday)
    assert alike(saturday, range(1, 15)) == list(range(1, 15))
    assert alike(saturday, range(1, 29)) == [6, 7, 13, 14, 20, 21, 27, 28]


def test_seven_days_of_the_same_part_of_the_week_are_enough() -> None:
    assert alike(HOUR, range(1, 12)) == [3, 4, 5, 6, 7, 10, 11]
    assert alike(HOUR, range(1, 11)) == list(range(1, 11))


def test_spread_is_also_of_the_hours_beside() -> None:
    steady = [(400.0, 400.0, 400.0)] * DAYS
    restless = [(400.0 + 40 * (-1) ** day, 400.0, 300.0 + 40 * (-1) ** day) for day in range(DAYS)]
    less, more = baseline(HOUR, at(steady)), baseline(HOUR, at(restless))
    assert less is not None
    assert more is not None
    assert less.spread == pytest.approx(0.02 * 400 * math.sqrt(1 + math.pi / 20))
    assert more.spread == pytest.approx(1.4826 * 10 / 9.2 * 40 * math.sqrt(1 + math.pi / 20))


@pytest.mark.parametrize(("known", "usual"), [(0, False), (LEAST_DAYS - 1, False), (LEAST_DAYS, True)])
def test_fewer_days_make_no_baseline(known: int, usual: bool) -> None:
    found = baseline(HOUR, lambda hour: 400.0 if (HOUR - hour) // 24 <= known else None)
    assert (found is not None) == usual


def test_least_spread_is_kept_where_nothing_varies() -> None:
    found = baseline(HOUR, lambda _: 0.0, least_spread=0.5)
    assert found is not None
    assert (found.median, found.z(2 * found.spread)) == (0.0, 2.0)


def test_without_any_spread_z_is_at_its_limit() -> None:
    usual = Baseline(0.0, 0.0, 7)
    assert [usual.z(value) for value in (0.0, 3.0, -3.0)] == [0.0, MOST_Z, -MOST_Z]


@given(days, st.floats(1, 1e5), st.sampled_from([0.001, 0.5, 3.0, 1000.0]))
def test_other_unit_makes_the_same_z(found: list[tuple[float, float, float]], value: float, factor: float) -> None:
    once = baseline(HOUR, at(found))
    again = baseline(HOUR, at([[each * factor for each in day] for day in found]))
    assert once is not None
    assert again is not None
    assert again.z(value * factor) == pytest.approx(once.z(value), rel=1e-6, abs=1e-6)


@given(days, st.randoms())
def test_order_of_the_days_does_not_matter(found: list[tuple[float, float, float]], random: Random) -> None:
    weekdays = [day for day in range(1, DAYS + 1) if not is_weekend(HOUR - 24 * day)]
    shuffled = random.sample(weekdays, len(weekdays))
    moved = [found[shuffled[weekdays.index(day)] - 1] if day in weekdays else found[day - 1] for day in range(1, 15)]
    assert baseline(HOUR, at(moved)) == baseline(HOUR, at(found))


@given(days)
def test_one_bad_day_moves_no_baseline_out_of_the_others(found: list[tuple[float, float, float]]) -> None:
    usual = baseline(HOUR, at([(1e9, 1e9, 1e9), *found[1:]]))
    weekdays = [found[day - 1][1] for day in range(2, DAYS + 1) if not is_weekend(HOUR - 24 * day)]
    assert usual is not None
    assert min(weekdays) <= usual.median <= max(weekdays)


@given(days)
def test_spread_is_never_less_than_two_sketches_can_differ(found: list[tuple[float, float, float]]) -> None:
    usual = baseline(HOUR, at(found))
    assert usual is not None
    assert usual.spread > RELATIVE_SPREAD * usual.median
