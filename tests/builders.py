"""Events for tests: one call event by event, and whole calls that look like real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from voicelog.events import (
    Error,
    ErrorInfo,
    Event,
    Health,
    LlmRequest,
    Log,
    Metric,
    SessionEnded,
    SessionStarted,
    StageEvent,
    StageStarted,
    SttResult,
    TtsResult,
    Turn,
)
from voicelog.latency import measure
from voicelog.marks import Interval
from voicelog.settings import load
from voicelog_sink.rollup_work import RollupWork
from voicelog_sink.rollups import Rollups
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Store
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.summary import summarise, summary_rows

START_US = 1_795_341_600_000_000
"""2026-11-22T10:00:00Z: where a call begins unless told otherwise."""

STACK = """Traceback (most recent call last):
  File "/app/bot.py", line 41, in look_up
    row = await bookings.find(date=date, party=party)
  File "/app/bookings.py", line 118, in find
    async with self._pool.acquire(timeout=2) as connection:
  File "/usr/lib/python3.11/asyncio/timeouts.py", line 111, in __aexit__
    raise TimeoutError from exc_val
TimeoutError: no free connection within 2 s
"""


class CallBuilder:
    """One stream of a call; moments are milliseconds from its start. `events` holds all that were made, in order."""

    def __init__(
        self,
        session_id: str = "call-1",
        *,
        stream_id: str = "5f3a9c0e1b2d4f67",
        start_us: int = START_US,
        **who: Any,
    ) -> None:
        """Set what all events share; `who` adds to or replaces service and host."""
        self.session_id = session_id
        self.stream_id = stream_id
        self.start_us = start_us
        self.base = {"service": "front-desk", "host": "bot-1", **who}
        self.events: list[Event] = []

    def us(self, at_ms: float) -> int:
        """Return the moment as epoch microseconds."""
        return self.start_us + round(at_ms * 1000)

    def add(self, cls: type[Event], at_ms: float, **fields: Any) -> Event:
        """Make the stream's next event."""
        own = {"session_id": self.session_id, "stream_id": self.stream_id, "seq": len(self.events) + 1}
        event = cls(**{**self.base, **own, "ts": self.us(at_ms), **fields})
        self.events.append(event)
        return event

    def started(self, at_ms: float = 0, **fields: Any) -> Event:
        """Make a session_started."""
        return self.add(SessionStarted, at_ms, **fields)

    def ended(self, at_ms: float, **fields: Any) -> Event:
        """Make a session_ended that carries the stream's total."""
        given = {"events_total": len(self.events) + 1, "duration_ms": float(at_ms), "status": "ok", **fields}
        return self.add(SessionEnded, at_ms, **given)

    def stage(self, name: str, at_ms: float, duration_ms: float, **fields: Any) -> Event:
        """Make a finished stage of the class that fits its name."""
        cls = {"stt": SttResult, "llm": LlmRequest, "tts": TtsResult}.get(name, StageEvent)
        return self.add(cls, at_ms, stage=name, duration_ms=float(duration_ms), **{"status": "ok", **fields})

    def turn(self, at_ms: float, duration_ms: float, marks_ms: dict[str, float], **fields: Any) -> Event:
        """Make a turn from its marks and the stages of the same turn_id that are there already."""
        turn_id = fields.get("turn_id")
        marks = {name: self.us(at) for name, at in marks_ms.items()}
        stages = [
            Interval(e.stage, e.ts, e.ts + round((e.duration_ms or 0) * 1000), _first_us(e), e.status or "ok")
            for e in self.events
            if e.stage and e.turn_id == turn_id and not isinstance(e, StageStarted)
        ]
        latency = measure(marks, stages, "vad")
        measured = {
            "marks": marks, "figures": latency.figures, "contributions": latency.contributions,
            "user_bot_latency_ms": latency.user_bot_latency_ms, "unattributed_ms": latency.unattributed_ms,
            "anchor": "vad", "quality": latency.quality, "was_interrupted": False, "end_reason": "completed",
        }  # fmt: skip
        return self.add(Turn, at_ms, duration_ms=float(duration_ms), **{**measured, **fields})


def _first_us(event: Event) -> int | None:
    return None if event.first_item_ms is None else event.ts + round(event.first_item_ms * 1000)


