"""The whole public API in use. Never executed: mypy and pyright read it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, assert_type

import voicelog
import voicelog.redact
import voicelog.testing
from voicelog.errors import ConfigError, DecodeError, EncodeError, VoicelogError
from voicelog.events import Event

voicelog.configure()
voicelog.configure(brokers="redpanda:9092", service="front-desk", kafka_config={"linger.ms": "5"}, enabled=True)
voicelog.configure(prices={"version": "1", "prices": [{"provider": "p", "usd_per_request": 0.01}]})
voicelog.configure(redact=["email", str.upper, voicelog.redact.phone("US")], capture_content="-errors", sample_rate=0.1)
assert_type(voicelog.redact.card()("4111"), str)
assert_type(voicelog.flush(), int)
assert_type(voicelog.flush(1.5), int)
assert_type(voicelog.shutdown(), int)
assert_type(voicelog.shutdown(timeout=2), int)
assert_type(voicelog.stats(), dict[str, Any])
assert_type(voicelog.__version__, str)


def blocks() -> None:
    with voicelog.session("call", "ann", variant="b", attributes={"tenant": "acme"}) as call:
        assert_type(call, voicelog.Session)
        call.disconnected("user_hangup")
        with voicelog.turn("t1") as turn:
            assert_type(turn, voicelog.Turn)
            turn.mark("user_speech_end", ago_ms=200, anchor="vad")
            turn.set(topic="booking")
            turn.interrupt(ago_ms=10)
            turn.mark("audio_stopped", at_us=1_767_225_600_000_000)
            turn.played(characters=12, audio_ms=800.0)
            with voicelog.stage("stt", provider="deepgram", model="nova-3", language="en") as stt:
                assert_type(stt, voicelog.Stage)
                stt.set(transcript="hello", confidence=0.9)
                stt.mark_first()
                stt.usage(audio_seconds=1.5)
                stt.usage({"prompt_tokens": 3}, output_tokens=4)
                stt.fail(ValueError())
                stt.interrupt()
                assert_type(bool(stt), bool)
            with voicelog.stage("llm", turn=turn) as llm:
                with llm.attempt() as first:
                    assert_type(first, voicelog.Attempt)
                    first.fail(TimeoutError())
                with llm.attempt(provider="groq", model="llama") as second:
                    assert_type(bool(second), bool)
        other = call.start_turn()
        other.end(end_reason="completed")
    assert_type(voicelog.current_session(), voicelog.Session)
    assert_type(voicelog.current_turn(), voicelog.Turn)
    assert_type(voicelog.current_stage(), voicelog.Stage)
    started = voicelog.session().start()
    assert_type(started, voicelog.Session)
    started.end(ValueError())


async def async_blocks() -> None:
    async with voicelog.session() as call, voicelog.turn() as turn, voicelog.stage("llm") as llm:
        assert_type(call, voicelog.Session)
        assert_type(turn, voicelog.Turn)
        assert_type(llm, voicelog.Stage)
        async with llm.attempt(provider="openai") as attempt:
            assert_type(attempt, voicelog.Attempt)


def variants() -> None:
    assert_type(voicelog.choose_variant("voice", {"a": 1, "b": 0.5}, key="call"), str)
    assert_type(voicelog.choose_variant("voice", {"a": 1, "b": 1}), str)
    voicelog.session("call", variant=voicelog.choose_variant("voice", {"a": 1, "b": 1}, key=7))


@voicelog.stage
def bare(a: int, *, b: str = "") -> str:
    return b * a


@voicelog.stage()
def called(a: int) -> int:
    return a


@voicelog.stage("llm", provider="openai", model="gpt-4o-mini")
async def coroutine(prompt: str) -> str:
    return prompt


@voicelog.stage(name="tokens")
def generator(count: int) -> Generator[str, int, bool]:
    sent = yield "a" * count
    return bool(sent)


@voicelog.stage
async def async_generator(count: int) -> AsyncGenerator[bytes, None]:
    yield b"a" * count


@voicelog.stage
async def async_iterator(count: int) -> AsyncIterator[bytes]:
    yield b"a" * count


@voicelog.stage("vad")
def iterator() -> Iterator[int]:
    yield 1


class Bot:
    @voicelog.stage
    def answer(self, prompt: str) -> str:
        return prompt

    @staticmethod
    @voicelog.stage("tts")
    def speak(text: str) -> bytes:
        return text.encode()


async def decorated() -> None:
    assert_type(bare(1, b="x"), str)
    assert_type(called(1), int)
    assert_type(await coroutine("x"), str)
    assert_type(generator(1), Generator[str, int, bool])
    assert_type(Bot().answer("x"), str)
    assert_type(Bot.speak("x"), bytes)
    assert_type(iterator(), Iterator[int])
    async for token in async_generator(1):
        assert_type(token, bytes)
    async for token in async_iterator(1):
        assert_type(token, bytes)


def others(exc: Exception) -> None:
    voicelog.publish_stt_result("hello", confidence=0.9, duration_ms=300, ago_ms=20)
    voicelog.publish_llm_request("yes", prompt=[{"role": "user"}], parameters={"temperature": 0}, error=exc)
    voicelog.publish_tts_result("hi", voice="alloy", characters=2)
    voicelog.publish_llm_request(attempts=[{"provider": "openai", "error": exc, "duration_ms": 3}])
    voicelog.publish_log("slow", "WARNING", logger="bot", n=1)
    voicelog.metric("queue.depth", 3, "{event}", room="k")
    voicelog.log_error(exc, where="loop")
    voicelog.health("broker", "down", since_s=3)
    logging.getLogger().addHandler(voicelog.LogHandler(level=logging.WARNING))


def handover(headers: dict[str, str], environ: dict[str, str], asgi: list[tuple[bytes, bytes]]) -> None:
    voicelog.inject(headers)
    assert_type(voicelog.extract(headers), voicelog.Session)
    assert_type(voicelog.extract(asgi), voicelog.Session)
    with voicelog.extract(environ) as call:
        assert_type(call.id, str | None)
    assert_type(voicelog.copy_context(bare)(1, b="x"), str)


def users_test(voicelog_capture: voicelog.testing.Capture) -> None:
    with voicelog.testing.capture(step_ms=0.5, strict=False, capture_content="all") as captured:
        assert_type(captured, voicelog.testing.Capture)
        captured.clock.advance(20)
        captured.full = True
    assert_type(voicelog_capture.events, list[Event])
    assert_type(voicelog_capture.of("turn"), list[Any])


def errors() -> None:
    try:
        blocks()
    except DecodeError as exc:
        assert_type(exc.reason, str)
    except (ConfigError, EncodeError, VoicelogError):
        pass
