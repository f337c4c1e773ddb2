"""Publishing what has no block: the times that are given, and events in a session or outside of any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.voicelog.strategies import ANYTHING, Awkward

import voicelog
from voicelog.errors import ConfigError
from voicelog.events import ErrorInfo, Health, LlmRequest, Log, Metric, SttResult, TtsResult
from voicelog.testing import START_US, Capture, capture

PUBLISH: dict[str, Callable[..., None]] = {
    "stt": voicelog.publish_stt_result, "llm": voicelog.publish_llm_request, "tts": voicelog.publish_tts_result,
}  # fmt: skip
HERE = {"service": "test", "host": "test-host"}
LOOSE = {"stream_id": "0000000100000000", **HERE}


def test_a_published_result_is_a_whole_event() -> None:
    with capture(step_ms=0) as captured, voicelog.session("call"), voicelog.turn("t"):
        captured.clock.advance(5000)
        voicelog.publish_stt_result(
            "hello", confidence=0.5, duration_ms=300, ago_ms=200, first_item_ms=100, provider="deepgram", channel=1
        )
    assert captured.of("stt_result") == [
        SttResult(
            stream_id="0000000200000000", seq=2, ts=START_US + 4_500_000, session_id="call", turn_id="t", stage="stt",
            duration_ms=300.0, first_item_ms=100.0, status="ok", provider="deepgram", span_id="0000000210000000",
            attributes={"channel": 1}, transcript="hello", confidence=0.5, **HERE,
        )
    ]  # fmt: skip
    assert captured.of("turn")[0].marks == {"stt_final": START_US + 4_800_000}


@pytest.mark.parametrize(("name", "cls"), [("stt", SttResult), ("llm", LlmRequest), ("tts", TtsResult)])
def test_each_result_has_its_type_and_takes_status_error_and_usage(captured: Capture, name: str, cls: type) -> None:
    with voicelog.session():
        PUBLISH[name]("text", status="interrupted", usage={"input_tokens": 3})
        PUBLISH[name](error=TimeoutError("late"))
    first, second = captured.events[1:3]
    assert (type(first), first.stage, first.status, first.usage) == (cls, name, "interrupted", {"input_tokens": 3})
    assert (second.status, second.error.type, second.error.message) == ("error", "TimeoutError", "late")


def test_a_published_result_may_name_its_turn(captured: Capture) -> None:
    with voicelog.session() as call:
        turn = call.start_turn("mine")
        call.start_turn("other")
        voicelog.publish_llm_request("yes", turn=turn)
    assert captured.of("llm_request")[0].turn_id == "mine"


def test_a_published_result_is_never_told_of_as_open(captured: Capture) -> None:
    with voicelog.session():
        voicelog.publish_llm_request("yes", duration_ms=60_000)
    assert captured.of("stage_started") == []


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"duration_ms": -1}, "publish.duration_ms"), ({"duration_ms": "1"}, "publish.duration_ms"),
        ({"ago_ms": 1e300}, "publish.ago_ms"), ({"ago_ms": float("nan")}, "publish.ago_ms"),
        ({"first_item_ms": Awkward()}, "publish.first_item_ms"), ({"status": "fine"}, "publish.status"),
        ({"status": []}, "publish.status"), ({"turn": "t1"}, "stage.turn"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_left_out_and_counted_and_the_event_kept(fields: dict[str, Any], what: str) -> None:
    with capture(strict=False) as captured, voicelog.session():
        voicelog.publish_tts_result("hi", **fields)
    assert [(e.text, e.status) for e in captured.of("tts_result")] == [("hi", "ok")]
    assert captured.counters.snapshot()["invalid"] == {what: 1}
    with capture(), voicelog.session(), pytest.raises(ConfigError, match="expected"):
        voicelog.publish_tts_result("hi", **fields)


def test_outside_of_a_session_a_result_is_counted(lenient: Capture) -> None:
    voicelog.publish_stt_result("hello")
    assert lenient.messages == []
    assert lenient.counters.snapshot()["dropped"] == {"no_session": 1}


def test_events_without_a_session_are_on_the_processes_own_stream(captured: Capture) -> None:
    voicelog.metric("depth", 3, "{event}", provider="p", room="k")
    voicelog.publish_log("slow", "warning", logger="bot", n=1)
    voicelog.health("broker", "down", since_s=3)
    voicelog.log_error(KeyError("k"), where="loop")
    metric, log, health, error = captured.events
    assert metric == Metric(
        seq=1, ts=metric.ts, name="depth", value=3.0, unit="{event}", provider="p", attributes={"room": "k"}, **LOOSE
    )
    assert log == Log(seq=2, ts=log.ts, level="WARNING", message="slow", logger="bot", attributes={"n": 1}, **LOOSE)
    assert health == Health(seq=3, ts=health.ts, component="broker", state="down", attributes={"since_s": 3}, **LOOSE)
    assert (error.seq, error.status, error.attributes) == (4, "error", {"where": "loop"})
    assert error.error == ErrorInfo(type="KeyError", message="'k'", stack="KeyError: 'k'\n")
    assert {message.key for message in captured.messages} == {b"~test/test-host"}
    assert [event.key for event in captured.events] == ["~test/test-host"] * 4


def test_events_within_a_session_are_of_its_turn(captured: Capture) -> None:
    with voicelog.session("call"), voicelog.turn("t"):
        voicelog.metric("m", 1)
        voicelog.publish_log("l")
        voicelog.health("bot", "ok")
    assert [(e.session_id, e.turn_id) for e in captured.events[1:4]] == [("call", "t")] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("m", "1"),
        ("m", None),
        ("m", float("nan")),
        ("m", float("inf")),
        ("m", 10**400),
        ("m", Awkward()),
        ("", 1),
        (5, 1),
    ],
)
def test_a_metric_that_is_no_number_or_has_no_name_is_counted(name: Any, value: Any) -> None:
    with capture(strict=False) as captured:
        voicelog.metric(name, value)
    assert captured.messages == []
    assert captured.counters.snapshot()["invalid"] == {"metric": 1}
    with capture(), pytest.raises(ConfigError, match=r"metric\(.*: expected a name and a finite number"):
        voicelog.metric(name, value)


KEYS = st.sampled_from(
    ["provider", "model", "variant", "confidence", "duration_ms", "ago_ms", "first_item_ms", "status", "error", "turn",
     "usage", "cost_usd", "audio_ms", "prompt", "x", "self", "logger_name", "user_id", "session_id", "stage"]
)  # fmt: skip


@given(ANYTHING, ANYTHING, ANYTHING, st.dictionaries(KEYS, ANYTHING, max_size=4), st.booleans())
def test_whatever_is_published_can_be_read_and_nothing_raises(
    a: Any, b: Any, c: Any, fields: dict[str, Any], in_session: bool
) -> None:
    with capture(strict=False, capture_content="all") as captured:
        call = voicelog.session("call")
        if in_session:
            call.start()
        for publish in PUBLISH.values():
            publish(a, **fields)
        voicelog.metric(a, b, c, **fields)
        voicelog.publish_log(a, b, logger=c, **fields)
        voicelog.log_error(a, **fields)
        voicelog.health(a, b, **{name: value for name, value in fields.items() if name != "status"})
        call.end()
        kinds = [event.TYPE for event in captured.events]
        assert {"log", "error", "health"} <= set(kinds)
        if in_session:
            assert kinds[:4] == ["session_started", "stt_result", "llm_request", "tts_result"]
            assert captured.of("session_ended")[0].events_total == len(kinds)
        assert captured.counters.snapshot()["faults"] == {}


def test_switched_off_nothing_happens_and_nothing_is_read() -> None:
    for publish in PUBLISH.values():
        publish(Awkward(), duration_ms=Awkward())
    voicelog.metric(Awkward(), Awkward(), Awkward())  # type: ignore[arg-type]
    voicelog.publish_log(Awkward(), Awkward())  # type: ignore[arg-type]
    voicelog.log_error(Awkward())  # type: ignore[arg-type]
    voicelog.health(Awkward(), Awkward())  # type: ignore[arg-type]
    assert voicelog.stats()["enabled"] is False


def test_without_a_duration_there_is_none_and_no_mark_of_a_start(voicelog_capture: Capture) -> None:
    """A missing value is null, never 0: it must not be averaged in."""
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark("user_speech_end")
        voicelog.publish_stt_result("hello")
        voicelog.publish_llm_request("well", first_item_ms=120)
    (stt,), (llm,), (ended,) = (voicelog_capture.of(kind) for kind in ("stt_result", "llm_request", "turn"))
    assert (stt.duration_ms, stt.first_item_ms) == (None, None)
    assert (llm.duration_ms, llm.first_item_ms) == (None, 120.0)
    assert set(ended.marks) == {"user_speech_end", "stt_final"}


def test_first_item_after_the_end_is_left_out(voicelog_capture: Capture) -> None:
    with voicelog.session(), pytest.raises(ConfigError, match=r"first_item_ms=300.*expected at most duration_ms=200"):
        voicelog.publish_llm_request("well", duration_ms=200, first_item_ms=300)
