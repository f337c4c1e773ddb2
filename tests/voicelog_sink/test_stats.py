"""Percentiles by group, from rollups; against a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder, realistic_call, roll_up, sqlite_store, store_calls

from voicelog.events import Figure, Metric, Turn
from voicelog_sink.errors import SinkError
from voicelog_sink.percentiles import percentiles
from voicelog_sink.sketch import RELATIVE_ERROR
from voicelog_sink.stats import Percentiles, StatsRow, stats
from voicelog_sink.stores.base import Row
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
    assert row == StatsRow(
        name="llm", kind="stage", group={}, count=103, per_minute=103 / 60, errors=1, excluded=3, unit=None, value=None,
        cost_usd=1.0,
        duration_ms=near(100, 50, 90, 95, 99),
        first_item_ms=near(100, 5, 9, 9.5, 9.9),
    )  # fmt: skip


def near(count: int, *values: float) -> Any:
    """Return percentiles that are equal to those within the sketch's error."""
    p50, p90, p95, p99 = (pytest.approx(value, rel=RELATIVE_ERROR) for value in values)
    return Percentiles(count=count, p50=p50, p90=p90, p95=p95, p99=p99)


def test_figure_counts_by_its_own_quality(store: SqliteStore) -> None:
    call = CallBuilder()
    for value_ms, quality in ((700.0, "ok"), (9000.0, "interrupted"), (None, "clock_suspect")):
        figures = {
            "user_bot_latency_ms": Figure(value_ms=value_ms, quality=quality),
            "llm_ttft_ms": Figure(value_ms=9.0),
        }
        call.add(Turn, value_ms or 0, figures=figures, status="interrupted")
    store_calls(store, [call])
    shared = {"kind": "turn", "group": {}, "count": 3, "per_minute": 0.05, "errors": 0, "unit": "ms"}
    absent = {"duration_ms": None, "first_item_ms": None, "cost_usd": None}
    assert stats(store, NOW, NOW + HOUR_MS) == [
        StatsRow(name="turn.user_bot_latency_ms", excluded=2, value=same(700.0), **shared, **absent),
        StatsRow(name="turn.llm_ttft_ms", excluded=0, value=same(9.0, 3), **shared, **absent),
    ]


def test_metric_without_a_session_is_there(store: SqliteStore) -> None:
    call = CallBuilder()
    call.add(Metric, 0, name="queue_depth", value=3.0, unit="1", session_id=None)
    roll_up(store, call.events)
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


def test_time_bounds_hold_to_the_minute_within_and_across_hours_and_days(store: SqliteStore) -> None:
    call = CallBuilder()
    for hour in range(50):
        call.stage("vad", hour * HOUR_MS, 1)
    store_calls(store, [call])
    spans = ((0, 1), (0, 3 * HOUR_MS), (60_000, 3 * HOUR_MS + 1), (59_999, HOUR_MS), (50 * HOUR_MS, 90 * HOUR_MS),
             (HOUR_MS, 49 * HOUR_MS), (-9000 * HOUR_MS, 200 * HOUR_MS))  # fmt: skip
    counts = [sum(row.count for row in stats(store, NOW + since, NOW + until)) for since, until in spans]
    assert counts == [1, 3, 3, 1, 0, 48, 50]


def test_rate_is_over_the_period_until_the_present(store: SqliteStore) -> None:
    call = CallBuilder()
    for minute in range(30):
        call.stage("vad", minute * 60_000, 1)
    store_calls(store, [call])
    rates = [
        stats(store, NOW - 30 * 60_000, NOW + 40 * HOUR_MS, now_ms=NOW + minutes * 60_000)[0].per_minute
        for minutes in (30, 90)
    ]
    assert rates == [0.5, 0.25]


def test_only_the_names_that_were_asked_for_are_read(store: SqliteStore) -> None:
    store_calls(store, [realistic_call()])
    found = stats(store, NOW, NOW + HOUR_MS, only=("llm", "turn.user_bot_latency_ms"))
    assert [row.name for row in found] == ["llm", "turn.user_bot_latency_ms"]


def test_rollup_of_a_newer_version_is_told_with_its_name(store: SqliteStore) -> None:
    call = CallBuilder()
    call.stage("llm", 0, 5)
    store_calls(store, [call])
    (row,) = store.select("metric_rollups", [{"name": "llm.duration_ms", "tier": "minute", "period": "2026-11-22T10"}])
    store.write([Row("metric_rollups", {**row, "sketch": b"\x91\x02", "rows_read": 9})])
    with pytest.raises(SinkError, match=r"^llm.duration_ms, by minute: a rollup that is not of format 1"):
        stats(store, NOW, NOW + 60_000)


class Measured:
    """A store, and what its rollups were made from: milliseconds, status, variant, value. Its repr is short."""

    def __init__(self, store: SqliteStore, values: list[tuple[int, str, str, float]]) -> None:
        self.store = store
        self.values = values


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """Some days of llm stages: many in some minutes, few in others, from microseconds to hours, some of them failed."""
    random, call, values = Random(1), CallBuilder(), []
    store = sqlite_store(tmp_path_factory.mktemp("stats") / "calls.db")
    for _ in range(60):
        burst_ms = random.randrange(4 * 24 * HOUR_MS)
        for _ in range(random.choice((1, 5, 60))):
            at_ms = burst_ms + random.randrange(200_000)
            status, variant = random.choice(("ok", "ok", "error")), random.choice("ab")
            value = random.choice((0.0, random.lognormvariate(6, 1), random.uniform(0.001, 1e7)))
            call.stage("llm", at_ms, value, status=status, variant=variant)
            values.append((NOW + at_ms, status, variant, value))
    roll_up(store, call.events)
    yield Measured(store, values)
    store.close()


MOMENTS = st.integers(-HOUR_MS, 5 * 24 * HOUR_MS)


@given(MOMENTS, MOMENTS)
@settings(max_examples=60, deadline=None)
def test_percentiles_of_any_period_are_within_the_stated_error_of_the_exact_ones(
    measured: Measured, one: int, other: int
) -> None:
    """However the period falls into minutes, hours and days."""
    since, until = sorted((NOW + one, NOW + other))
    first = since // 60_000 * 60_000
    end = -(-until // 60_000) * 60_000 if since < until else first
    expected = {}
    for variant in "ab":
        rows = [row for row in measured.values if first <= row[0] < end and row[2] == variant]
        ok = [value for _, status, _, value in rows if status == "ok"]
        exact = near(len(ok), *percentiles(ok, (50, 90, 95, 99))) if ok else None
        if rows:
            expected[variant] = len(rows), len(rows) - len(ok), exact
    found = {row.group["variant"]: row for row in stats(measured.store, since, until, ("variant",))}
    assert {key: (row.count, row.errors, row.duration_ms) for key, row in found.items()} == expected


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
