"""The measures of an hour, with their limits; and hours of a real SQLite file, read once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm
from tests.builders import sqlite_store
from tests.history import HOUR_MS, MONDAY, WHO, hour_rows, latencies, rollup, write

from voicelog_sink.errors import SinkError
from voicelog_sink.hourly import CERTAIN, Hourly, Measured, limit_ranks, measured, wilson
from voicelog_sink.interval import share_estimate
from voicelog_sink.rollup import Rollup, unpack
from voicelog_sink.sketch import RELATIVE_ERROR, Sketch, quantiles_of
from voicelog_sink.stores.base import Row
from voicelog_sink.stores.sqlite import SqliteStore

CONFIDENCE = 0.999


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db", lambda: (MONDAY + 48) * HOUR_MS)
    yield store
    store.close()


def test_certain_is_the_normal_deviate_of_its_confidence() -> None:
    assert pytest.approx(norm.isf((1 - CONFIDENCE) / 2), abs=1e-4) == CERTAIN


@given(st.integers(1, 10_000), st.data())
def test_wilson_s_limits_are_scipy_s(count: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, count))
    known = share_estimate(part, count, math.erf(CERTAIN / math.sqrt(2)))
    assert wilson(part, count) == (pytest.approx(known.low, abs=1e-9), pytest.approx(known.high, abs=1e-9))


@pytest.mark.parametrize("point", [0.5, 0.95])
@given(count=st.integers(30, 100_000))
def test_limits_hold_the_true_percentile_of_any_distribution(point: float, count: int) -> None:
    low, high = limit_ranks(point, count)
    below = binom.cdf(low - 1, count, point) if low >= 1 else 0.0
    above = binom.sf(high - 1, count, point) if high <= count else 0.0
    assert below + above <= 0.002


def test_measures_of_an_hour() -> None:
    made = rollup([float(n) for n in range(1, 101)], errors=25, cost_usd=0.5)
    found = measured([unpack(made.packed())])
    assert found == {
        "p50": Measured(near(50), near(33 * 0.99), near(68 * 1.01), 100),
        "p95": Measured(near(95), near(87 * 0.99), math.inf, 100),
        "error_rate": Measured(0.2, *wilson(25, 125), 125),
        "cost_usd": Measured(0.5, 0.5, 0.5, 125),
        "count": Measured(125, 125, 125, 125),
    }


def near(value: float) -> float:
    return pytest.approx(value, rel=RELATIVE_ERROR)  # type: ignore[no-any-return]


def test_nothing_measured_has_no_measures_and_failures_alone_no_percentile() -> None:
    assert measured([]) == measured([unpack(Rollup().packed())]) == {}
    assert set(measured([unpack(rollup([], errors=3).packed())])) == {"error_rate", "count"}


@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(0.0)), min_size=1, max_size=3), st.booleans())
def test_rows_are_measured_as_what_they_were_made_from(parts: list[list[float]], limits: bool) -> None:
    rows = [unpack(rollup(part, errors=1, cost_usd=0.1).packed()) for part in parts]
    whole = rollup([value for part in parts for value in part], errors=len(parts), cost_usd=0.1)
    assert measured(rows, limits) == measured([unpack(whole.packed())], limits)


@given(st.lists(st.floats(-1e6, 1e6) | st.just(0.0)))
def test_percentiles_of_a_row_are_those_of_its_sketch(values: list[float]) -> None:
    sketch = Sketch()
    sketch.add(values)
    points = [0, 0.01, 0.5, 0.95, 1]
    assert quantiles_of(sketch.packed(), points) == sketch.quantiles(points)


@given(st.lists(st.floats(-1e6, 1e6)), st.floats(-1e6, 1e6))
def test_values_above_are_counted_but_for_those_within_the_sketch_s_error(values: list[float], limit: float) -> None:
    sketch = Sketch()
    sketch.add(values)
    apart = abs(limit) * 2 * RELATIVE_ERROR + 1e-9
    assert sum(v > limit + apart for v in values) <= sketch.above(limit) <= sum(v > limit - apart for v in values)


def test_hours_are_read_once_and_groups_are_those_of_the_dimensions(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(1)
    other = (*WHO[:3], "b")
    for who in (WHO, other):
        write(store, hour_rows(range(MONDAY, MONDAY + 48), lambda _: rollup(latencies(random, 10)), who=who))
    asked: list[object] = []
    select = store.select
    monkeypatch.setattr(store, "select", lambda *args, **given: [asked.append(given), select(*args, **given)][1])
    hours = Hourly(store, "llm.duration_ms", ("provider",))
    hours.need([MONDAY + 3, MONDAY + 4, MONDAY + 23, MONDAY + 24])
    hours.need([MONDAY + 4])
    assert [(given["since_ms"] // HOUR_MS - MONDAY, given["until_ms"] // HOUR_MS - MONDAY) for given in asked] == [
        (3, 5), (23, 24), (24, 25),
    ]  # fmt: skip
    assert hours.keys == [("openai",)]
    assert hours.get(("openai",), MONDAY + 4, "count") == Measured(20, 20, 20, 20)
    assert hours.get(("openai",), MONDAY + 5, "count") is None
    assert hours.get(("groq",), MONDAY + 4, "count") is None


def test_rollup_that_can_t_be_read_is_told_with_its_name(store: SqliteStore) -> None:
    (row, name) = hour_rows([MONDAY], lambda _: rollup([1.0]))
    write(store, [Row(row.table, row.values | {"sketch": b"\x97\x02\0\0\0\0\0\0"}), name])
    with pytest.raises(SinkError, match=r"llm\.duration_ms, by hour: a rollup"):
        Hourly(store, "llm.duration_ms", ()).need([MONDAY])
