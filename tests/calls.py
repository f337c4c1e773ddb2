"""Calls for the broker: events of every kind, dated now, so that no time to live has run out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from tests.running import Raw, message_of
from voicelog.events import (
    Contribution,
    Error,
    ErrorInfo,
    Event,
    Figure,
    LlmRequest,
    Log,
    Metric,
    SessionEnded,
    SessionStarted,
    StageEvent,
    SttResult,
    TtsResult,
    Turn,
)

STACK = 'Traceback (most recent call last):\n  File "bot.py", line 3, in look_up\nTimeoutError: 2 s\n'
PARTS = [Contribution(key="transcription", us=120_000, owner="service", stage="stt"),
         Contribution(key="llm_ttft", us=300_000, owner="service", stage="llm")]  # fmt: skip


def a_call(session_id: str, events: int = 25, start_us: int | None = None) -> list[Event]:
    """Return a call of this many events of every kind, a millisecond apart and in order."""
    begin_us = int(time.time() * 1e6) if start_us is None else start_us
    who = {
        "session_id": session_id, "stream_id": f"st-{session_id}", "service": "front-desk", "host": "bot-0",
        "user_id": "u-1", "variant": "b",
    }  # fmt: skip
    middle = [_event(seq, {**who, "seq": seq, "ts": begin_us + seq * 1000}) for seq in range(2, events)]
    started = SessionStarted(**who, seq=1, ts=begin_us, attributes={"tenant": "acme", "tags": ["x", 1, None]})
    ended = SessionEnded(**who, seq=events, ts=begin_us + events * 1000, events_total=events, duration_ms=events * 1.0)
    return [started, *middle, ended]


def calls(count: int, events: int = 25) -> list[Event]:
    """Return the events of `count` calls, as bots that talk at once send them: one of each call in turn."""
    return [
        event
        for together in zip(*(a_call(f"call-{n}", events) for n in range(count)), strict=True)
        for event in together
    ]


def messages(events: Iterable[Event]) -> list[Raw]:
    """Return the events as messages."""
    return [message_of(event) for event in events]


def _event(seq: int, common: dict[str, Any]) -> Event:
    timed = {
        **common,
        "turn_id": f"t{seq // 8}",
        "duration_ms": seq + 0.5,
        "status": "ok",
        "provider": "acme",
        "model": "m-1",
    }
    kind = seq % 8
    if kind == 0:
        return SttResult(
            **timed, stage="stt", transcript=f"grüß Gott {seq}", confidence=0.93, is_final=True, audio_ms=900.0
        )
    if kind == 1:
        usage = {"input_tokens": 210.0, "output_tokens": 31.0}
        return LlmRequest(
            **timed, stage="llm", response=f"answer {seq}", first_item_ms=7.25, items=31, usage=usage,
            parameters={"temperature": 0.2}, finish_reason="stop", cost_usd=0.00012,
        )  # fmt: skip
    if kind == 2:
        return TtsResult(**timed, stage="tts", text="answer", voice="v", characters=6, bytes=9_600, first_item_ms=80.0)
    if kind == 3:
        return StageEvent(**timed, stage="vad", span_id="00000000000000aa", attributes={"level": -30.5})
    if kind == 4:
        failed = {
            **timed,
            "status": "error",
            "error": ErrorInfo(type="builtins.TimeoutError", message="2 s", stack=STACK),
        }
        return StageEvent(**failed, stage="tool")
    if kind == 5:
        return Log(**common, level="WARNING", message="slow", logger="bot")
    if kind == 6:
        return Metric(**common, name="queue.depth", value=float(seq), unit="1")
    figures = {"user_bot_latency_ms": Figure(value_ms=420.0, anchor="vad")}
    return Turn(
        **common, turn_id=f"t{seq // 8}", turn_number=1 + seq // 8, user_bot_latency_ms=420.0, contributions=PARTS,
        figures=figures, quality="ok", anchor="vad", unattributed_ms=0.0, marks={"stt_final": common["ts"] + 5},
    )  # fmt: skip


def an_error(seq: int) -> Error:
    """Return an error outside of any call."""
    error = ErrorInfo(type="builtins.OSError", message="no disk", stack=STACK)
    return Error(
        stream_id="process-1", seq=seq, ts=int(time.time() * 1e6), service="front-desk", host="bot-0", error=error
    )
