"""Who sees a turn: tasks and threads that were there before it, each call its own; and marks that come late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voicelog
from voicelog.marks import END, START
from voicelog.testing import START_US, Capture, capture

Words = asyncio.Queue[str]


class Pipeline:
    """STT, LLM and TTS as tasks of their own, begun before any turn, as a bot has them; queues between them."""

    def __init__(self, captured: Capture) -> None:
        self.captured = captured
        self.heard, self.asked, self.answered, self.done = Words(), Words(), Words(), Words()
        self.tasks = [asyncio.create_task(work()) for work in (self.recognise, self.answer, self.speak)]

    async def recognise(self) -> None:
        while text := await self.heard.get():
            with voicelog.stage("stt"):
                self.captured.clock.advance(100)
            voicelog.current_turn().mark("turn_committed")
            self.asked.put_nowait(text)

    async def answer(self) -> None:
        while text := await self.asked.get():
            async for token in self.tokens():
                self.answered.put_nowait(f"{token} {text}")

    @voicelog.stage("llm")
    async def tokens(self) -> AsyncIterator[str]:
        self.captured.clock.advance(300)
        yield "echo"
        self.captured.clock.advance(50)

    async def speak(self) -> None:
        while text := await self.answered.get():
            with voicelog.stage("tts", text=text) as tts:
                self.captured.clock.advance(200)
                tts.mark_first()
            self.done.put_nowait(text)

    async def say(self, text: str) -> str:
        """Say something; return what was spoken."""
        self.heard.put_nowait(text)
        return await self.done.get()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def test_a_turn_is_measured_by_tasks_that_were_started_before_it() -> None:
    async def main(captured: Capture) -> None:
        async with voicelog.session("call"):
            pipeline = Pipeline(captured)
            await asyncio.sleep(0)
            for word in ("one", "two"):
                with voicelog.turn(word) as turn:
                    turn.mark(START)
                    assert await pipeline.say(word) == f"echo {word}"
                    turn.mark(END)
            await pipeline.stop()

    with capture(step_ms=0) as captured:
        asyncio.run(main(captured))
    for turn, word in zip(captured.of("turn"), ("one", "two"), strict=True):
        assert [(part.key, part.us / 1000) for part in turn.contributions] == [
            ("transcription", 100), ("llm_ttft", 300), ("to_tts", 50), ("tts_ttfb", 200),
        ]  # fmt: skip
        mine = [event.stage for event in captured.events if event.turn_id == word and event.stage]
        assert mine == ["stt", "llm", "tts"]


def test_calls_at_the_same_time_see_their_own_turns(captured: Capture) -> None:
    async def call(name: str) -> None:
        async with voicelog.session(name):
            pipeline = Pipeline(captured)
            await asyncio.sleep(0)
            for number in range(3):
                with voicelog.turn(f"{name}-{number}") as turn:
                    turn.mark(START)
                    await pipeline.say(name)
                    turn.mark(END)
            await pipeline.stop()

    async def main() -> None:
        await asyncio.gather(*(call(f"call{number}") for number in range(5)))

    asyncio.run(main())
    turns = captured.of("turn")
    assert len(turns) == 15
    assert all(turn.turn_id.startswith(f"{turn.session_id}-") for turn in turns)
    stages = [event for event in captured.events if event.stage]
    assert len(stages) == 45
    assert all(event.turn_id.startswith(f"{event.session_id}-") for event in stages if event.turn_id)
    assert all({"stt_final", "llm_first_token", "tts_first_byte"} <= turn.marks.keys() for turn in turns)


def in_a_thread(function: object) -> None:
    thread = threading.Thread(target=function)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_a_thread_sees_a_turn_that_was_opened_after_it_was_bound(captured: Capture) -> None:
    def work() -> None:
        with voicelog.stage("llm"):
            voicelog.current_turn().mark("own")

    with voicelog.session():
        bound = voicelog.copy_context(work)
        for name in ("one", "two"):
            with voicelog.turn(name):
                in_a_thread(bound)
    assert [event.turn_id for event in captured.of("llm_request")] == ["one", "two"]
    assert all({"own", "llm_request"} <= turn.marks.keys() for turn in captured.of("turn"))


def test_a_thread_that_was_not_bound_sees_no_turn(lenient: Capture) -> None:
    def work() -> None:
        voicelog.current_turn().mark("own")
        with voicelog.stage("llm"):
            pass

    with voicelog.session(), voicelog.turn():
        in_a_thread(work)
    assert lenient.of("turn")[0].marks in (None, {})
    assert lenient.counters.snapshot()["dropped"] == {"no_session": 1}


def test_many_threads_may_mark_and_run_stages_at_once(captured: Capture) -> None:
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for number in range(50):
            voicelog.current_turn().mark(f"{threading.get_ident()}-{number % 5}")
            with voicelog.stage("tool"):
                pass

    with voicelog.session(), voicelog.turn() as turn:
        threads = [threading.Thread(target=voicelog.copy_context(work)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(turn.runs) == 200
    assert len(captured.of("turn")[0].marks) == 20


@given(st.floats(-86_400_000, 86_400_000), st.floats(0, 5000))
def test_a_late_mark_is_when_it_was(ago_ms: float, passed_ms: float) -> None:
    with capture(step_ms=0) as captured, voicelog.session(), voicelog.turn() as turn:
        captured.clock.advance(passed_ms)
        turn.mark("own", ago_ms=ago_ms)
    at_ms = (captured.of("turn")[0].marks["own"] - START_US) / 1000
    assert at_ms == pytest.approx(passed_ms - ago_ms, abs=0.002)


def test_a_mark_that_is_heard_of_last_may_be_the_first() -> None:
    """A VAD reports the end of speech after the silence it waits for, when the transcript is already there."""
    with capture(step_ms=0) as captured, voicelog.session(), voicelog.turn() as turn:
        captured.clock.advance(1000)
        with voicelog.stage("stt"):
            captured.clock.advance(150)
        captured.clock.advance(150)
        turn.mark(START, ago_ms=200)
        turn.mark("turn_committed")
        captured.clock.advance(400)
        turn.mark(END)
    (event,) = captured.of("turn")
    assert event.marks[START] == START_US + 1_100_000
    assert [(part.key, part.us / 1000) for part in event.contributions] == [
        ("transcription", 50), ("endpointing", 150), ("unattributed", 400),
    ]  # fmt: skip
