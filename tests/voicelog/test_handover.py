"""Handing a session over to another process or thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tests.voicelog.strategies import ANYTHING

import voicelog
from voicelog.testing import Capture, capture


def test_a_session_goes_through_headers_whole(captured: Capture) -> None:
    headers: dict[str, str] = {}
    with voicelog.session("call/1 ä&=", "ann", variant="b"), voicelog.turn("t1"):
        voicelog.inject(headers)
    assert list(headers) == ["voicelog-session"]
    with voicelog.extract(headers) as there, voicelog.stage("llm"):
        assert (there.id, there.user, there.variant) == ("call/1 ä&=", "ann", "b")
    (event,) = captured.of("llm_request")
    assert (event.session_id, event.user_id, event.variant, event.turn_id) == ("call/1 ä&=", "ann", "b", "t1")
    streams = [e.stream_id for e in captured.of("session_started")]
    assert len(set(streams)) == 2


@pytest.mark.parametrize(
    "form",
    [
        lambda name, value: {name: value},
        lambda name, value: {"Accept": "x", name.title(): value},
        lambda name, value: [(b"accept", b"x"), (name.encode(), value.encode())],
        lambda name, value: [(name, value.encode())],
        lambda name, value: ((name, value),),
    ],
)
def test_headers_may_be_a_mapping_or_pairs_of_texts_or_bytes(captured: Capture, form: Any) -> None:
    headers: dict[str, str] = {}
    with voicelog.session("call"):
        voicelog.inject(headers)
    with voicelog.extract(form(*next(iter(headers.items())))) as there:
        assert there.id == "call"


@pytest.mark.parametrize("headers", [{}, {"voicelog-session": ""}, {"voicelog-session": "user=x"}, [], None, 5, [1, 2]])
def test_without_the_header_it_is_a_session_of_its_own_and_counted(lenient: Capture, headers: Any) -> None:
    with voicelog.extract(headers) as there:
        assert there.id == "session-1"
    assert lenient.counters.snapshot()["invalid"] == {"extract": 1}


@given(st.dictionaries(ANYTHING.filter(lambda v: isinstance(v, (str, int, bytes))), ANYTHING, max_size=3), ANYTHING)
def test_whatever_the_headers_are_nothing_raises(headers: dict[Any, Any], value: Any) -> None:
    with capture(strict=False) as captured:
        for given_headers in (headers, {"voicelog-session": value}, value):
            with voicelog.extract(given_headers):
                voicelog.inject(headers)
        assert len(captured.of("session_started")) == 3


def test_without_a_session_nothing_is_injected(captured: Capture) -> None:
    headers: dict[str, str] = {}
    voicelog.inject(headers)
    with voicelog.session("call"):
        pass
    voicelog.inject(headers)
    assert headers == {}


def test_the_current_span_goes_with_the_session(captured: Capture) -> None:
    headers: dict[str, str] = {}
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("span") as span, voicelog.session("call"):
        voicelog.inject(headers)
    context = span.get_span_context()
    assert headers["traceparent"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_thread_gets_session_turn_and_stage_by_copy_context(captured: Capture) -> None:
    def work(name: str, *, suffix: str) -> str:
        with voicelog.stage(name + suffix) as stage:
            return stage.name

    with voicelog.session("call"), voicelog.turn("t"), voicelog.stage("outer"):
        bound = voicelog.copy_context(work)
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(bound("in", suffix="ner"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["inner"] * 3
    outer = next(event for event in captured.of("stage") if event.stage == "outer")
    inner = [event for event in captured.of("stage") if event.stage == "inner"]
    assert {(e.session_id, e.turn_id, e.parent_id) for e in inner} == {("call", "t", outer.span_id)}


def test_a_copied_context_passes_result_and_exception(captured: Capture) -> None:
    def fail() -> None:
        raise KeyError("k")

    with voicelog.session():
        assert voicelog.copy_context(lambda a: a + 1)(1) == 2
        with pytest.raises(KeyError, match="k"):
            voicelog.copy_context(fail)()
