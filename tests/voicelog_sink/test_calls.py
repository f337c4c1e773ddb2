"""A call's events sorted into turns."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import CallBuilder, realistic_call, troubled_call
from tests.strategies import events

from voicelog.events import Error, Event, Log, StageStarted, Turn
from voicelog_sink.calls import Call, CallTurn, call_of
from voicelog_sink.summary import summarise


def made(events: list[Event]) -> Call:
    summary = summarise(events)
    assert summary is not None
    return call_of(summary, events)


def all_of(turn: CallTurn) -> list[Event]:
    return [*([turn.event] if turn.event else []), *turn.stages, *turn.others]


@given(st.randoms())
def test_order_of_events_changes_nothing(random: Random) -> None:
    events = realistic_call().events
    shuffled = list(events)
    random.shuffle(shuffled)
    assert made(shuffled) == made(events)


@given(st.lists(events(session_id=st.just("c"), turn_id=st.none() | st.sampled_from("ab")), min_size=1, max_size=12))
def test_no_event_is_lost_but_the_start_of_a_stage_that_is_there(given_events: list[Event]) -> None:
    call = made(given_events)
    kept = [event for turn in call.turns for event in all_of(turn)] + list(call.outside)
    assert len(kept) == len([e for e in kept if e in given_events])
    assert all(isinstance(event, StageStarted) for event in given_events if event not in kept)


def test_turns_have_their_stages_in_order_and_what_was_said() -> None:
    call = made(realistic_call(turns=2).events)
    first, second = call.turns
    assert [stage.stage for stage in first.stages] == ["stt", "llm", "tts", "tts"]
    assert [stage.stage for stage in second.stages] == ["stt", "llm", "tool", "tts", "tts"]
    assert [heard.transcript for heard in first.heard] == ["Hi, do you have a table for two tonight?"]
    assert [getattr(said, "text", "") for said in first.spoken] == ["Good evening!", "Let me see what is free tonight."]
    assert [event.TYPE for event in call.outside] == ["session_started", "session_ended"]


def test_without_synthesis_the_model_s_answer_is_what_was_said() -> None:
    call = CallBuilder()
    call.stage("llm", 0, 10, turn_id="t", response="Hello")
    assert [getattr(said, "response", "") for said in made(call.events).turns[0].spoken] == ["Hello"]


def test_interim_results_are_not_what_the_user_said() -> None:
    call = CallBuilder()
    call.stage("stt", 0, 5, turn_id="t", transcript="he", is_final=False)
    call.stage("stt", 0, 9, turn_id="t", transcript="hello", is_final=True)
    assert [heard.transcript for heard in made(call.events).turns[0].heard] == ["hello"]


def test_stage_is_open_until_it_is_there_finished() -> None:
    call = CallBuilder()
    call.add(StageStarted, 0, stage="llm", turn_id="t", span_id="s1")
    call.add(StageStarted, 1, stage="tts", turn_id="t", span_id="s2")
    call.stage("llm", 0, 20_000, turn_id="t", span_id="s1")
    assert [(stage.TYPE, stage.stage) for stage in made(call.events).turns[0].stages] == [
        ("llm_request", "llm"), ("stage_started", "tts"),
    ]  # fmt: skip


def test_turns_that_were_given_the_same_id_stay_apart() -> None:
    call = CallBuilder()
    for at in (0, 1000):
        call.add(Turn, at, turn_id="turn", turn_number=1 + at // 1000)
        call.stage("stt", at + 10, 5, turn_id="turn", transcript=f"at {at}")
    turns = made(call.events).turns
    assert [turn.event.turn_number for turn in turns if turn.event] == [1, 2]
    assert [[heard.transcript for heard in turn.heard] for turn in turns] == [["at 0"], ["at 1000"]]


def test_failures_are_failed_stages_and_errors_but_no_logs() -> None:
    call = CallBuilder()
    call.stage("tool", 0, 5, turn_id="t", status="error")
    call.stage("llm", 0, 5, turn_id="t", status="interrupted")
    call.add(Error, 6, turn_id="t")
    call.add(Log, 7, turn_id="t", level="ERROR", message="m")
    assert [event.TYPE for event in made(call.events).turns[0].failed] == ["stage", "error"]


def test_events_of_no_turn_are_outside() -> None:
    assert [event.TYPE for event in made(troubled_call().events).outside] == [
        "session_started", "log", "metric", "error", "stage_started",
    ]  # fmt: skip
