"""The breaker: trips for a table that is wrong, however the rows come, and not for rows that are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.breaker import MAX_CONSECUTIVE, MEMORY_ROWS, MIN_ROWS, Breaker
from voicelog_sink.stores.base import Rejected, Row

sizes = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def batch(*rows: tuple[str, bool]) -> tuple[list[Row], list[Rejected]]:
    """Return the rows of these tables, and the refusals of those that are not taken."""
    refusals = [Rejected(i, "InvalidRequest", f"table {t}: no {i}") for i, (t, taken) in enumerate(rows) if not taken]
    return [Row(table, {}) for table, _ in rows], refusals


@given(sizes)
def test_table_that_takes_nothing_trips_after_so_many_rows_whatever_the_batches(batches: list[int]) -> None:
    breaker, seen = Breaker(), 0
    for size in batches:
        tripped = breaker.note(*batch(*[("error_logs", False)] * size))
        seen += size
        assert (tripped is not None) == (seen >= MAX_CONSECUTIVE)


@given(sizes)
def test_table_that_takes_nothing_trips_beside_another_that_takes_everything(batches: list[int]) -> None:
    breaker, seen = Breaker(), 0
    for size in batches:
        tripped = breaker.note(*batch(*[("voice_interactions", True), ("error_logs", False)] * size))
        seen += size
        assert (tripped is not None) == (seen >= MAX_CONSECUTIVE)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=50), max_size=100))
def test_as_many_bad_rows_as_may_be_never_trip_while_good_ones_are_in_the_majority(batches: list[list[bool]]) -> None:
    breaker = Breaker()
    for refused in batches:
        rows = [row for bad in refused for row in [("voice_interactions", True), ("voice_interactions", not bad)]]
        assert breaker.note(*batch(*rows)) is None


def test_most_rows_refused_trips_once_there_are_enough_of_them() -> None:
    breaker = Breaker()
    three_of_four = [("error_logs", False)] * 3 + [("error_logs", True)]
    trips = [breaker.note(*batch(*three_of_four)) for _ in range(MIN_ROWS // 4)]
    assert [index for index, tripped in enumerate(trips) if tripped] == [MIN_ROWS // 4 - 1]
    assert "refused 375 of the last 500 rows of error_logs, now for: table error_logs: no 0" in str(trips[-1])


def test_one_row_that_is_taken_begins_the_count_anew() -> None:
    breaker = Breaker()
    almost = [("error_logs", False)] * (MAX_CONSECUTIVE - 1)
    assert breaker.note(*batch(*almost)) is None
    assert breaker.note(*batch(("error_logs", True))) is None
    assert breaker.note(*batch(*almost)) is None
    assert breaker.note(*batch(("error_logs", False))) is not None


def test_sentence_says_what_was_refused_and_what_to_do() -> None:
    tripped = Breaker().note(*batch(*[("error_logs", False)] * 120))
    assert tripped is not None
    assert tripped.startswith(
        "the store has refused the last 120 rows of error_logs, and taken none between them, "
        "now for: table error_logs: no 0; nothing of this batch was moved to the dead letters"
    )
    assert "voicelog-sink init --only store --check" in tripped


def test_what_is_long_ago_is_forgotten() -> None:
    breaker = Breaker()
    assert breaker.note(*batch(*([("error_logs", False), ("error_logs", True)] * 200))) is None
    for _ in range(20):
        assert breaker.note(*batch(*[("error_logs", True)] * MEMORY_ROWS)) is None
    assert breaker.note(*batch(*([("error_logs", False)] * (MAX_CONSECUTIVE - 1)))) is None


def test_rows_of_no_record_count_as_well() -> None:
    assert Breaker().note(*batch(*[("derived_pending", False)] * MAX_CONSECUTIVE)) is not None


@given(sizes)
def test_rows_that_cannot_be_encoded_never_trip_it(batches: list[int]) -> None:
    breaker = Breaker()
    for size in batches:
        refused = [Rejected(index, "RowError", "a key that is too long") for index in range(size)]
        assert breaker.note([Row("error_logs", {})] * size, refused) is None
