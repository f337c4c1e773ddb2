"""Whether an hour departs: each condition alone, and how often healthy traffic is taken for ill."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tests.history import MONDAY

from voicelog_sink.baseline import DAYS, hours_of
from voicelog_sink.departure import (
    DEPARTS,
    LEAST_VALUES,
    NO_BASELINE,
    TOO_FEW,
    USUAL,
    Rules,
    Verdict,
    judge,
    judge_missing,
    lasts,
)
from voicelog_sink.hourly import Measured, limit_ranks, wilson
from voicelog_sink.measures import COUNTS, ERRORS, TIMES

HOUR = MONDAY + 21 * 24 + 15
P50 = TIMES[0]


def hours(now: Measured | None, usual: Callable[[int], Measured | None]) -> Callable[[int], Measured | None]:
    return lambda hour: now if hour == HOUR else usual(hour)


def of(value: float, apart: float = 1.0, number: int = 100) -> Measured:
    return Measured(value, value - apart, value + apart, number)


USUALLY = of(400.0)


def p50(now: Measured | None, usual: Measured | None = USUALLY, rules: Rules | None = None) -> Verdict:
    return judge(HOUR, hours(now, lambda _: usual), P50, rules or Rules())


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (of(400.0), USUAL),
        (of(500.0), DEPARTS),
        (of(300.0), DEPARTS),
        (of(439.0), USUAL),  # not by a tenth
        (of(500.0, apart=101.0), USUAL),  # its own few values do not exclude the median
        (of(500.0, number=LEAST_VALUES - 1), TOO_FEW),
        (None, TOO_FEW),
    ],
)
def test_hour_departs_where_it_is_far_in_spreads_and_in_percent_and_surely(now: Measured, state: str) -> None:
    assert p50(now).state == state


def test_threshold_and_change_are_settable() -> None:
    assert p50(of(500.0), rules=Rules(threshold=20)).state == USUAL
    assert p50(of(500.0), rules=Rules(change=0.3)).state == USUAL


def test_days_with_too_few_values_are_no_baseline() -> None:
    assert p50(of(500.0), of(400.0, number=LEAST_VALUES - 1)).state == NO_BASELINE
    assert p50(of(500.0), None).state == NO_BASELINE


def test_less_than_a_millisecond_is_no_departure() -> None:
    assert p50(of(0.9, apart=0.0), of(0.1, apart=0.0)).state == USUAL


def rate(errors: int, number: int) -> Measured:
    return Measured(errors / number, *wilson(errors, number), number)


@pytest.mark.parametrize(
    ("errors", "number", "usually", "state"),
    [
        (4, 30, 0, USUAL),  # fewer than five failures
        (6, 30, 0, DEPARTS),
        (5, 1000, 0, USUAL),  # half a percentage point
        (30, 1000, 10, DEPARTS),
        (13, 1000, 10, USUAL),
        (100, 1000, 100, USUAL),
    ],
)
def test_more_errors_than_usual(errors: int, number: int, usually: int, state: str) -> None:
    verdict = judge(HOUR, hours(rate(errors, number), lambda _: rate(usually, 1000)), ERRORS, Rules())
    assert verdict.state == state


def counted(value: float) -> Measured:
    return Measured(value, value, value, int(value))


@pytest.mark.parametrize(
    ("now", "usually", "elapsed", "state"),
    [
        (0, 300, 1.0, DEPARTS),
        (29, 300, 1.0, DEPARTS),
        (30, 300, 1.0, USUAL),
        (0, 29, 1.0, TOO_FEW),
        (0, 300, 0.2, TOO_FEW),  # the hour has only begun
        (0, 300, 0.3, DEPARTS),
        (0, 100, 0.25, TOO_FEW),  # 25 calls are no great number
        (10, 300, 0.5, DEPARTS),
        (20, 300, 0.5, USUAL),
    ],
)
def test_calls_are_missing_below_a_tenth_of_the_least_day(now: int, usually: int, elapsed: float, state: str) -> None:
    found = hours(counted(now) if now else None, lambda _: counted(usually))
    assert judge_missing(HOUR, found, elapsed, Rules()).state == state


def test_nothing_is_missing_where_one_of_the_days_had_none_either() -> None:
    quiet = hours(None, lambda hour: None if hour == HOUR - 72 else counted(300))  # three days before, a Friday
    assert judge_missing(HOUR, quiet, 1.0, Rules()).state == TOO_FEW


def test_weekend_without_calls_is_not_missed_on_weekends_nor_missed_on_mondays() -> None:
    found = hours(None, lambda hour: counted(300) if (hour - MONDAY) // 24 % 7 < 5 else None)
    assert judge_missing(HOUR, found, 1.0, Rules()).state == DEPARTS  # a Monday without calls is one
    saturday = HOUR + 5 * 24
    assert judge_missing(saturday, lambda h: found(h) if h < saturday else None, 1.0, Rules()).state == TOO_FEW


def test_departure_lasts_down_to_half_the_threshold_and_not_in_the_other_direction() -> None:
    slow = p50(of(500.0))
    still, over = p50(of(400 + 0.6 * 5 * 8.5)), p50(of(400 + 0.4 * 5 * 8.5))
    assert [lasts(verdict, 1.0, P50, Rules()) for verdict in (slow, still, over)] == [True, True, False]
    assert not lasts(slow, -1.0, P50, Rules())
    assert not lasts(still, 1.0, COUNTS, Rules())


def healthy(number: int, point: float, day: float, hour: float, runs: int) -> dict[int, list[Measured]]:
    """Return hours of log-normal latencies, the same in the long run; days and hours differ by these deviations."""
    random = np.random.default_rng(20)
    days = np.exp(random.normal(0, day, (runs, DAYS + 2)))
    low, high = limit_ranks(point, number)
    found = {}
    for each in {HOUR, *hours_of(HOUR)}:
        factor = days[:, (HOUR - each + 1) // 24] * np.exp(random.normal(0, hour, runs))
        took = np.sort(random.lognormal(6, 0.6, (runs, number)), axis=1) * factor[:, None]
        least = took[:, low - 1] if low >= 1 else np.full(runs, -math.inf)
        most = took[:, high - 1] if high <= number else np.full(runs, math.inf)
        columns = (took[:, math.ceil(point * number) - 1], least * 0.99, most * 1.01)
        found[each] = [Measured(*map(float, row), number) for row in zip(*columns, strict=True)]
    return found


@pytest.mark.parametrize("number", [30, 300])
@pytest.mark.parametrize("point", [0.5, 0.95])
@pytest.mark.parametrize(("day", "hour"), [(0.0, 0.0), (0.05, 0.08)])
def test_of_healthy_hours_fewer_than_one_in_200_departs(number: int, point: float, day: float, hour: float) -> None:
    runs = 1000
    found = healthy(number, point, day, hour, runs)
    alarms = 0
    for run in range(runs):
        alarms += (
            judge(HOUR, lambda at, run=run: found[at][run] if at in found else None, P50, Rules()).state == DEPARTS
        )
    assert alarms <= runs / 200
