"""OpenTelemetry spans, with the real SDK: the tree, the attributes, and the ids that events and spans share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode, TraceFlags
from tests.voicelog.kafka import consume, events_of, run_program

import voicelog
from voicelog.client import state
from voicelog.otel import CONTENT_ENV
from voicelog.testing import Capture, capture

MS = 1_000_000


class Spans:
    """A provider whose finished spans can be read."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("user")

    @property
    def finished(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.finished if span.name == name)
        return found

    def tree(self) -> dict[str, str | None]:
        names = {span.context.span_id: span.name for span in self.finished if span.context is not None}
        return {span.name: names[span.parent.span_id] if span.parent else None for span in self.finished}


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def captured(spans: Spans) -> Iterator[Capture]:
    with capture(tracer_provider=spans.provider) as found:
        yield found
    assert trace.get_current_span() is trace.INVALID_SPAN


def ids_of(span: ReadableSpan) -> tuple[str, str, str | None]:
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_a_turn_and_its_stages_are_one_tree_whose_ids_are_the_events(spans: Spans, captured: Capture) -> None:
    with voicelog.session("call"), voicelog.turn():
        with voicelog.stage("stt", model="nova"):
            pass
        with voicelog.stage("llm", model="gpt"), voicelog.stage("tool", tool_name="weather"):
            pass
        with voicelog.stage("tts"):
            pass
    assert spans.tree() == {
        "invoke_agent test": None, "speech_to_text nova": "invoke_agent test", "chat gpt": "invoke_agent test",
        "execute_tool weather": "chat gpt", "text_to_speech": "invoke_agent test",
    }  # fmt: skip
    assert len({ids_of(span)[0] for span in spans.finished}) == 1
    events = [event for event in captured.events if event.stage or event.TYPE == "turn"]
    assert sorted((e.trace_id, e.span_id, e.parent_id) for e in events) == sorted(map(ids_of, spans.finished))
    headers = [value.decode()[:-2] for message in captured.messages for _, value in message.headers]
    assert sorted(headers) == sorted(f"00-{e.trace_id}-{e.span_id}-" for e in events)


def test_a_stages_span_is_whole(spans: Spans, captured: Capture) -> None:
    with voicelog.session("call", "ann", variant="b"), voicelog.turn("t1"):
        with voicelog.stage("llm", provider="openai", model="gpt", parameters={"temperature": 0.5}) as llm:
            llm.mark_first()
            llm.usage(input_tokens=3, output_tokens=4)
            llm.set(response="a secret", finish_reason="stop", tenant="acme")
        event = captured.of("llm_request")[0]
    span = spans.named("chat gpt")
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat", "gen_ai.conversation.id": "call", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt", "gen_ai.request.temperature": 0.5, "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4, "gen_ai.response.time_to_first_chunk": event.first_item_ms / 1000,
        "gen_ai.response.finish_reasons": ("stop",), "voicelog.stage": "llm", "voicelog.variant": "b",
        "voicelog.turn_id": "t1", "voicelog.status": "ok", "voicelog.attributes.tenant": "acme",
    }  # fmt: skip
    assert (span.start_time, span.end_time) == (event.ts * 1000, event.ts * 1000 + int(event.duration_ms * MS))
    assert (span.status.status_code, list(span.events)) == (StatusCode.UNSET, [])
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("voicelog", "1")


def test_a_turns_span_is_whole(spans: Spans, captured: Capture) -> None:
    with voicelog.session("call"), voicelog.turn("t1") as turn:
        turn.mark("user_speech_end", ago_ms=0.5, anchor="vad")
        turn.mark("playback_start")
    event = captured.of("turn")[0]
    span = spans.named("invoke_agent test")
    attributes = dict(span.attributes or {})
    assert attributes.pop("voicelog.contributions")
    assert attributes == {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "test", "gen_ai.conversation.id": "call",
        "gen_ai.agent.invocation.end_reason": "completed", "voicelog.turn_id": "t1", "voicelog.turn_number": 1,
        "voicelog.user_bot_latency_ms": 1.5, "voicelog.unattributed_ms": 1.5, "voicelog.anchor": "vad",
        "voicelog.quality": "ok", "voicelog.status": "ok", "voicelog.was_interrupted": False,
        "voicelog.first_bot_speech_ms": 3.0,
    }  # fmt: skip
    assert [(e.name, e.timestamp) for e in span.events] == [
        (name, at_us * 1000) for name, at_us in (event.marks or {}).items()
    ]
    assert (span.start_time, span.end_time) == (event.ts * 1000, event.ts * 1000 + int(event.duration_ms * MS))