SAID = (
    ("Hi, do you have a table for two tonight?", ("Good evening!", "Let me see what is free tonight.")),
    ("Around eight, if that's possible.", ("At eight there is one table left, by the window.", "Shall I book it?")),
    ("Yes please. The name is Okafor.", ("Done, a table for two at eight for Okafor.", "Anything else I can do?")),
    ("Is there parking nearby?", ("There is a garage across the street,", "and it is free for our guests.")),
    ("Great, that's all. Bye!", ("See you at eight. Goodbye!",)),
)
PRICES = {"gpt-4o-mini": 0.00021, "gpt-4.1-nano": 0.00009}


def realistic_call(
    session_id: str = "call-1", *, seed: int = 1, turns: int = 5, model: str = "gpt-4o-mini", **who: Any
) -> CallBuilder:
    """Return a whole call at a restaurant's front desk: speech recognised while it is spoken, tools, sentences."""
    random = Random(seed)
    call = CallBuilder(session_id, stream_id=f"{seed:08x}0b5e7a11", **who)
    call.started(attributes={"tenant": "trattoria", "channel": "phone"})
    at = 400.0
    for number in range(1, turns + 1):
        at = _turn(call, random, number, at, model)
    call.ended(at, disconnect_reason="user_hangup")
    return call


def _turn(call: CallBuilder, random: Random, number: int, at: float, model: str) -> float:
    said, answers = SAID[(number - 1) % len(SAID)]
    turn_id = f"{call.stream_id[:6]}-{number}"
    spoke = 420 + 55 * len(said.split())
    silent, heard = at + spoke, at + spoke + random.uniform(90, 160)
    call.stage(
        "stt", at, heard - at, turn_id=turn_id, provider="deepgram", model="nova-3", transcript=said, is_final=True,
        first_item_ms=random.uniform(180, 260), audio_ms=float(spoke), confidence=0.97, language="en",
        span_id=f"{number:012x}0001", cost_usd=spoke * 7e-8,
    )  # fmt: skip
    committed = heard + random.uniform(180, 220)
    asked = committed + random.uniform(1, 4)
    asked, llm_end, spoken_at = _answer(call, random, number, turn_id, asked, answers, model)
    playing = spoken_at[0][1] + random.uniform(18, 35)
    until = playing + sum(audio for _, _, audio in spoken_at)
    marks = {
        "user_speech_start": at, "user_speech_end": silent, "stt_final": heard, "turn_committed": committed,
        "llm_request": asked, "llm_first_token": asked + llm_end[0], "llm_first_sentence": spoken_at[0][0] - 3,
        "tts_request": spoken_at[0][0], "tts_first_byte": spoken_at[0][1], "playback_start": playing,
        "playback_end": until,
    }  # fmt: skip
    call.turn(at, until - at, marks, turn_id=turn_id, turn_number=number)
    return until + random.uniform(500, 900)


def _answer(
    call: CallBuilder, random: Random, number: int, turn_id: str, asked: float, answers: tuple[str, ...], model: str
) -> tuple[float, tuple[float, float], list[tuple[float, float, float]]]:
    llm_span = f"{number:012x}0002"
    ttft, tool_ms = random.uniform(210, 380), random.uniform(90, 240) if number == 2 else 0.0
    if tool_ms:
        call.stage(
            "tool", asked + 40, tool_ms, turn_id=turn_id, parent_id=llm_span, span_id=f"{number:012x}0003",
            attributes={"tool": "find_table", "arguments": {"time": "20:00", "party": 2}},
        )  # fmt: skip
        ttft += tool_ms
    streaming = 160.0 * len(answers) + random.uniform(40, 120)
    call.stage(
        "llm", asked, ttft + streaming, turn_id=turn_id, provider="openai", model=model, span_id=llm_span,
        first_item_ms=ttft, items=len(" ".join(answers).split()), response=" ".join(answers), finish_reason="stop",
        usage={"input_tokens": 180.0 + 40 * number, "output_tokens": 9.0 * len(answers)}, cost_usd=PRICES.get(model),
    )  # fmt: skip
    spoken: list[tuple[float, float, float]] = []
    for index, text in enumerate(answers):
        begin = asked + ttft + 150.0 * (index + 1)
        ttfb, audio = random.uniform(70, 140), 52.0 * len(text)
        call.stage(
            "tts", begin, ttfb + audio / 6, turn_id=turn_id, provider="cartesia", model="sonic-2", text=text,
            voice="katie", first_item_ms=ttfb, audio_ms=audio, characters=len(text), sample_rate_hz=24000,
            span_id=f"{number:012x}00{16 + index:02x}", cost_usd=len(text) * 3e-5,
        )  # fmt: skip
        spoken.append((begin, begin + ttfb, audio))
    return asked, (ttft, streaming), spoken


