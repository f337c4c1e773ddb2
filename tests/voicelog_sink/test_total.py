"""Adding rollups up from how they are stored: in C and in Python the same, whatever the bytes are."""

from __future__ import annotations

import os
import sys
import tracemalloc
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voicelog_sink import total
from voicelog_sink.parts import EXCLUDED, FAILED
from voicelog_sink.rollup import Rollup, unpack
from voicelog_sink.total import Total

needs_extension = pytest.mark.skipif(
    total._quick is None and os.environ.get("CI") != "true", reason="the extension is not built: python hatch_build.py"
)

values = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1e5) | st.just(0.0)
flags = st.sampled_from((0, 0, EXCLUDED, FAILED | EXCLUDED))
durations_ms = st.floats(1e-3, 1e7) | st.floats(-1e7, -1e-3) | st.just(0.0)
costs = st.none() | st.floats(-1, 10) | st.just(1e6)
measured = st.lists(st.tuples(st.none() | values, flags, costs), max_size=30)
common = st.lists(st.tuples(st.none() | durations_ms, flags, costs), max_size=30).map(lambda rows: of(rows).packed())
stored = measured.map(lambda rows: of(rows).packed())

numbers = st.integers(-3, 300) | st.integers(-(2**63), 2**64 - 1) | st.integers(2**40 - 2, 2**40 + 2)
ends = st.none() | st.floats() | st.integers(0, 9)
lists = st.lists(st.integers(0, 3) | numbers, max_size=4)
anything = st.none() | st.booleans() | st.text(max_size=3) | lists | numbers
sketches = st.tuples(ends, ends, numbers, lists, lists, lists, lists) | st.lists(anything, max_size=9)
odd = st.tuples(st.just(1) | numbers, numbers, numbers, numbers, st.none() | numbers, numbers, sketches)
encoded = (odd | st.lists(anything, max_size=9)).map(msgspec.msgpack.encode)


def of(rows: list[tuple[float | None, int, float | None]]) -> Rollup:
    rollup = Rollup()
    rollup.add([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    return rollup


def one_by_one(blobs: list[bytes]) -> Rollup:
    rollup = Rollup()
    for place, blob in enumerate(blobs):
        rollup.merge(unpack(blob), erasures=place)
    return rollup


def added_up(blobs: list[bytes]) -> Rollup:
    added = Total()
    for place, blob in enumerate(blobs):
        added.add(blob, place)
    return added.rollup()


def told(what: Any, blobs: list[bytes]) -> Any:
    """Return what comes of it: the sum's bytes, or why there is none."""
    try:
        rollup = what(blobs)
    except ValueError as exc:
        return str(exc)
    return rollup.packed(), rollup.rank, rollup.cost, rollup.sketch.bins, rollup.sketch.negative_bins


@given(st.lists(stored, max_size=6))
@example([of([(-0.0, 0, None)]).packed()])
@example([of([(1.7976931348623157e308, 0, 1e6), (-1.7976931348623157e308, 0, -1e6), (5e-324, 0, 1e-12)]).packed()] * 3)
@example([of([(1.0, 0, 0.9)]).packed()] * 12)
def test_total_is_the_same_as_one_rollup_of_all_rows(blobs: list[bytes]) -> None:
    assert told(added_up, blobs) == told(one_by_one, blobs)
    assert added_up(blobs) == one_by_one(blobs)


@needs_extension
@given(common)
def test_what_is_written_is_added_in_c(blob: bytes) -> None:
    assert total._quick is not None
    assert total._quick.Total().add(blob)


@needs_extension
@given(st.lists(encoded | stored, max_size=4))
@example([msgspec.msgpack.encode([1, 1, 0, 0, None, 0, [1.0, 1.0, 0, [0, 1], [0, 1], [], []]])])
def test_what_is_not_written_so_is_read_or_refused_as_in_python(blobs: list[bytes]) -> None:
    assert told(added_up, blobs) == told(one_by_one, blobs)


@needs_extension
@given(stored, st.data())
def test_damaged_rollup_is_read_or_refused_as_in_python_and_leaves_the_total_as_it_was(
    blob: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(blob)
    for place in data.draw(st.lists(st.integers(0, len(blob) - 1), max_size=2)):
        damaged[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(blob)) | st.just(len(blob)))
    bad = bytes(damaged[:end]) + data.draw(st.just(b"") | st.binary(max_size=2))
    assert told(added_up, [blob, bad, blob]) == told(one_by_one, [blob, bad, blob])
    assert total._quick is not None
    before, after = total._quick.Total(), total._quick.Total()
    before.add(blob)
    after.add(blob)
    if not after.add(bad):
        assert after.sums() == before.sums()


@needs_extension
@pytest.mark.parametrize("given", [None, "text", bytearray(b""), b"", 7])
def test_what_are_no_bytes_is_left_to_python(given: Any) -> None:
    assert total._quick is not None
    assert total._quick.Total().add(given) is False


@needs_extension
def test_values_that_are_far_apart_are_left_to_python() -> None:
    assert total._quick is not None
    counted = total._quick.Total()
    assert counted.add(of([(1.0, 0, None)]).packed())
    assert not counted.add(of([(1e300, 0, None)]).packed())
    assert not counted.add(of([(-1e-300, 0, None), (-1e300, 0, None)]).packed())
    assert counted.add(of([(-1e300, 0, None)]).packed())


@needs_extension
def test_sums_never_run_over() -> None:
    """A number as large as C takes, as often as it takes it; Python has the rest."""
    most = msgspec.msgpack.encode([1, 2**40, 0, 0, None, 0, [1.0, 1.0, 0, [0], [2**40], [], []]])
    assert total._quick is not None
    counted, times = total._quick.Total(), 0
    while counted.add(most):
        times += 1
    assert times == 2**61 // (2**41 + 1)
    assert counted.sums()[0] == times * 2**40
    assert counted.sums()[6] == {0: times * 2**40}


@needs_extension
def test_nothing_that_was_added_is_kept() -> None:
    assert total._quick is not None
    random = Random(1)
    blobs = [of([(random.expovariate(0.01), 0, None) for _ in range(50)]).packed() for _ in range(200)]

    def one_round() -> None:
        added = Total()
        for blob in blobs:
            added.add(blob)
        added.rollup()

    one_round()
    references = [sys.getrefcount(blob) for blob in blobs]
    tracemalloc.start()
    try:
        one_round()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            one_round()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2_000
    assert [sys.getrefcount(blob) for blob in blobs] == references
