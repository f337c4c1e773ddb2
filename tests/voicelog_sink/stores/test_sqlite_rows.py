"""Rows into SQLite's statements: all of them, in order, few different statements, none above the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.stores.sqlite_rows import SIZES, insert, inserts

NAMES = ("subject", "kind")


@given(st.integers(0, 2_000), st.integers(0, 5_000))
def test_every_row_is_in_one_statement_in_order_and_none_is_too_large(count: int, max_values: int) -> None:
    rows = [(str(number), "session") for number in range(count)]
    made = list(inserts("erasures", NAMES, rows, max_values))
    assert [value for _, values in made for value in values] == [value for row in rows for value in row]
    for statement, values in made:
        assert statement.count("?") == len(values)
        assert len(values) <= max(max_values, len(NAMES))


@given(st.lists(st.integers(1, 3_000), max_size=30))
def test_different_numbers_of_rows_make_few_different_statements(counts: list[int]) -> None:
    rows = [("a", "session")]
    statements = {s for count in counts for s, _ in inserts("erasures", NAMES, rows * count, 30_000)}
    assert len(statements) <= len(SIZES) + min(SIZES) - 1


def test_statement_of_many_rows_replaces_as_that_of_one_does() -> None:
    one, three = (
        insert("session_summaries", ("session_id", "rows_read")),
        insert("session_summaries", ("session_id", "rows_read"), 3),
    )
    assert three == one.replace("(?, ?)", "(?, ?), (?, ?), (?, ?)")