def troubled_call(session_id: str = "call-2", *, seed: int = 2, **who: Any) -> CallBuilder:
    """Return a call on which things go wrong: a failed tool, an interrupted answer, a lost event, no end."""
    random = Random(seed)
    call = CallBuilder(session_id, stream_id=f"{seed:08x}0b5e7a11", **who)
    call.started()
    at = _turn(call, random, 1, 400.0, "gpt-4o-mini")
    _failed_turn(call, at)
    call.add(Log, at + 4000, level="WARNING", message="caller was silent for 4 s", logger="bot.silence")
    call.add(Metric, at + 4100, name="queue_depth", value=3.0, unit="1")
    call.add(Error, at + 4200, status="error", error=ErrorInfo(type="bot.SocketClosed", message="peer went away"))
    call.add(StageStarted, at + 4300, stage="llm", provider="openai", model="gpt-4o-mini", span_id="00000000000000ff")
    del call.events[4]
    return call


def _failed_turn(call: CallBuilder, at: float) -> None:
    turn_id = f"{call.stream_id[:6]}-2"
    llm = {"turn_id": turn_id, "provider": "openai", "model": "gpt-4o-mini", "span_id": "00000000000000aa"}
    call.stage("stt", at, 1300, turn_id=turn_id, provider="deepgram", model="nova-3", transcript="And for Sunday?")
    call.stage(
        "tool", at + 1540, 2003, turn_id=turn_id, parent_id="00000000000000aa", status="error",
        attributes={"tool": "find_table"},
        error=ErrorInfo(type="TimeoutError", message="no free connection within 2 s", stack=STACK),
    )  # fmt: skip
    call.stage("llm", at + 1500, 2600, first_item_ms=2350.0, status="interrupted", response="I am afraid", **llm)
    call.stage(
        "tts", at + 3950, 150, turn_id=turn_id, provider="cartesia", model="sonic-2", text="I am afraid",
        first_item_ms=110.0, status="interrupted",
    )  # fmt: skip
    marks = {
        "user_speech_end": at + 1180, "stt_final": at + 1300, "turn_committed": at + 1500, "llm_request": at + 1500,
        "llm_first_token": at + 3850, "tts_request": at + 3950, "tts_first_byte": at + 4060,
        "playback_start": at + 4080, "interrupted_at": at + 4500, "audio_stopped": at + 4590,
    }  # fmt: skip
    call.turn(at, 4600, marks, turn_id=turn_id, turn_number=2, was_interrupted=True, end_reason="interrupted")


def health(at_us: int = START_US, **fields: Any) -> Health:
    """Return a health event of no session."""
    given = {"component": "sink", "state": "ok", "service": "voicelog-sink", "host": "sink-0", **fields}
    return Health(stream_id="00000001feedbeef", seq=1, ts=at_us, **given)


def sqlite_store(path: Path, now_ms: Callable[[], int] = lambda: START_US // 1000) -> SqliteStore:
    """Return an open SQLite store with its tables; its clock stands at the calls' start unless told otherwise."""
    store = SqliteStore(load({"store": f"sqlite:///{path}"}, {})[0], now_ms)
    store.open(1000)
    store.init()
    return store


def store_calls(store: Store, calls: Iterable[CallBuilder]) -> None:
    """Write the calls' events, each call's summary, and the rollups."""
    by_session: dict[str, list[Event]] = {}
    calls = list(calls)
    roll_up(store, [event for call in calls for event in call.events])
    for call in calls:
        by_session.setdefault(call.session_id, []).extend(call.events)
    for events in by_session.values():
        summary = summarise(events)
        rows = [row for event in events for row in rows_of(event)]
        assert store.write(rows + (summary_rows(summary) if summary else [])) == []


def roll_up(store: Store, events: Sequence[Event], now_ms: int = START_US // 1000) -> None:
    """Write what rollups are computed from, and roll it up."""
    work = RollupWork("sink-1", 10_000)
    assert store.write(work.note(events, now_ms)) == []
    work.hurry()
    rollups = Rollups(store, work)
    while rollups.step(now_ms) is not None:
        pass
    assert rollups.failed_total == 0
