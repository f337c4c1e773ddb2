"""Exact percentiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.percentiles import percentiles

values_lists = st.lists(st.floats(0, 1e6), min_size=1)


def test_nothing_measured_has_no_percentiles() -> None:
    assert percentiles([], (50, 99)) == ()


def test_answers_are_the_nearest_ranks() -> None:
    assert percentiles(range(1, 101), (0, 50, 90, 95, 99, 100)) == (1, 50, 90, 95, 99, 100)
    assert percentiles([30.0, 10.0, 20.0], (50, 90)) == (20.0, 30.0)


@given(values_lists, st.integers(0, 100))
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], point: int) -> None:
    (answer,) = percentiles(values, (point,))
    assert answer in values
    assert sum(value <= answer for value in values) * 100 >= point * len(values)
    smaller = [value for value in values if value < answer]
    assert not smaller or sum(value <= max(smaller) for value in values) * 100 < point * len(values)
