"""A stage as a block: what is recorded, and that the program is left as it was."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.voicelog.strategies import ANYTHING, Awkward, Proxy

import voicelog
from voicelog.context import stage_var
from voicelog.errors import ConfigError
from voicelog.events import LlmRequest, StageEvent, SttResult, TtsResult
from voicelog.testing import START_US, Capture, capture


def test_a_block_is_one_whole_event(captured: Capture) -> None:
    stage = voicelog.stage("stt", provider="deepgram", model="nova-3")
    with voicelog.session("call", "ann", variant="b"), voicelog.turn(), stage as stt:
        stt.mark_first()
        stt.set(transcript="hello", confidence=0.9, is_final=True, room="kitchen")
    assert captured.of("stt_result") == [
        SttResult(
            stream_id="0000000200000000", seq=2, ts=START_US + 4_000, session_id="call", turn_id="00000002-1",
            stage="stt",
            duration_ms=2.0, first_item_ms=1.0, status="ok", service="test", host="test-host", user_id="ann",
            provider="deepgram", model="nova-3", variant="b", span_id="0000000210000000",
            attributes={"room": "kitchen"},
            transcript="hello", confidence=0.9, is_final=True,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cls", "topic"),
    [
        ("stt", SttResult, "stt-results"),
        ("llm", LlmRequest, "llm-requests"),
        ("tts", TtsResult, "tts-results"),
        ("vad", StageEvent, "voice-events"),
        ("My own", StageEvent, "voice-events"),
    ],
)
def test_the_name_decides_type_and_topic(captured: Capture, name: str, cls: type, topic: str) -> None:
    with voicelog.session("call"), voicelog.stage(name):
        pass
    message = captured.messages[1]
    assert (type(captured.events[1]), captured.events[1].stage) == (cls, name)
    assert (message.topic, message.key) == (topic, b"call")


def test_whole_numbers_are_typed_fields(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("tts", sample_rate_hz=24_000) as tts:
        tts.set(characters=12, bytes=4800)
    (event,) = captured.of("tts_result")
    assert (event.sample_rate_hz, event.characters, event.bytes, event.attributes) == (24_000, 12, 4800, None)


def test_usage_keeps_the_last_value_of_each_count(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm", usage={"input_tokens": 1}) as llm:
        llm.usage(input_tokens=10, output_tokens=3)
        llm.set(usage={"output_tokens": 7, "audio_seconds": 1.5})
        llm.usage(reasoning_tokens=None)  # type: ignore[arg-type]
    assert captured.of("llm_request")[0].usage == {"input_tokens": 10, "output_tokens": 7, "audio_seconds": 1.5}


def test_usage_takes_what_a_provider_reports(captured: Capture) -> None:
    reported = SimpleNamespace(
        prompt_tokens=10, completion_tokens=3, prompt_tokens_details=SimpleNamespace(cached_tokens=4)
    )
    with voicelog.session():
        with voicelog.stage("llm") as llm:
            llm.usage(reported, output_tokens=5, audio_seconds=2)
            llm.usage(None)
        with voicelog.stage("llm", usage=reported):
            pass
    first, second = captured.of("llm_request")
    assert first.usage == {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 5, "audio_seconds": 2}
    assert second.usage == {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 3}


@pytest.mark.parametrize("value", [5, "10", [("input_tokens", 1)], Awkward()])
def test_usage_that_is_no_dict_is_left_out_and_counted(lenient: Capture, value: Any) -> None:
    with voicelog.session(), voicelog.stage("llm", usage=value):
        pass
    assert (lenient.of("llm_request")[0].usage, lenient.of("llm_request")[0].attributes) == (None, None)
    assert lenient.counters.snapshot()["invalid"] == {"stage.usage": 1}


def test_a_prompt_is_sent_only_when_it_is_captured() -> None:
    messages = [{"role": "user", "content": "hi"}]
    for given_content, prompt, response in (("all", '[{"role":"user","content":"hi"}]', "yes"), ("none", None, None)):
        with capture(capture_content=given_content) as captured:
            with voicelog.session(), voicelog.stage("llm", prompt=messages, response="yes") as llm:
                messages_then = list(messages)
                llm.set(model="m")
            (event,) = captured.of("llm_request")
            assert (event.prompt, event.response, event.model) == (prompt, response, "m")
            assert messages == messages_then


class BoomError(Exception):
    pass


@pytest.mark.parametrize(
    ("make", "status", "recorded"),
    [
        (lambda: BoomError("bad"), "error", True),
        (asyncio.CancelledError, "cancelled", False),
        (KeyboardInterrupt, "interrupted", False),
        (lambda: SystemExit(3), "interrupted", False),
        (GeneratorExit, "interrupted", False),
    ],
)
def test_an_exception_goes_on_unchanged_and_is_recorded(
    captured: Capture, make: Callable[[], BaseException], status: str, recorded: bool
) -> None:
    exc, cause = make(), ValueError("cause")
    with voicelog.session():
        with pytest.raises(type(exc)) as caught, voicelog.stage("llm"):
            raise exc from cause
        assert caught.value is exc
        assert exc.__cause__ is cause
    (event,) = captured.of("llm_request")
    assert event.status == status
    assert (event.error is not None) is recorded
    if recorded:
        assert event.error.type.endswith("test_stage.BoomError")
        assert event.error.message == "bad"
        assert "ValueError: cause" in event.error.stack
        assert "test_an_exception_goes_on_unchanged" in event.error.stack


def test_an_exception_inside_an_exception_is_recorded_in_each_stage_it_leaves(captured: Capture) -> None:
    def fail_twice() -> None:
        try:
            with voicelog.stage("inner"):
                raise ValueError("first")
        except ValueError as exc:
            with voicelog.stage("apology"):
                pass
            raise BoomError("second") from exc

    with voicelog.session(), pytest.raises(BoomError), voicelog.stage("outer"):
        fail_twice()
    found = {event.stage: event for event in captured.of("stage")}
    assert {name: event.status for name, event in found.items()} == {
        "inner": "error",
        "apology": "ok",
        "outer": "error",
    }
    assert "ValueError: first" in found["outer"].error.stack


def test_an_exception_whose_str_fails_is_recorded(captured: Capture) -> None:
    class RudeError(Exception):
        def __str__(self) -> str:
            message = "no"
            raise RuntimeError(message)

    with voicelog.session(), pytest.raises(RudeError), voicelog.stage("x"):
        raise RudeError
    assert captured.of("stage")[0].error.message == "<str() of it fails: RuntimeError>"


def run_and_fail(stage: voicelog.Stage) -> None:
    with stage:
        stage.mark_first()
        raise BoomError


def fail_and_cancel() -> None:
    voicelog.current_stage().fail(BoomError("before"))
    raise asyncio.CancelledError


def test_fail_and_interrupt_record_what_no_exception_says(captured: Capture) -> None:
    with voicelog.session():
        with voicelog.stage("a") as a:
            a.fail(BoomError("told"))
        with voicelog.stage("b") as b:
            b.interrupt()
        with pytest.raises(asyncio.CancelledError), voicelog.stage("c"):
            fail_and_cancel()
    a_event, b_event, c_event = captured.of("stage")
    assert (a_event.status, a_event.error.message) == ("error", "told")
    assert (b_event.status, b_event.error) == ("interrupted", None)
    assert (c_event.status, c_event.error.message) == ("error", "before")


def test_async_with_times_the_block_and_a_cancelled_task_is_cancelled(captured: Capture) -> None:
    async def main() -> None:
        async with voicelog.session(), voicelog.turn():
            async with voicelog.stage("stt"):
                await asyncio.sleep(0)
            task = asyncio.create_task(hang())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def hang() -> None:
        async with voicelog.stage("llm"):
            await asyncio.Event().wait()

    asyncio.run(main())
    assert [(e.stage, e.status) for e in captured.events if e.stage] == [("stt", "ok"), ("llm", "cancelled")]


def test_a_stage_within_a_stage_has_it_as_parent(captured: Capture) -> None:
    with voicelog.session():
        with voicelog.stage("outer") as outer:
            assert voicelog.current_stage() is outer
            with voicelog.stage("inner"), voicelog.stage("innermost"):
                pass
            with voicelog.stage("second"):
                pass
        with voicelog.stage("alone"):
            pass
    spans = {event.stage: event.span_id for event in captured.of("stage")}
    parents = {event.stage: event.parent_id for event in captured.of("stage")}
    outer_id = spans["outer"]
    assert parents == {
        "innermost": spans["inner"], "inner": outer_id, "second": outer_id, "outer": None, "alone": None,
    }  # fmt: skip


def test_a_stage_of_another_session_is_no_parent(captured: Capture) -> None:
    with voicelog.session("a"), voicelog.stage("outer"), voicelog.session("b"), voicelog.stage("inner"):
        pass
    assert {event.stage: event.parent_id for event in captured.of("stage")} == {"inner": None, "outer": None}


def test_tasks_have_their_own_current_stage(captured: Capture) -> None:
    async def part(name: str) -> None:
        with voicelog.stage(name):
            await asyncio.sleep(0)
            assert voicelog.current_stage().name == name
            with voicelog.stage(f"in-{name}"):
                await asyncio.sleep(0)

    async def main() -> None:
        with voicelog.session(), voicelog.stage("root"):
            await asyncio.gather(*(part(f"s{n}") for n in range(5)))

    asyncio.run(main())
    events = captured.of("stage")
    names = {event.span_id: event.stage for event in events}
    assert {e.stage: names.get(e.parent_id) for e in events} == {
        "root": None, **{f"s{n}": "root" for n in range(5)}, **{f"in-s{n}": f"s{n}" for n in range(5)},
    }  # fmt: skip


def test_nothing_is_current_after_the_block(captured: Capture) -> None:
    with voicelog.session():
        with pytest.raises(BoomError), voicelog.stage("x"):
            raise BoomError
        assert stage_var.get() is None
        assert not voicelog.current_stage()


def test_a_stage_left_in_another_context_is_ended_and_leaves_nothing_there(captured: Capture) -> None:
    with voicelog.session():
        stage = voicelog.stage("x")
        inside = contextvars.copy_context()
        inside.run(stage.__enter__)
        other = inside.copy()
        other.run(stage.__exit__, None, None, None)
        assert other.run(stage_var.get) is None
    assert len(captured.of("stage")) == 1


def test_a_stage_used_again_begins_anew(captured: Capture) -> None:
    with voicelog.session():
        stage = voicelog.stage("x", provider="p")
        with pytest.raises(BoomError):
            run_and_fail(stage)
        with stage:
            pass
    first, second = captured.of("stage")
    assert (first.status, second.status) == ("error", "ok")
    assert (second.error, second.first_item_ms, second.provider) == (None, None, "p")
    assert first.span_id != second.span_id


def test_what_a_run_yielded_is_not_the_next_ones(captured: Capture) -> None:
    llm, tts = voicelog.stage("llm", parameters={"top_k": 1}, plan="gold"), voicelog.stage("tts", voice="ann")
    with voicelog.session():
        for stage in (llm, tts):
            with stage:
                stage.usage(input_tokens=5)
                stage.set(response="yes", finish_reason="stop", cost_usd=1.0, audio_ms=5.0, characters=3, bytes=4)
            with stage:
                pass
    first, second = captured.of("llm_request")
    assert (first.response, first.usage, first.cost_usd) == ("yes", {"input_tokens": 5}, 1.0)
    assert (second.response, second.finish_reason, second.usage, second.cost_usd) == (None, None, None, None)
    assert (second.parameters, second.attributes["plan"]) == ({"top_k": 1}, "gold")
    spoken = captured.of("tts_result")[1]
    assert (spoken.audio_ms, spoken.characters, spoken.bytes, spoken.voice) == (None, None, None, "ann")


def test_a_stage_entered_while_it_is_open_is_counted_and_recorded_once(lenient: Capture) -> None:
    with voicelog.session():
        stage = voicelog.stage("x")
        with stage:
            with stage, stage:
                pass
            assert stage
            assert voicelog.current_stage() is stage
        assert stage_var.get() is None
    assert len(lenient.of("stage")) == 1
    assert lenient.counters.snapshot()["invalid"] == {"stage.reentered": 2}


def test_a_stage_that_never_ends_is_no_event_and_no_error(captured: Capture) -> None:
    with voicelog.session():
        stage = voicelog.stage("x")
        stage.begin()
        with voicelog.stage("y"):
            pass
    assert [event.stage for event in captured.of("stage")] == ["y"]


def test_ending_twice_is_one_event(captured: Capture) -> None:
    with voicelog.session():
        stage = voicelog.stage("x")
        stage.begin()
        stage.finish()
        stage.finish(BoomError())
    assert [event.status for event in captured.of("stage")] == ["ok"]


def test_outside_of_a_session_a_stage_is_counted_and_harmless(
    lenient: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with voicelog.stage("x") as stage:
            stage.set(a=1)
            stage.mark_first()
            assert not stage
            assert not voicelog.current_stage()
    assert lenient.messages == []
    assert lenient.counters.snapshot()["dropped"] == {"no_session": 3}
    assert [r.getMessage() for r in caplog.records] == [
        "voicelog: stage 'x' outside of a session is not recorded: put `with voicelog.session():` around the call"
    ]


def test_an_unrecorded_stage_does_not_lend_its_name_to_the_one_around_it(lenient: Capture) -> None:
    with voicelog.session() as call:
        turn = call.start_turn()
    with voicelog.stage("outer", turn=turn) as outer:
        with voicelog.stage("inner"):
            voicelog.current_stage().set(a=1)
        outer.set(b=2)
    assert [event.attributes for event in lenient.of("stage")] == [{"b": 2}]


def test_a_turn_may_be_given_where_no_context_leads_to_it(captured: Capture) -> None:
    def work() -> None:
        with voicelog.stage("llm", turn=turn):
            pass

    with voicelog.session("call"), voicelog.turn("t1") as turn:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert [(e.session_id, e.turn_id) for e in captured.of("llm_request")] == [("call", "t1")]


def test_a_turn_that_records_nothing_leaves_the_stage_in_its_session(captured: Capture) -> None:
    with voicelog.session("call"), voicelog.stage("llm", turn=voicelog.current_turn()):
        pass
    assert [(e.session_id, e.turn_id) for e in captured.of("llm_request")] == [("call", None)]


@pytest.mark.parametrize("name", ["", None, 5, "x" * 3000, "\ud800", b"stt", Awkward()])
def test_any_name_makes_an_event_that_can_be_stored(lenient: Capture, name: Any) -> None:
    with voicelog.session(), voicelog.stage(name):
        pass
    (event,) = lenient.of("stage")
    assert event.stage


def test_a_stage_without_a_name_is_unnamed_and_counted(lenient: Capture) -> None:
    with voicelog.session(), voicelog.stage():
        pass
    assert lenient.of("stage")[0].stage == "unnamed"
    assert lenient.counters.snapshot()["invalid"] == {"stage.name": 1}


def test_the_name_may_be_a_keyword_and_fields_any_word(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage(name="vad", self=1, cls=2, kind="k") as vad:
        vad.set(name="inner", self=3)
    (event,) = captured.of("stage")
    assert (event.stage, event.attributes) == ("vad", {"self": 3, "cls": 2, "kind": "k", "name": "inner"})


WRONG = [
    ("confidence", float("nan")), ("confidence", "high"), ("confidence", 10**400), ("provider", 5),
    ("model", Awkward()),
    ("cost_usd", float("inf")), ("is_final", 1), ("language", ["en"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_left_out_and_counted(lenient: Capture, name: str, value: Any) -> None:
    with voicelog.session(), voicelog.stage("stt", **{name: value}) as stt:
        stt.set(transcript="kept")
    (event,) = lenient.of("stt_result")
    assert (getattr(event, name), event.transcript, event.attributes) == (None, "kept", None)
    assert lenient.counters.snapshot()["invalid"] == {f"stage.{name}": 1}


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_raises_in_a_users_test(captured: Capture, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"stage 'stt': {name}=.*: expected"):
        voicelog.stage("stt", **{name: value})


def test_none_takes_a_field_back(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("stt", provider="p", language="en") as stt:
        stt.set(language=None)
    assert (captured.of("stt_result")[0].language, captured.of("stt_result")[0].provider) == (None, "p")


NAMES = st.sampled_from(
    ["provider", "model", "transcript", "confidence", "is_final", "prompt", "parameters", "sample_rate_hz", "user_id",
     "variant", "cost_usd", "usage", "status", "error", "attributes", "stage", "turn", "name", "x", "é"]
)  # fmt: skip


@given(
    st.sampled_from(["stt", "llm", "tts", "own"]), st.dictionaries(NAMES, ANYTHING, max_size=4),
    st.dictionaries(NAMES | st.text(max_size=3), ANYTHING, max_size=3), ANYTHING,
)  # fmt: skip
def test_whatever_is_given_the_event_can_be_read_and_nothing_raises(
    name: str, fields: dict[str, Any], counts: dict[str, Any], exc: Any
) -> None:
    with capture(strict=False, capture_content="all") as captured:
        with voicelog.session("call"):
            fields.pop("name", None)
            with voicelog.stage(name, **fields) as stage:
                stage.set(**fields)
                stage.usage(**counts)
                if exc is not None:
                    stage.fail(exc)
        assert [event.stage for event in captured.events] == [None, name, None]
        assert [event.seq for event in captured.events] == [1, 2, 3]
        assert captured.counters.snapshot()["faults"] == {}


def test_one_attribute_that_can_not_even_be_asked_its_class_spoils_no_other(lenient: Capture) -> None:
    with voicelog.session(attributes={"user": Proxy(), "tenant": "acme"}), voicelog.turn() as turn:
        with voicelog.stage("llm", prompt=Proxy()) as llm:  # type: ignore[call-overload]
            llm.set(user=Proxy(), plan="gold", deep=[Proxy(), 1])
            llm.fail(Proxy())
        turn.mark(Proxy())  # type: ignore[arg-type]
        turn.set(user=Proxy(), plan="gold")
        voicelog.log_error(Proxy())  # type: ignore[arg-type]
    started, failed, _, told, _ = lenient.events
    assert started.attributes.pop("user").startswith("<tests.voicelog.strategies.Proxy object")
    assert started.attributes == {"tenant": "acme"}
    assert (failed.attributes["plan"], failed.attributes["deep"][1], failed.status) == ("gold", 1, "error")
    assert told.attributes["plan"] == "gold"
    assert lenient.counters.snapshot()["faults"] == {}


def test_switched_off_a_stage_is_only_a_block() -> None:
    with voicelog.session("x"), voicelog.turn() as turn, voicelog.stage("llm", a=Awkward()) as llm:
        turn.mark("playback_start")
        llm.set(b=Awkward(), confidence=Awkward())
        llm.usage(x=Awkward())  # type: ignore[arg-type]
        llm.fail(BoomError())
        assert not llm
        assert not turn
        assert stage_var.get() is None
    assert voicelog.stats()["produced"] == 0


def test_stages_from_many_threads_are_each_recorded_once(captured: Capture) -> None:
    def work() -> None:
        for _ in range(200):
            with voicelog.stage("x"):
                pass

    with voicelog.session():
        threads = [threading.Thread(target=voicelog.copy_context(work)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = captured.of("stage")
    assert len(events) == len({event.span_id for event in events}) == 800
    assert sorted(event.seq for event in captured.events) == list(range(1, 803))
    assert captured.of("session_ended")[0].events_total == 802


class BrokenError(Exception):
    pass


def measure_and_fail() -> None:
    voicelog.metric("m", 1)
    voicelog.current_turn().mark("own")
    raise BoomError("own")


def test_a_fault_within_voicelog_is_counted_and_the_users_own_exception_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise BrokenError("inside")

    with capture(strict=False) as captured:
        monkeypatch.setattr(captured, "produce", broken)
        with pytest.raises(BoomError) as caught, voicelog.session(), voicelog.turn(), voicelog.stage("llm"):
            measure_and_fail()
        assert str(caught.value) == "own"
        assert caught.value.__context__ is None
        faults = captured.counters.snapshot()["faults"]
    assert faults == {"session.start": 1, "metric": 1, "stage.finish": 1, "turn.end": 1, "session.end": 1}
    assert "internal error in stage.finish, your program goes on: BrokenError('inside')" in caplog.text


def test_a_fault_within_voicelog_raises_in_a_users_test(monkeypatch: pytest.MonkeyPatch, captured: Capture) -> None:
    def broken(*_: object) -> str:
        raise BrokenError("inside")

    with voicelog.session():
        stage = voicelog.stage("llm")
        stage.begin()
        with monkeypatch.context() as patched:
            patched.setattr(captured, "produce", broken)
            with pytest.raises(BrokenError, match="inside"):
                stage.finish()
