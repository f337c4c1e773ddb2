"""How long rows are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.stores.lifetime import DAY_MS, born_column, is_over, left_ms, lifetime_ms
from voicelog_sink.tables import TABLES


def test_every_table_with_a_lifetime_has_a_moment_it_counts_from() -> None:
    found = {t.name: born_column(t) for t in TABLES.values() if lifetime_ms(t, 90) is not None}
    assert found == {
        "voice_interactions": "ts",
        "session_summaries": "started_at",
        "sessions_by_day": "started_at",
        "performance_metrics": "ts",
        "metric_parts": "start",
        "metric_rollups": "start",
        "metric_names": "start",
        "error_logs": "ts",
        "system_health": "ts",
    }


def test_setting_is_for_appended_tables_and_rewritten_ones_have_their_own() -> None:
    days = {t.name: lifetime_ms(t, 30) for t in TABLES.values()}
    assert days["voice_interactions"] == 30 * DAY_MS
    assert days["session_summaries"] == 400 * DAY_MS
    assert days["erasures"] is None


@given(age=st.integers(-(10**13), 10**13), lifetime=st.integers(1, 10**12))
def test_what_is_left_never_exceeds_the_lifetime_and_is_over_exactly_after_it(age: int, lifetime: int) -> None:
    now = 1_800_000_000_000
    left = left_ms({"ts": now - age}, "ts", lifetime, now)
    assert left <= lifetime
    assert (left <= 0) == (age >= lifetime)


@pytest.mark.parametrize("values", [{}, {"ts": None}, {"ts": "2026"}])
def test_row_without_a_moment_counts_from_now(values: dict[str, object]) -> None:
    assert left_ms(values, "ts", 1000, 5) == 1000


@given(st.none() | st.integers(-(10**15), 10**15), st.integers(1, 10**12), st.integers(0, 10**15))
def test_time_is_over_exactly_when_none_is_left(at_ms: int | None, lifetime: int, now_ms: int) -> None:
    values = {"ts": at_ms}
    assert is_over(values, "ts", lifetime, now_ms) == (left_ms(values, "ts", lifetime, now_ms) <= 0)
