"""One call's summary from its events."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder, realistic_call, troubled_call
from tests.strategies import events

from voicelog.events import INT64_MAX, Error, ErrorInfo, Event, Log, Turn, shard_of
from voicelog_sink.stores.base import Row
from voicelog_sink.summary import Summary, summarise, summary_of, summary_rows
from voicelog_sink.tables import SESSION_SUMMARIES, SESSIONS_BY_DAY

START_MS = START_US // 1000


def summary_for(events: list[Event]) -> Summary:
    summary = summarise(events)
    assert summary is not None
    return summary


def fields(summary: Summary, *names: str) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in names}


def test_no_events_have_no_summary() -> None:
    assert summarise([]) is None


def test_whole_call_is_summed_up() -> None:
    call = CallBuilder("call-1", user_id="u-7", variant="b")
    call.started(attributes={"tenant": "acme"})
    call.stage("stt", 100, 900, provider="deepgram", model="nova-3", audio_ms=850.0, cost_usd=0.1)
    call.stage("stt", 100, 400, provider="deepgram", model="nova-3", audio_ms=400.0, is_final=False)
    call.stage(
        "llm",
        1000,
        700,
        provider="openai",
        model="gpt",
        usage={"input_tokens": 20.0, "output_tokens": 5.0},
        cost_usd=0.2,
    )
    call.stage("tts", 1500, 300, provider="cartesia", characters=31, cost_usd=0.3)
    call.stage("tool", 1100, 50, status="error", error=ErrorInfo(type="ValueError"))
    call.add(Error, 1600, error=ErrorInfo(type="OSError"))
    call.add(Log, 1601, level="ERROR", message="a log is no error of the call")
    call.add(Turn, 90, duration_ms=2000.0, user_bot_latency_ms=800.0, quality="ok", was_interrupted=True)
    call.ended(2500, disconnect_reason="user_hangup")
    assert summary_for(call.events) == Summary(
        session_id="call-1", started_at=START_MS, ended_at=START_MS + 2500, duration_ms=2500.0, service="front-desk",
        host="bot-1", user_id="u-7", variant="b", providers=("cartesia", "deepgram", "openai"),
        models=("gpt", "nova-3"), turns=1, errors=2, interruptions=1, slow_turns=0, user_bot_latency_p50_ms=800.0,
        user_bot_latency_max_ms=800.0, excluded_turns=0, input_tokens=20, output_tokens=5, characters=31,
        audio_ms=850.0, cost_usd=0.6, unpriced=0, expected=10, received=10, missing=0, completeness="complete",
        disconnect_reason="user_hangup", attributes={"tenant": "acme"}, rows_read=10,
        streams=summary_for(call.events).streams,
    )  # fmt: skip


@given(st.randoms())
def test_first_that_was_said_of_a_call_counts_and_the_last_reason_for_its_end(random: Random) -> None:
    first = CallBuilder("call-1", service="edge", host="h1", variant="a", user_id=None)
    second = CallBuilder("call-1", stream_id="other", service="core", host="h2", variant="b", user_id="u-1")
    first.started(0, attributes={"tenant": "acme", "line": 1}), first.ended(80, disconnect_reason="timeout")
    (
        second.started(10, attributes={"tenant": "late", "shift": "night"}),
        second.ended(90, disconnect_reason="user_hangup"),
    )
    shuffled = first.events + second.events
    random.shuffle(shuffled)
    said = ("service", "host", "variant", "user_id", "disconnect_reason", "attributes", "ended_at")
    assert fields(summary_for(shuffled), *said) == {
        "service": "edge", "host": "h1", "variant": "a", "user_id": "u-1", "disconnect_reason": "user_hangup",
        "attributes": {"tenant": "acme", "line": 1, "shift": "night"}, "ended_at": START_MS + 90,
    }  # fmt: skip


def test_event_counted_zero_by_a_foreign_producer_hides_no_gap() -> None:
    call = CallBuilder()
    call.add(Log, 0, level="INFO", message="m", seq=0), call.add(Log, 1, level="INFO", message="m", seq=2)
    assert summary_for(call.events).missing == 1


@given(st.permutations(realistic_call(turns=2).events + troubled_call("call-1").events))
def test_order_of_events_changes_nothing(shuffled: list[Event]) -> None:
    assert summarise(shuffled) == summarise(realistic_call(turns=2).events + troubled_call("call-1").events)


@given(st.lists(events(session_id=st.just("call-1")), min_size=1, max_size=8))
def test_any_events_have_a_summary_that_comes_back_from_its_row(events: list[Event]) -> None:
    summary = summary_for(events)
    assert summary_of(summary_rows(summary)[0].values) == summary
    assert summary.rows_read == len(events)
    assert summary.missing == min(sum(stream.missing for stream in summary.streams), INT64_MAX)


@given(st.sets(st.integers(1, 30), max_size=30))
def test_what_is_lost_of_an_ended_stream_is_counted_exactly(lost: set[int]) -> None:
    call = CallBuilder()
    for at in range(30):
        call.stage("vad", at, 1)
    call.ended(31)
    summary = summary_for([event for event in call.events if event.seq not in lost])
    assert fields(summary, "expected", "received", "missing", "completeness") == {
        "expected": 31, "received": 31 - len(lost), "missing": len(lost),
        "completeness": "missing" if lost else "complete",
    }  # fmt: skip


def test_stream_without_an_end_is_unknown_even_without_a_gap() -> None:
    call = CallBuilder()
    call.started()
    call.stage("stt", 10, 5)
    summary = summary_for(call.events)
    assert fields(summary, "completeness", "expected", "missing", "ended_at", "duration_ms") == {
        "completeness": "unknown", "expected": 2, "missing": 0, "ended_at": None, "duration_ms": 15.0,
    }  # fmt: skip


def test_gap_in_a_stream_without_an_end_is_proven_missing() -> None:
    call = CallBuilder()
    for at in range(4):
        call.stage("vad", at, 1)
    summary = summary_for([event for event in call.events if event.seq != 2])
    assert fields(summary, "completeness", "missing") == {"completeness": "missing", "missing": 1}


def test_one_stream_without_an_end_makes_the_call_unknown() -> None:
    ended, open_ = CallBuilder(), CallBuilder(stream_id="other", host="bot-2")
    ended.started(), ended.ended(50)
    open_.started(20)
    summary = summary_for(ended.events + open_.events)
    assert fields(summary, "completeness", "ended_at", "expected") == {
        "completeness": "unknown", "ended_at": None, "expected": 3,
    }  # fmt: skip
    assert [(stream.stream_id, stream.ended, stream.host) for stream in summary.streams] == [
        ("5f3a9c0e1b2d4f67", True, "bot-1"), ("other", False, "bot-2"),
    ]  # fmt: skip


def test_event_after_the_end_is_expected_too() -> None:
    call = CallBuilder()
    call.started(), call.ended(10), call.stage("tts", 5, 20)
    assert fields(summary_for(call.events), "expected", "received", "completeness") == {
        "expected": 3, "received": 3, "completeness": "complete",
    }  # fmt: skip


@pytest.mark.parametrize("quality", ["interrupted", "no_anchor", "clock_suspect", "estimated"])
def test_latency_that_is_not_ok_is_excluded_and_counted(quality: str) -> None:
    call = CallBuilder()
    call.add(Turn, 0, user_bot_latency_ms=700.0, quality="ok")
    call.add(Turn, 1, user_bot_latency_ms=90_000.0, quality=quality)
    call.add(Turn, 2, quality="no_anchor")
    figures = ("user_bot_latency_p50_ms", "user_bot_latency_max_ms", "slow_turns")
    assert fields(summary_for(call.events), "turns", "excluded_turns", *figures) == {
        "turns": 3, "excluded_turns": 2, "user_bot_latency_p50_ms": 700.0, "user_bot_latency_max_ms": 700.0,
        "slow_turns": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("latency_ms", "slow"), [(1999.999, 0), (2000.0, 1)])
def test_turn_is_slow_from_two_seconds_on(latency_ms: float, slow: int) -> None:
    call = CallBuilder()
    call.add(Turn, 0, user_bot_latency_ms=latency_ms, quality="ok")
    assert summary_for(call.events).slow_turns == slow
    other = summarise(call.events, slow_turn_ms=1000)
    assert other is not None
    assert other.slow_turns == 1


def test_what_nobody_reported_is_absent_and_not_zero() -> None:
    call = CallBuilder(service=None, host=None)
    call.stage("vad", 0, 1)
    absent = (
        "service",
        "user_id",
        "variant",
        "user_bot_latency_p50_ms",
        "input_tokens",
        "characters",
        "audio_ms",
        "cost_usd",
        "attributes",
    )
    assert fields(summary_for(call.events), *absent) == dict.fromkeys(absent)


def test_stage_whose_usage_has_no_price_is_counted() -> None:
    call = CallBuilder()
    call.stage("llm", 0, 1, usage={"input_tokens": 5.0}, cost_usd=0.25)
    call.stage("llm", 1, 1, usage={"input_tokens": 5.0})
    call.stage("llm", 2, 1, usage={"input_tokens": 0.0}, cost_usd=0.0)
    call.stage("vad", 3, 1)
    assert fields(summary_for(call.events), "cost_usd", "unpriced") == {"cost_usd": 0.25, "unpriced": 1}


def test_sums_too_large_for_a_column_do_not_fail() -> None:
    call = CallBuilder()
    for at in range(3):
        call.stage("llm", at, 1, usage={"input_tokens": 1.7e308}, cost_usd=1.7e308)
    summary = summary_for([*call.events, attrs.evolve(call.events[0], seq=INT64_MAX, stream_id="a"),
                           attrs.evolve(call.events[0], seq=INT64_MAX, stream_id="b")])  # fmt: skip
    assert fields(summary, "input_tokens", "expected", "missing") == dict.fromkeys(
        ("input_tokens", "expected", "missing"), INT64_MAX
    )


def test_list_row_is_under_the_day_and_shard_of_the_start() -> None:
    call = CallBuilder("call-9", start_us=START_US - 10 * 3_600_000_000 - 1000)
    call.started(), call.ended(5000)
    row = summary_rows(summary_for(call.events))[1]
    assert row.table == "sessions_by_day"
    assert {name: row.values[name] for name in SESSIONS_BY_DAY.key} == {
        "day": "2026-11-21", "shard": shard_of("call-9"), "started_at": START_MS - 36_000_001, "session_id": "call-9",
    }  # fmt: skip


def test_rows_have_every_column() -> None:
    rows: list[Row] = summary_rows(summary_for(troubled_call().events))
    assert [set(row.values) for row in rows] == [set(SESSION_SUMMARIES.columns), set(SESSIONS_BY_DAY.columns)]
