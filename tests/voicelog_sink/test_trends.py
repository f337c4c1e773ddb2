"""How figures move over weeks: the slope and its chance, and weeks of a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, theilslopes
from tests.builders import sqlite_store
from tests.history import HOUR_MS, MONDAY, WHO, day_rows, latencies, rollup, write

from voicelog_sink.parts import METRIC
from voicelog_sink.rows import DAY_MS
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.trends import CHANCE, LEAST_WEEKS, WEEK_MS, Trend, Week, chance_of, slope_of, trends

TODAY = MONDAY // 24 + 60
NOW_MS = TODAY * DAY_MS + 9 * HOUR_MS
DAYS = range(TODAY - 56, TODAY + 1)
different = st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=9, unique=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db", lambda: NOW_MS)
    yield store
    store.close()


@given(different)
def test_slope_and_chance_are_scipy_s(values: list[float]) -> None:
    known = kendalltau(range(len(values)), values, method="exact")
    assert chance_of(values) == pytest.approx(known.pvalue)
    assert slope_of(list(enumerate(values))) == pytest.approx(theilslopes(values).slope)


def test_weeks_that_are_equal_make_no_trend() -> None:
    assert chance_of([5.0] * 8) == 1.0
    assert chance_of([1.0, 1.0, 1.0, 1.0, 2.0]) > CHANCE


def test_of_weeks_by_chance_at_most_one_in_twenty_has_a_trend() -> None:
    for number in (LEAST_WEEKS, 6):
        orders = list(permutations(range(number)))
        assert sum(chance_of(order) < CHANCE for order in orders) <= CHANCE * len(orders)


def test_figure_that_grows_is_rising_by_so_many_percent_a_week(store: SqliteStore) -> None:
    random = Random(5)

    def made(day: int) -> float:
        return 400 * 1.05 ** ((day - DAYS[0]) // 7)

    write(store, day_rows(DAYS, lambda day: rollup(latencies(random, 300, made(day)), errors=3, cost_usd=0.01)))
    found = {trend.measure: trend for trend in trends(store, NOW_MS)}
    assert list(found) == ["p50", "p95", "error_rate", "cost_usd", "count"]
    p50 = found["p50"]
    assert p50 == Trend(
        name="llm", kind="stage", figure="duration_ms", measure="p50", unit="ms",
        group={"provider": WHO[1], "model": WHO[2]},
        weeks=tuple(
            Week((TODAY - 56 + 7 * n) * DAY_MS, pytest.approx(400 * 1.05**n, rel=0.06), 2100) for n in range(8)
        ),
        slope=pytest.approx(24, rel=0.2), percent=pytest.approx(5, rel=0.2), chance=pytest.approx(2 / 40320),
        verdict="rising", worse=True,
    )  # fmt: skip
    assert {name: trend.verdict for name, trend in found.items() if name not in ("p50", "p95")} == {
        "error_rate": "unclear", "cost_usd": "unclear", "count": "unclear",
    }  # fmt: skip
    assert found["count"].weeks[0] == Week((TODAY - 56) * DAY_MS, 7 * 303, 7 * 303)


@pytest.mark.parametrize(("percent", "verdict"), [(0.25, "unclear"), (0.35, "rising"), (-0.35, "falling")])
def test_change_of_less_than_two_percent_over_all_weeks_is_none(
    store: SqliteStore, percent: float, verdict: str
) -> None:
    def made(day: int) -> float:
        return 1 + percent / 100 * ((day - DAYS[0]) // 7)

    write(store, day_rows(DAYS, lambda day: rollup([400.0] * 30, cost_usd=made(day))))
    (cost,) = (trend for trend in trends(store, NOW_MS) if trend.measure == "cost_usd")
    assert (cost.verdict, cost.chance) == (verdict, pytest.approx(2 / 40320))


def test_today_is_no_part_of_a_week_and_weeks_with_few_values_have_none(store: SqliteStore) -> None:
    for days_ago, number in ((0, 50), (1, 29), (8, 15), (9, 15)):
        write(store, day_rows([TODAY - days_ago], lambda _, n=number: rollup([400.0] * n), "queue", METRIC))
    p50, _, count = trends(store, NOW_MS, 3)
    assert [(week.since_ms, week.count) for week in p50.weeks] == [
        (TODAY * DAY_MS - 3 * WEEK_MS, 0), (TODAY * DAY_MS - 2 * WEEK_MS, 30), (TODAY * DAY_MS - WEEK_MS, 29),
    ]  # fmt: skip
    assert [week.value for week in p50.weeks] == [None, pytest.approx(400, rel=0.01), None]
    assert [week.value for week in count.weeks] == [0, 30, 29]
    assert (p50.verdict, p50.slope, p50.chance, p50.worse) == ("too_few", None, None, None)


def test_nothing_stored_has_no_trend(store: SqliteStore) -> None:
    assert trends(store, NOW_MS) == []
