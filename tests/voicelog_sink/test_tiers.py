"""Which rollups make up a period."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.rollup import period_of
from voicelog_sink.rows import DAY_MS, hour_of
from voicelog_sink.tiers import HOUR_MS, Reading, months_of, oldest_ms, open_end_ms, readings

START = 1_795_305_600_000
"""2026-11-22T00:00:00Z"""
LENGTHS = {"day": DAY_MS, "hour": HOUR_MS, "minute": 60_000}
MOMENTS = st.integers(0, 500 * DAY_MS)


def test_days_are_read_inside_and_hours_and_minutes_at_the_edges() -> None:
    assert readings(START - HOUR_MS - 1, START + 10 * DAY_MS + 60_001) == [
        Reading("day", ("2026-11", "2026-12"), START, START + 10 * DAY_MS),
        Reading("hour", ("2026-11-21",), START - HOUR_MS, START),
        Reading("minute", ("2026-11-21T22",), START - HOUR_MS - 60_000, START - HOUR_MS),
        Reading("minute", ("2026-12-02T00",), START + 10 * DAY_MS, START + 10 * DAY_MS + 120_000),
    ]


@given(MOMENTS, MOMENTS)
def test_each_minute_is_read_once_and_in_few_rows(since: int, until: int) -> None:
    spans = sorted((one.since_ms, one.until_ms) for one in readings(since, until))
    ends = [since // 60_000 * 60_000, -(-until // 60_000) * 60_000] if since < until else []
    assert [spans[0][0], spans[-1][1]] == ends if ends else not spans
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    rows = {tier: sum((r.until_ms - r.since_ms) // LENGTHS[tier] for r in readings(since, until) if r.tier == tier)
            for tier in LENGTHS}  # fmt: skip
    assert rows["minute"] <= 2 * 59
    assert rows["hour"] <= 2 * 23


@given(MOMENTS, st.integers(1, 40 * DAY_MS))
def test_each_row_is_in_a_partition_that_is_read(since: int, length: int) -> None:
    for one in readings(since, since + length):
        starts = range(one.since_ms, one.until_ms, LENGTHS[one.tier])
        assert list(one.periods) == sorted({period_of(one.tier, hour_of(at * 1000)) for at in starts})


def test_nothing_is_read_of_an_empty_time() -> None:
    assert readings(START, START) == readings(START + 1, START) == []


def test_months_are_those_of_every_reading() -> None:
    assert months_of(readings(START - 40 * DAY_MS - 5, START + 10 * DAY_MS + 5)) == ["2026-10", "2026-11", "2026-12"]
    assert months_of([]) == []


def test_period_without_end_has_whole_days_and_nothing_older_than_is_kept() -> None:
    assert open_end_ms(START + 5) == START + 2 * DAY_MS
    assert oldest_ms(START) == START - 401 * DAY_MS
