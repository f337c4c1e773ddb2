"""Handing a session over to another process or thread."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tests.voicelog.kafka import consume, events_of, run_program
from tests.voicelog.strategies import ANYTHING, Awkward

import voicelog
from voicelog.errors import ConfigError
from voicelog.events import LlmRequest, SessionEnded, SessionStarted
from voicelog.handover import MAX_ATTRIBUTES_CHARS
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


@given(
    st.dictionaries(ANYTHING.filter(lambda v: issubclass(type(v), (str, int, bytes))), ANYTHING, max_size=3), ANYTHING
)
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


@pytest.mark.parametrize("headers", [[], None, (("a", "b"),)])
def test_headers_that_are_no_mapping_are_refused_with_what_to_give(captured: Capture, headers: Any) -> None:
    with (
        voicelog.session("call"),
        pytest.raises(ConfigError, match=r"^inject\(.*\): expected a mapping"),
    ):
        voicelog.inject(headers)


def test_the_current_span_goes_with_the_session(captured: Capture) -> None:
    headers: dict[str, str] = {}
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("span") as span, voicelog.session("call"):
        voicelog.inject(headers)
    context = span.get_span_context()
    assert headers["traceparent"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_attributes_go_along_and_those_that_are_too_long_stay_behind_and_are_counted(lenient: Capture) -> None:
    headers: dict[str, str] = {}
    with voicelog.session("call", attributes={"tenant": "acme & co", "n": [1, None], "odd": {1, 2}}):
        voicelog.inject(headers)
    with voicelog.extract(headers) as there:
        assert there.attributes == {"tenant": "acme & co", "n": [1, None], "odd": [1, 2]}
    with voicelog.session("call", attributes={"long": "x" * MAX_ATTRIBUTES_CHARS}):
        voicelog.inject(headers)
    assert voicelog.extract(headers).attributes is None
    assert lenient.counters.snapshot()["invalid"] == {"inject.attributes": 1}


@pytest.mark.parametrize("attributes", ["{", "[1]", "5", "%FF"])
def test_attributes_that_are_none_are_left_out(captured: Capture, attributes: str) -> None:
    assert voicelog.extract({"voicelog-session": f"id=call&attributes={attributes}"}).attributes is None


def test_a_session_is_handed_on_with_the_turn_it_came_with(captured: Capture) -> None:
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    with voicelog.session("call"), voicelog.turn("t1"):
        voicelog.inject(first)
    with voicelog.extract(first):
        voicelog.inject(second)
    assert second == first


def test_in_an_environment_the_names_are_an_environments(captured: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    environ: dict[str, str] = {}
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("span"), voicelog.session("call"):
        voicelog.inject(environ, environ=True)
    assert sorted(environ) == ["TRACEPARENT", "VOICELOG_SESSION"]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = [voicelog.extract(), voicelog.extract(os.environ), voicelog.extract(environ)]
    assert [session.id for session in found] == ["call"] * 3
    assert all(session.inherited_span is not None for session in found)


def test_the_processs_own_environment_is_known_as_one(captured: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICELOG_SESSION", "")  # so that it is taken away again
    with voicelog.session("call"):
        voicelog.inject(os.environ)
    assert os.environ["VOICELOG_SESSION"] == "id=call"


def test_without_a_session_in_the_environment_the_sentence_says_so(captured: Capture) -> None:
    with pytest.raises(ConfigError, match=r"no session in the environment: expected .*VOICELOG_SESSION"):
        voicelog.extract()


def test_a_handed_over_span_is_the_parent_on_the_other_side() -> None:
    headers: dict[str, str] = {}
    provider = TracerProvider(shutdown_on_exit=False)
    with capture(tracer_provider=provider) as here, voicelog.session("call"), voicelog.turn("t1"):
        voicelog.inject(headers)
    (turn,) = here.of("turn")
    with capture(tracer_provider=provider) as there, voicelog.extract(headers), voicelog.stage("llm"):
        pass
    (stage,) = there.of("llm_request")
    assert (stage.turn_id, stage.trace_id, stage.parent_id) == ("t1", turn.trace_id, turn.span_id)


def test_two_processes_are_two_streams_of_one_call_each_complete(mock_broker: str) -> None:
    """The parent hands its call to a child by the environment; both end their own stream with its total."""
    child = """
        import sys, voicelog
        voicelog.configure(brokers=sys.argv[1], service="child", health_interval_ms=0)
        with voicelog.extract():
            for _ in range(3):
                with voicelog.stage("llm"):
                    pass
    """
    parent = """
        import json, os, subprocess, sys, textwrap, voicelog
        voicelog.configure(brokers=sys.argv[1], service="parent", health_interval_ms=0)
        with voicelog.session("call", "ann", variant="b", attributes={"tenant": "acme"}), voicelog.turn("t1"):
            environ = dict(os.environ)
            voicelog.inject(environ, environ=True)
            command = [sys.executable, "-c", textwrap.dedent(sys.argv[2]), sys.argv[1]]
            subprocess.run(command, env=environ, check=True)
        """
    found = run_program(parent, mock_broker, child)
    assert (found.returncode, found.stderr) == (0, "")
    events = events_of(consume(mock_broker, 8))
    assert {(e.session_id, e.user_id, e.variant) for e in events} == {("call", "ann", "b")}
    streams = {stream: [e for e in events if e.stream_id == stream] for stream in {e.stream_id for e in events}}
    assert sorted(len(stream) for stream in streams.values()) == [3, 5]
    for stream in streams.values():
        assert [e.seq for e in stream] == list(range(1, len(stream) + 1))
        assert isinstance(stream[0], SessionStarted)
        assert stream[0].attributes == {"tenant": "acme"}
        assert isinstance(stream[-1], SessionEnded)
        assert stream[-1].events_total == len(stream)
    assert {e.turn_id for e in events if isinstance(e, LlmRequest)} == {"t1"}


def test_one_id_in_two_sessions_is_two_streams_of_one_call(captured: Capture) -> None:
    for _ in range(2):
        with voicelog.session("call"):
            pass
    assert {(e.session_id, e.stream_id, e.seq) for e in captured.events} == {
        ("call", f"0000000{stream}00000000", seq) for stream in (2, 3) for seq in (1, 2)
    }


def test_a_pools_threads_get_the_session_by_copy_context(captured: Capture) -> None:
    def look_up(query: str) -> str:
        with voicelog.stage("retrieval", query=query):
            return query.upper()

    with voicelog.session("call"), voicelog.turn("t"), ThreadPoolExecutor(4) as pool:
        bound = voicelog.copy_context(look_up)
        found = [pool.submit(bound, str(n)).result() for n in range(3)]
        found += pool.map(voicelog.copy_context(look_up), "abc")
    assert found == ["0", "1", "2", "A", "B", "C"]
    assert {(e.session_id, e.turn_id) for e in captured.of("stage")} == {("call", "t")}
    assert len(captured.of("stage")) == 6
    assert not voicelog.current_session()


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


def test_attributes_that_are_no_dict_are_not_handed_over() -> None:
    headers: dict[str, str] = {}
    with capture(strict=False) as captured, voicelog.session("s", attributes=Awkward()):  # type: ignore[arg-type]
        voicelog.inject(headers)
        assert headers == {"voicelog-session": "id=s"}
        assert captured.counters.get("faults") == 0
