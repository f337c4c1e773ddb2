"""Percentiles by group; against a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders import START_US, CallBuilder, realistic_call, sqlite_store, store_calls

from voicelog.events import Figure, Metric, Turn
from voicelog_sink.rows import rows_of
from voicelog_sink.stats import Percentiles, StatsRow, stats
from voicelog_sink.stores.sqlite import SqliteStore

NOW = START_US // 1000
HOUR_MS = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


def same(value: float, count: int = 1) -> Percentiles:
    return Percentiles(count=count, p50=value, p90=value, p95=value, p99=value)


def test_nothing_measured_makes_no_rows(store: SqliteStore) -> None:
    assert stats(store, 0, NOW) == []


def test_percentiles_are_of_what_ended_ok_and_the_rest_is_counted(store: SqliteStore) -> None:
    call = CallBuilder()
    for number in range(1, 101):
        call.stage("llm", number, number, first_item_ms=number / 10, cost_usd=0.01)
    call.stage("llm", 200, 90_000, status="error")
    call.stage("llm", 201, 90_000, status="interrupted")
    call.stage("llm", 202, 90_000, status="cancelled")
    store_calls(store, [call])
    (row,) = stats(store, NOW, NOW + HOUR_MS)
    assert row.cost_usd == pytest.approx(1.0)
    assert row == StatsRow(
        name="llm", kind="stage", group={}, count=103, errors=1, excluded=3, unit=None, value=None,
        cost_usd=row.cost_usd,
        duration_ms=Percentiles(count=100, p50=50, p90=90, p95=95, p99=99),
        first_item_ms=Percentiles(count=100, p50=5, p90=9, p95=9.5, p99=9.9),
    )  # fmt: skip


def test_figure_counts_by_its_own_quality(store: SqliteStore) -> None:
    call = CallBuilder()
    for value_ms, quality in ((700.0, "ok"), (9000.0, "interrupted"), (None, "clock_suspect")):
        figures = {
            "user_bot_latency_ms": Figure(value_ms=value_ms, quality=quality),
            "llm_ttft_ms": Figure(value_ms=9.0),
        }
        call.add(Turn, value_ms or 0, figures=figures, status="interrupted")
    store_calls(store, [call])
    shared = {"kind": "turn", "group": {}, "count": 3, "errors": 0, "unit": "ms"}
    absent = {"duration_ms": None, "first_item_ms": None, "cost_usd": None}
    assert stats(store, NOW, NOW + HOUR_MS) == [
        StatsRow(name="turn.user_bot_latency_ms", excluded=2, value=same(700.0), **shared, **absent),
        StatsRow(name="turn.llm_ttft_ms", excluded=0, value=same(9.0, 3), **shared, **absent),
    ]


def test_metric_without_a_session_is_there(store: SqliteStore) -> None:
    call = CallBuilder()
    call.add(Metric, 0, name="queue_depth", value=3.0, unit="1", session_id=None)
    store.write(rows_of(call.events[0]))
    (row,) = stats(store, NOW, NOW + 1)
    assert (row.name, row.kind, row.unit, row.value) == ("queue_depth", "metric", "1", same(3.0))


def test_metric_with_a_stage_s_name_is_a_row_of_its_own(store: SqliteStore) -> None:
    call = CallBuilder()
    call.stage("llm", 0, 5), call.add(Metric, 1, name="llm", value=3.0)
    store_calls(store, [call])
    assert [(row.kind, row.name, row.count) for row in stats(store, NOW, NOW + HOUR_MS)] == [
        ("stage", "llm", 1), ("metric", "llm", 1),
    ]  # fmt: skip


def test_groups_tell_apart_and_absent_is_none(store: SqliteStore) -> None:
    call = CallBuilder(variant="a")
    call.stage("llm", 0, 1, provider="openai", model="m1"), call.stage("llm", 1, 2, provider="openai", model="m2")
    call.stage("llm", 2, 3, provider="groq", model="m1", variant="b"), call.stage("stt", 3, 4)
    store_calls(store, [call])
    by_model = stats(store, NOW, NOW + HOUR_MS, ("provider", "model"))
    assert [(row.name, row.group, row.duration_ms) for row in by_model] == [
        ("stt", {"provider": None, "model": None}, same(4)),
        ("llm", {"provider": "groq", "model": "m1"}, same(3)),
        ("llm", {"provider": "openai", "model": "m1"}, same(1)),
        ("llm", {"provider": "openai", "model": "m2"}, same(2)),
    ]
    assert [(row.group, row.count) for row in stats(store, NOW, NOW + HOUR_MS, ("stage", "variant"))] == [
        ({"variant": "a"}, 1), ({"variant": "a"}, 2), ({"variant": "b"}, 1),
    ]  # fmt: skip


def test_time_bounds_hold_within_and_across_hours(store: SqliteStore) -> None:
    call = CallBuilder()
    for hour in range(4):
        call.stage("vad", hour * HOUR_MS, 1)
    store_calls(store, [call])
    spans = ((0, 1), (0, 3 * HOUR_MS), (1, 3 * HOUR_MS + 1), (HOUR_MS, 2 * HOUR_MS), (4 * HOUR_MS, 9 * HOUR_MS))
    counts = [sum(row.count for row in stats(store, NOW + since, NOW + until)) for since, until in spans]
    assert counts == [1, 3, 3, 1, 0]


def test_stages_come_in_the_order_of_a_call(store: SqliteStore) -> None:
    store_calls(store, [realistic_call()])
    assert [row.name for row in stats(store, NOW, NOW + HOUR_MS)][:6] == [
        "stt", "llm", "tts", "tool", "turn.user_bot_latency_ms", "turn.end_of_turn_delay_ms",
    ]  # fmt: skip


def test_unknown_group_is_refused(store: SqliteStore) -> None:
    with pytest.raises(
        ValueError, match="'colour' is no group: expected some of stage, provider, model, variant, service"
    ):
        stats(store, 0, NOW, ("colour",))
