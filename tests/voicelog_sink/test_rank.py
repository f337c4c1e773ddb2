"""Which of two derived rows wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.rank import ERASURE, HIGHEST, erased, erasures_in, rank_of, rows_in

rows = st.integers(0, ERASURE - 1)
erasures = st.integers(0, HIGHEST // ERASURE - 1)


@given(rows, rows, erasures)
def test_more_rows_win_and_an_erasure_over_both(fewer: int, more: int, before: int) -> None:
    fewer, more = sorted((fewer, more))
    assert rank_of(fewer, before) <= rank_of(more, before) < erased(rank_of(fewer, before))


@given(rows, erasures)
def test_rank_tells_what_it_was_made_of(count: int, before: int) -> None:
    rank = rank_of(count, before)
    assert (rows_in(rank), erasures_in(rank)) == (count, before)


@given(st.integers(0), st.integers(0))
def test_no_rank_is_beyond_what_a_store_takes_as_a_timestamp(count: int, before: int) -> None:
    assert 0 <= rank_of(count, before) <= HIGHEST < 1_750_000_000_000_000
