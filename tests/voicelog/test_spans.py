"""Spans of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog.spans import FOREVER, Span, clip, covers, union

SPANS = st.lists(st.tuples(st.integers(-5, 40), st.integers(-5, 40)), max_size=8)


def in_any(spans: list[Span], at: int) -> bool:
    return any(begin <= at < until for begin, until in spans)


@given(SPANS)
def test_a_union_covers_the_same_time_in_order_and_apart(spans: list[Span]) -> None:
    found = union(spans)
    assert [at for at in range(-6, 42) if in_any(found, at)] == [at for at in range(-6, 42) if in_any(spans, at)]
    moments = [moment for span in found for moment in span]
    assert moments == sorted(set(moments))


@given(SPANS, st.integers(-5, 40), st.integers(-5, 40))
def test_clipped_spans_cover_what_lies_between(spans: list[Span], begin: int, until: int) -> None:
    found = clip(spans, begin, until)
    for at in range(-6, 42):
        assert in_any(found, at) == (begin <= at < until and in_any(spans, at))


@given(SPANS, st.integers(-6, 42))
def test_a_moment_is_covered_from_a_spans_begin_to_before_its_end(spans: list[Span], at: int) -> None:
    assert covers(union(spans), at) == in_any(spans, at)


def test_what_has_no_end_covers_all_that_follows() -> None:
    assert covers([(5, FOREVER)], 10**18)
    assert not covers([(5, FOREVER)], 4)
    assert clip([(5, FOREVER)], 0, 20) == [(5, 20)]
