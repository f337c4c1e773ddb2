"""Percentiles from merged sketches: exact to the stated error, the same whatever the order and the division."""

from __future__ import annotations

import math
from random import Random

import msgspec
import pytest
from ddsketch import DDSketch
from hypothesis import example, given
from hypothesis import strategies as st

from voicelog_sink.percentiles import percentiles
from voicelog_sink.sketch import RELATIVE_ERROR, Packed, Sketch, quantile

values = st.floats(allow_nan=False, allow_infinity=False)
durations_ms = st.floats(0, 1e7)
POINTS = (0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0)


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    sketch.add(values)
    return sketch


def stored(sketch: Sketch) -> bytes:
    return msgspec.msgpack.encode(sketch.packed())


@given(st.lists(values | durations_ms, min_size=1), st.sampled_from(POINTS))
@example([1.7976931348623157e308, -1.7976931348623157e308], 1.0)
@example([5e-324, -0.0, 0.0, 2.3e-308], 0.5)
def test_percentile_is_within_the_stated_error_of_the_exact_one(values: list[float], point: float) -> None:
    (exact,) = percentiles(values, (point * 100,))
    found = quantile([sketch_of(values).packed()], point)
    assert found is not None
    assert abs(found - exact) <= abs(exact) * RELATIVE_ERROR * (1 + 1e-6) + 1e-307


@given(st.lists(values | durations_ms), st.randoms(), st.integers(1, 5))
def test_same_values_in_any_order_and_division_make_the_same_bytes(
    values: list[float], random: Random, parts: int
) -> None:
    shuffled = random.sample(values, len(values))
    merged = Sketch()
    for part in range(parts):
        merged.merge(sketch_of(shuffled[part::parts]).packed())
    assert stored(merged) == stored(sketch_of(values))
    assert merged.count == len(values)


@given(st.lists(values | durations_ms))
def test_what_is_stored_comes_back(values: list[float]) -> None:
    again = Sketch()
    again.merge(msgspec.msgpack.decode(stored(sketch_of(values)), type=Packed))
    assert again == sketch_of(values)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1))
def test_bins_are_the_librarys(values: list[float]) -> None:
    theirs, ours = DDSketch(RELATIVE_ERROR), sketch_of(values)
    for value in values:
        theirs.add(value)
    for point in POINTS:
        rank = max(math.ceil(point * len(values)), 1) - 1
        if 0 < rank < len(values) - 1:
            expected = theirs.get_quantile_value((rank + 0.5) / (len(values) - 1))
            assert ours.quantiles([point]) == (pytest.approx(max(min(values), min(max(values), expected)), rel=1e-9),)


def test_zero_has_no_sign() -> None:
    assert stored(sketch_of([0.0, -0.0])) == stored(sketch_of([-0.0, 0.0])) == stored(sketch_of([-0.0, -0.0]))


def test_no_values_have_no_percentile() -> None:
    assert quantile([Sketch().packed(), Sketch().packed()], 0.5) is None
    assert Sketch().quantiles([0.5]) == ()


def test_stored_form_is_as_documented() -> None:
    sketch = sketch_of([1.0, 100.0, 100.0, 102.5, -100.0, 0.0])
    assert msgspec.to_builtins(sketch.packed()) == [-100.0, 102.5, 1, [0, 231, 1], [1, 2, 1], [231], [1]]