def test_a_figure_that_could_not_be_measured_is_no_attribute(spans: Spans, captured: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark("playback_start")
    assert captured.of("turn")[0].figures["user_bot_latency_ms"].value_ms is None
    attributes = spans.named("invoke_agent test").attributes or {}
    assert attributes["voicelog.quality"] == "no_anchor"
    assert "voicelog.user_bot_latency_ms" not in attributes


def test_an_exception_is_recorded_once_and_the_span_fails(spans: Spans, captured: Capture) -> None:
    message = "too slow"
    with pytest.raises(TimeoutError), voicelog.session("call"), voicelog.turn(), voicelog.stage("llm"):
        raise TimeoutError(message)
    span = spans.named("chat")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "TimeoutError: too slow")
    (event,) = span.events
    found = dict(event.attributes or {})
    assert "raise TimeoutError(message)" in str(found.pop("exception.stacktrace"))
    assert (event.name, found) == ("exception", {"exception.type": "TimeoutError", "exception.message": "too slow"})
    assert (span.attributes or {})["error.type"] == "TimeoutError"
    turn = spans.named("invoke_agent test")
    assert (turn.status.status_code, (turn.attributes or {})["error.type"]) == (StatusCode.ERROR, "_OTHER")


def test_a_stage_that_is_failed_by_hand_fails_its_span(spans: Spans, captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm") as llm:
        llm.fail(ValueError("x"))
    assert spans.named("chat").status.description == "ValueError: x"
    assert len(spans.named("chat").events) == 1


def test_cancelled_and_interrupted_are_no_errors(spans: Spans, captured: Capture) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.CancelledError), voicelog.stage("llm"):
            raise asyncio.CancelledError

    with voicelog.session():
        asyncio.run(main())
        with voicelog.stage("tts") as tts:
            tts.interrupt()
    found = {span.name: (span.attributes or {})["voicelog.status"] for span in spans.finished}
    assert found == {"chat": "cancelled", "text_to_speech": "interrupted"}
    assert all(span.status.is_unset and not span.events for span in spans.finished)


def test_a_users_own_spans_are_within_the_stage_and_around_the_call(spans: Spans, captured: Capture) -> None:
    with spans.tracer.start_as_current_span("request"), voicelog.session(), voicelog.turn():
        with voicelog.stage("llm"), spans.tracer.start_as_current_span("http"):
            pass
        with spans.tracer.start_as_current_span("mine"), voicelog.stage("tts"):
            pass
    assert spans.tree() == {
        "request": None, "invoke_agent test": "request", "chat": "invoke_agent test", "http": "chat",
        "mine": "request", "text_to_speech": "mine",
    }  # fmt: skip


