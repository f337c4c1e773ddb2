"""What an event becomes in the store."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from tests.builders import START_US, CallBuilder, health
from tests.strategies import events, names

from voicelog.errors import DecodeError
from voicelog.events import Error, ErrorInfo, Event, Figure, Log, Metric, StageEvent, StageStarted, Turn, shard_of
from voicelog.wire import decode, encode, read
from voicelog_sink.rows import day_of, event_of, hour_of, is_expired, rows_of
from voicelog_sink.stores.base import Row
from voicelog_sink.tables import BOOL, INT, REAL, SMALL, TABLES, TEXT, TIME

PYTHON = {TEXT: str, INT: int, SMALL: int, TIME: int, REAL: (int, float), BOOL: bool}


def tables_of(event: Event) -> list[str]:
    return [row.table for row in rows_of(event)]


@given(events(session_id=names))
def test_event_comes_back_from_its_row_exactly(event: Event) -> None:
    assert event_of(rows_of(event)[0].values) == event


@given(events(session_id=names))
def test_event_comes_back_from_a_row_with_its_absent_columns_as_none(event: Event) -> None:
    whole = dict.fromkeys(TABLES["voice_interactions"].columns) | rows_of(event)[0].values
    assert event_of(whole) == event


@given(events())
def test_every_event_becomes_rows_with_whole_keys_and_known_columns_of_the_right_type(event: Event) -> None:
    rows = rows_of(event)
    assert rows
    for table, values in rows:
        columns = TABLES[table].columns
        assert all(isinstance(value, PYTHON[columns[name]]) for name, value in values.items())
        assert all(values.get(name) is not None for name in TABLES[table].key)


@given(events())
def test_same_message_twice_makes_the_same_rows(event: Event) -> None:
    assert rows_of(decode(encode(event).value)) == rows_of(decode(encode(event).value)) == rows_of(event)


@given(events())
def test_what_the_wire_reads_fast_becomes_the_same_rows(event: Event) -> None:
    assert rows_of(read(encode(event).value)) == rows_of(event)


@given(events())
def test_rows_of_one_event_have_different_keys(event: Event) -> None:
    keys = [(row.table, *(row.values[name] for name in TABLES[row.table].key)) for row in rows_of(event)]
    assert len(set(keys)) == len(keys)


def test_finished_stage_is_an_interaction_and_a_measurement() -> None:
    event = CallBuilder("call-1").stage(
        "llm", 1.5, 812.25, first_item_ms=301.5, provider="openai", model="gpt-4o-mini", turn_id="t1", variant="b",
        usage={"input_tokens": 12.0}, parameters={"temperature": 0.5}, cost_usd=0.01,
    )  # fmt: skip
    shard = shard_of("call-1")
    place = {"ts": START_US // 1000 + 1, "ts_us": START_US + 1500, "stream_id": "5f3a9c0e1b2d4f67", "seq": 1}
    shared = {
        **place, "session_id": "call-1", "turn_id": "t1", "type": "llm_request", "duration_ms": 812.25,
        "first_item_ms": 301.5, "status": "ok", "service": "front-desk", "host": "bot-1", "provider": "openai",
        "model": "gpt-4o-mini", "variant": "b", "cost_usd": 0.01,
    }  # fmt: skip
    interaction = {
        **shared, "v": 1, "stage": "llm", "stage_hour": f"llm#2026-11-22T10#{shard:02d}",
        "usage": '{"input_tokens":12.0}', "parameters": '{"temperature":0.5}',
    }  # fmt: skip
    measurement = {**shared, "name": "llm", "hour": "2026-11-22T10", "shard": shard}
    assert rows_of(event) == [Row("voice_interactions", interaction), Row("performance_metrics", measurement)]


def test_event_without_a_stage_has_no_stage_hour() -> None:
    assert "stage_hour" not in rows_of(CallBuilder().started())[0].values


def test_turn_makes_one_measurement_a_figure() -> None:
    figures = {
        "user_bot_latency_ms": Figure(value_ms=812.0, anchor="vad"),
        "llm_ttft_ms": Figure(value_ms=250.0, quality="interrupted"),
        "tts_ttfb_ms": Figure(value_ms=None, quality="clock_suspect"),
    }
    event = CallBuilder("call-1").add(Turn, 0, turn_id="t1", figures=figures, user_bot_latency_ms=812.0)
    shared = {
        "hour": "2026-11-22T10", "shard": shard_of("call-1"), "ts": START_US // 1000, "ts_us": START_US,
        "stream_id": "5f3a9c0e1b2d4f67", "seq": 1, "type": "turn", "unit": "ms", "session_id": "call-1",
        "turn_id": "t1", "service": "front-desk", "host": "bot-1",
    }  # fmt: skip
    assert [row.values for row in rows_of(event)[1:]] == [
        {**shared, "name": "turn.user_bot_latency_ms", "value": 812.0, "quality": "ok", "anchor": "vad"},
        {**shared, "name": "turn.llm_ttft_ms", "value": 250.0, "quality": "interrupted"},
        {**shared, "name": "turn.tts_ttfb_ms", "quality": "clock_suspect"},
    ]


def test_metric_without_a_session_is_only_a_measurement() -> None:
    event = Metric(stream_id="s", seq=1, ts=START_US, name="queue_depth", value=3.0, unit="1", service="bot", host="h")
    assert rows_of(event) == [
        Row(
            "performance_metrics",
            {
                "name": "queue_depth", "hour": "2026-11-22T10", "shard": shard_of("~bot/h"), "ts": START_US // 1000,
                "ts_us": START_US, "stream_id": "s", "seq": 1, "type": "metric", "value": 3.0, "unit": "1",
                "service": "bot", "host": "h",
            },
        )
    ]  # fmt: skip


def test_failed_stage_is_an_error_too_and_other_endings_are_none() -> None:
    call, error = CallBuilder(), ErrorInfo(type="TimeoutError", message="too late", stack="Traceback ...")
    failed = call.stage("tool", 0, 5, status="error", error=error, attributes={"tool": "x"})
    assert tables_of(failed) == ["voice_interactions", "performance_metrics", "error_logs"]
    logged = rows_of(failed)[2].values
    assert {name: logged[name] for name in ("level", "error_type", "error_message", "error_stack", "attributes")} == {
        "level": "ERROR", "error_type": "TimeoutError", "error_message": "too late", "error_stack": "Traceback ...",
        "attributes": '{"tool":"x"}',
    }  # fmt: skip
    for status in ("ok", "interrupted", "cancelled"):
        assert tables_of(call.stage("tool", 0, 5, status=status)) == ["voice_interactions", "performance_metrics"]


def test_stage_that_is_still_open_is_no_measurement() -> None:
    assert tables_of(CallBuilder().add(StageStarted, 0, stage="llm")) == ["voice_interactions"]


@pytest.mark.parametrize(
    ("level", "logged"),
    [("DEBUG", False), ("info", False), ("WARNING", True), ("error", True), ("CRITICAL", True), ("NOTICE", True)],
)
def test_logs_from_warning_up_are_errors(level: str, logged: bool) -> None:
    event = CallBuilder().add(Log, 0, level=level, message="m")
    assert tables_of(event) == ["voice_interactions"] + ["error_logs"] * logged


def test_quiet_log_without_a_session_is_kept_in_the_only_table_it_has() -> None:
    event = Log(stream_id="s", seq=1, ts=START_US, level="INFO", message="up", logger="bot")
    assert rows_of(event) == [
        Row(
            "error_logs",
            {
                "service": "", "hour": "2026-11-22T10", "shard": shard_of("~/"), "ts": START_US // 1000,
                "ts_us": START_US, "stream_id": "s", "seq": 1, "type": "log", "level": "INFO", "message": "up",
                "logger": "bot",
            },
        )
    ]  # fmt: skip


def test_error_event_is_an_error() -> None:
    event = CallBuilder().add(Error, 0, error=ErrorInfo(type="ValueError"))
    assert tables_of(event) == ["voice_interactions", "error_logs"]
    assert rows_of(event)[1].values["level"] == "ERROR"


def test_health_has_its_attributes_as_details_and_an_absent_host_as_empty() -> None:
    event = health(host=None, attributes={"lag": 3})
    assert rows_of(event) == [
        Row(
            "system_health",
            {
                "component": "sink", "host": "", "day": "2026-11-22", "ts": START_US // 1000, "ts_us": START_US,
                "stream_id": "00000001feedbeef", "seq": 1, "service": "voicelog-sink", "state": "ok",
                "details": '{"lag":3}',
            },
        )
    ]  # fmt: skip


def test_stt_result_without_a_stage_is_measured_under_its_usual_name() -> None:
    event = attrs.evolve(CallBuilder().stage("stt", 0, 5), stage=None)
    assert rows_of(event)[1].values["name"] == "stt"
    assert event_of(rows_of(event)[0].values) == event


def test_attributes_nested_too_deeply_are_refused_with_the_reason() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    event = CallBuilder().add(StageEvent, 0, attributes={"deep": deep})
    with pytest.raises(DecodeError, match="nested too deeply") as caught:
        rows_of(event)
    assert caught.value.reason == "invalid_field"


def test_event_expires_exactly_when_its_days_are_over() -> None:
    event, day_ms = CallBuilder().started(), 86_400_000
    assert not is_expired(event, START_US // 1000 + 90 * day_ms - 1, 90 * day_ms)
    assert is_expired(event, START_US // 1000 + 90 * day_ms, 90 * day_ms)


def test_hours_and_days_are_utc() -> None:
    assert hour_of(START_US - 1) == "2026-11-22T09"
    assert day_of(START_US - 10 * 3_600_000_000 - 1) == "2026-11-21"