def test_without_a_turn_a_stage_is_within_what_is_current(spans: Spans, captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("vad"):
        pass
    with spans.tracer.start_as_current_span("request"), voicelog.session(), voicelog.stage("llm"):
        pass
    assert spans.tree() == {"vad": None, "chat": "request", "request": None}


def test_tasks_that_began_before_the_turn_are_within_it(spans: Spans, captured: Capture) -> None:
    async def speaker(told: asyncio.Event, name: str) -> None:
        await told.wait()
        async with voicelog.stage(name):
            await asyncio.sleep(0)
            with voicelog.stage("inner-" + name):
                await asyncio.sleep(0)

    async def call() -> None:
        async with voicelog.session():
            told = asyncio.Event()
            tasks = [asyncio.create_task(speaker(told, name)) for name in ("a", "b")]
            await asyncio.sleep(0)
            async with voicelog.turn():
                told.set()
                await asyncio.gather(*tasks)

    with spans.tracer.start_as_current_span("server"):
        asyncio.run(call())
    assert spans.tree() == {
        "server": None, "invoke_agent test": "server", "a": "invoke_agent test", "b": "invoke_agent test",
        "inner-a": "a", "inner-b": "b",
    }  # fmt: skip


def test_a_thread_without_the_callers_context_is_within_the_turn_and_its_trace(spans: Spans, captured: Capture) -> None:
    with spans.tracer.start_as_current_span("server"), voicelog.session() as session:
        thread = threading.Thread(target=lambda: turns.append(session.start_turn()))
        turns: list[voicelog.Turn] = []
        thread.start()
        thread.join()
        with voicelog.stage("llm", turn=turns[0]):
            pass
        turns[0].end()
    assert spans.tree() == {"server": None, "invoke_agent test": "server", "chat": "invoke_agent test"}


def current_name() -> str:
    return getattr(trace.get_current_span(), "name", "none")


def test_a_generators_span_is_current_only_within_its_steps(spans: Spans, captured: Capture) -> None:
    @voicelog.stage("llm")
    def tokens() -> Iterator[str]:
        for _ in range(2):
            yield current_name()
        with spans.tracer.start_as_current_span("inside"):
            yield current_name()
            yield current_name()
        yield current_name()

    with voicelog.session(), spans.tracer.start_as_current_span("consumer"):
        seen = [(token, current_name()) for token in tokens()]
    assert [inside for inside, _ in seen] == ["chat", "chat", "inside", "inside", "chat"]
    assert {outside for _, outside in seen} == {"consumer"}
    assert spans.tree() == {"inside": "chat", "chat": "consumer", "consumer": None}
    assert (spans.named("chat").attributes or {})["gen_ai.request.stream"] is True


def test_an_async_generators_span_is_current_only_within_its_steps(spans: Spans, captured: Capture) -> None:
    @voicelog.stage("llm")
    async def tokens() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield current_name()

    async def main() -> list[tuple[str, str]]:
        return [(token, current_name()) async for token in tokens()]

    with voicelog.session():
        assert asyncio.run(main()) == [("chat", "none")] * 3
    assert spans.tree() == {"chat": None}


def test_decorated_functions_and_coroutines_run_within_their_spans(spans: Spans, captured: Capture) -> None:
    @voicelog.stage("stt")
    def hear() -> str:
        return current_name()

    @voicelog.stage("llm")
    async def answer() -> str:
        await asyncio.sleep(0)
        return current_name()

    with voicelog.session():
        assert (hear(), asyncio.run(answer()), current_name()) == ("speech_to_text", "chat", "none")


def test_an_abandoned_generator_ends_its_span_at_its_last_item(spans: Spans, captured: Capture) -> None:
    @voicelog.stage("tts")
    def chunks() -> Iterator[int]:
        while True:
            yield 1

    with voicelog.session():
        generator = chunks()
        next(generator)
        captured.clock.advance(60_000)
        generator.close()
    span, event = spans.named("text_to_speech"), captured.of("tts_result")[0]
    assert (span.end_time or 0) - (span.start_time or 0) == event.duration_ms * MS < 60_000 * MS
    assert span.status.is_unset


def test_published_results_have_spans_with_their_own_times(spans: Spans, captured: Capture) -> None:
    with voicelog.session(), voicelog.turn():
        voicelog.publish_stt_result("hello", duration_ms=300, ago_ms=100, model="nova")
    span, event = spans.named("speech_to_text nova"), captured.of("stt_result")[0]
    assert (span.start_time, span.end_time) == (event.ts * 1000, event.ts * 1000 + 300 * MS)
    assert spans.tree()["speech_to_text nova"] == "invoke_agent test"


def test_a_stage_that_is_left_in_another_context_leaves_no_span_current(
    spans: Spans, captured: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    block = voicelog.stage("llm")

    async def one(step: str) -> str:
        block.__enter__() if step == "enter" else block.__exit__(None, None, None)
        return current_name()

    async def main() -> list[str]:
        return [await asyncio.create_task(one(step)) for step in ("enter", "exit")]

    with voicelog.session():
        assert asyncio.run(main()) == ["chat", "none"]
    assert spans.tree() == {"chat": None}
    assert not caplog.records


def test_a_stage_that_is_entered_again_has_a_span_of_its_own_each_time(spans: Spans, captured: Capture) -> None:
    stage = voicelog.stage("vad")
    for _ in range(2):
        with voicelog.session(), stage:
            assert current_name() == "vad"
    assert len({ids_of(span)[1] for span in spans.finished}) == len(spans.finished) == 2


def test_a_session_that_begins_again_has_spans_of_its_new_client(spans: Spans) -> None:
    session = voicelog.session("call")
    for service in ("a", "b"):
        with capture(service=service, tracer_provider=spans.provider), session, voicelog.turn():
            pass
    assert [span.name for span in spans.finished] == ["invoke_agent a", "invoke_agent b"]


def test_a_stage_after_its_session_is_within_no_span() -> None:
    found = Spans()
    stage = voicelog.stage("vad")
    with capture(strict=False, tracer_provider=found.provider):
        with voicelog.session(), stage:
            pass
        with stage:
            assert current_name() == "none"


def test_baggage_of_the_caller_is_there_within_a_stage(captured: Capture) -> None:
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with voicelog.session(), voicelog.stage("llm"):
        assert baggage.get_baggage("tenant") == "acme"
    context.detach(token)


def test_a_hanging_stage_is_told_of_by_its_spans_id(spans: Spans, captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm") as llm:
        assert llm.started_fields()["span_id"] == llm.span_id
    assert ids_of(spans.named("chat"))[1] == llm.span_id


@pytest.mark.parametrize("value", ["true", "SPAN_ONLY", "span_and_event"])
def test_texts_are_on_spans_when_both_switches_are_on(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(CONTENT_ENV, value)
    with capture(tracer_provider=spans.provider), voicelog.session():
        voicelog.publish_llm_request("an answer", prompt="a question")
    attributes = spans.named("chat").attributes or {}
    assert "gen_ai.input.messages" not in attributes  # capture_content leaves the prompt out by default
    assert "an answer" in str(attributes["gen_ai.output.messages"])


def test_texts_are_not_on_spans_when_capture_content_leaves_them_out(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONTENT_ENV, "true")
    with capture(tracer_provider=spans.provider, capture_content="none"), voicelog.session():
        voicelog.publish_stt_result("a secret")
        voicelog.publish_tts_result("a secret")
    assert len(spans.finished) == 2
    assert all("a secret" not in span.to_json() for span in spans.finished)


class Starred:
    """A redactor that leaves nothing of a text."""

    @staticmethod
    def fields(fields: dict[str, Any]) -> dict[str, Any]:
        private = {"response": "*", "attributes": {"caller": "*"}, "error": {"type": "ValueError", "message": "*"}}
        return fields | {name: value for name, value in private.items() if name in fields}


def test_what_is_redacted_in_events_is_redacted_on_spans(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTENT_ENV, "true")
    with capture(tracer_provider=spans.provider), voicelog.session():
        client: Any = state.current
        client.redactor = Starred()
        with suppress(ValueError), voicelog.stage("llm", response="secret", caller="secret"):
            message = "secret"
            raise ValueError(message)
    attributes = spans.named("chat").attributes or {}
    assert attributes["voicelog.attributes.caller"] == "*"
    assert "gen_ai.output.messages" in attributes
    assert spans.named("chat").status.description == "ValueError: *"
    assert "secret" not in spans.finished[0].to_json()


@pytest.mark.parametrize(
    ("private", "name"),
    [({"redact": "card"}, "execute_tool [card]"), ({"capture_content": "-attributes"}, "execute_tool")],
)
def test_a_tools_span_is_named_by_no_more_than_its_event_says(spans: Spans, private: dict[str, Any], name: str) -> None:
    tool = voicelog.stage("tool", tool_name="4111111111111111")
    with capture(tracer_provider=spans.provider, **private), voicelog.session(), tool:
        pass
    assert [span.name for span in spans.finished] == [name]


def test_texts_are_not_on_spans_by_default(spans: Spans, captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("stt", transcript="a secret"):
        pass
    assert "a secret" not in spans.finished[0].to_json()


@pytest.mark.parametrize("provider", [NoOpTracerProvider(), trace.ProxyTracerProvider()])
def test_with_a_provider_that_is_none_there_are_no_spans(provider: trace.TracerProvider) -> None:
    runs = []
    for given in (None, provider):
        with capture(tracer_provider=given) as captured, voicelog.session("call"), voicelog.stage("llm"):
            assert trace.get_current_span() is trace.INVALID_SPAN
        runs.append(captured.messages)
    assert runs[0] == runs[1]


def test_with_an_sdk_that_is_switched_off_events_are_as_without_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    around = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True))
    runs = []
    for given in (None, TracerProvider(shutdown_on_exit=False)):
        call = voicelog.session("call")
        with capture(tracer_provider=given) as captured, trace.use_span(around), call, call.start_turn():
            voicelog.publish_stt_result("hello")
        runs.append(captured.messages)
    assert runs[0] == runs[1]
    (event,) = captured.of("stt_result")
    assert (event.trace_id, event.parent_id) == (f"{1:032x}", f"{2:016x}")


def test_otel_spans_false_turns_them_off_and_keeps_the_current_spans_ids(spans: Spans) -> None:
    mine = spans.tracer.start_as_current_span("mine")
    with capture(otel_spans=False, tracer_provider=spans.provider) as captured, mine, voicelog.session():
        voicelog.publish_llm_request()
    assert spans.tree() == {"mine": None}
    (event,) = captured.of("llm_request")
    assert (event.trace_id, event.parent_id) == ids_of(spans.finished[0])[:2]


def test_a_provider_that_is_set_in_the_middle_of_a_call_opens_spans_from_the_next_turn_on(spans: Spans) -> None:
    with capture(), voicelog.session():
        with voicelog.turn():
            pass
        client = state.current
        assert client is not None
        client.tracer_provider = spans.provider
        with voicelog.turn(), voicelog.stage("llm"):
            pass
    assert spans.tree() == {"invoke_agent test": None, "chat": "invoke_agent test"}


def test_a_span_that_a_sampler_dropped_still_gives_its_ids() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with capture(tracer_provider=provider) as captured, voicelog.session(), voicelog.turn(), voicelog.stage("llm"):
        pass
    (stage,), (turn,) = captured.of("llm_request"), captured.of("turn")
    assert (stage.trace_id, stage.parent_id) == (turn.trace_id, turn.span_id)
    ((name, header),) = captured.messages[1].headers
    assert (name, header.decode()[:-2]) == ("traceparent", f"00-{stage.trace_id}-{stage.span_id}-")
    assert int(header[-2:], 16) & TraceFlags.SAMPLED == 0


class Broken(SpanProcessor):
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def _maybe(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError(where)

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self._maybe("on_start")

    def on_end(self, span: Any) -> None:
        self._maybe("on_end")


class BrokenProvider(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError


@pytest.mark.parametrize(("where", "faults"), [("on_start", 3), ("on_end", 3), ("get_tracer", 2)])
def test_a_broken_tracer_is_counted_and_the_call_is_recorded_whole(where: str, faults: int) -> None:
    provider = (BrokenProvider if where == "get_tracer" else TracerProvider)(shutdown_on_exit=False)
    provider.add_span_processor(Broken(where))
    with capture(strict=False, tracer_provider=provider) as captured:
        with voicelog.session("call"), voicelog.turn(), voicelog.stage("llm"), voicelog.stage("tool"):
            pass
        assert captured.counters.snapshot()["faults"] == {"otel": faults}
    assert [event.TYPE for event in captured.events] == [
        "session_started", "stage", "llm_request", "turn", "session_ended",
    ]  # fmt: skip
    tool, llm = captured.events[1:3]
    assert (tool.parent_id, len(tool.span_id or "")) == (llm.span_id, 16)


def test_the_global_provider_is_used_and_the_ids_go_to_the_broker(mock_broker: str) -> None:
    found = run_program(
        """
        import sys, voicelog
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        voicelog.configure(brokers=sys.argv[1], service="bot")
        trace.set_tracer_provider(provider)
        with voicelog.session("call"), voicelog.turn(), voicelog.stage("llm"):
            pass
        assert voicelog.flush(20) == 0
        for span in exporter.get_finished_spans():
            print(span.name, f"{span.context.span_id:016x}")
        """,
        mock_broker,
    )
    assert found.returncode == 0, found.stderr
    events = {event.TYPE: event for event in events_of(consume(mock_broker, 4))}
    assert found.stdout.splitlines() == [
        f"chat {events['llm_request'].span_id}", f"invoke_agent bot {events['turn'].span_id}",
    ]  # fmt: skip
