"""A turn: seen by who was there before it, its marks, and what it measures."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.voicelog.strategies import ANYTHING, Awkward

import voicelog
from voicelog.errors import ConfigError
from voicelog.events import Contribution, Figure, Turn
from voicelog.latency import MARKS
from voicelog.marks import END, START
from voicelog.testing import START_US, Capture, capture
from voicelog.turn import MAX_STAGE_MARKS, MAX_STAGES
from voicelog.turn_marks import MAX_MARKS


def stepped(captured: Capture, name: str, ms: float, first_ms: float | None = None, **fields: Any) -> None:
    """Run a stage that takes `ms`."""
    with voicelog.stage(name, **fields) as stage:
        if first_ms is not None:
            captured.clock.advance(first_ms)
            stage.mark_first()
            ms -= first_ms
        captured.clock.advance(ms)


def test_a_turn_is_one_whole_event() -> None:
    with capture(step_ms=0) as captured, voicelog.session("call"), voicelog.turn() as turn:
        captured.clock.advance(300)
        turn.mark(START, ago_ms=200, anchor="vad")
        stepped(captured, "stt", 100)
        turn.mark("turn_committed")
        stepped(captured, "llm", 500, first_ms=400)
        stepped(captured, "tts", 300, first_ms=200)
        turn.mark(END)
        turn.set(topic="booking")
    at = {
        "llm_request": 400, "llm_first_token": 800, "stt_final": 400, "tts_request": 900, "tts_first_byte": 1100,
        START: 100, "turn_committed": 400, END: 1200, "session_start": 0,
    }  # fmt: skip
    parts = [
        ("transcription", 300, "service", "stt"), ("llm_ttft", 400, "service", "llm"),
        ("to_tts", 100, "pipeline", "llm"),
        ("tts_ttfb", 200, "service", "tts"), ("playback", 100, "pipeline", "tts"),
    ]  # fmt: skip
    figures = {
        "user_bot_latency_ms": 1100.0, "end_of_turn_delay_ms": 300.0, "transcription_delay_ms": 300.0,
        "turn_callback_delay_ms": 0.0, "llm_ttft_ms": 400.0, "tts_ttfb_ms": 200.0, "playback_latency_ms": 100.0,
        "first_bot_speech_ms": 1200.0, "unattributed_ms": 0.0,
    }  # fmt: skip
    assert captured.of("turn") == [
        Turn(
            stream_id="0000000200000000", seq=5, ts=START_US, session_id="call", turn_id="00000002-1",
            duration_ms=1200.0,
            status="ok", service="test", host="test-host", attributes={"topic": "booking"}, turn_number=1,
            marks={name: START_US + ms * 1000 for name, ms in at.items()},
            contributions=[Contribution(key=k, us=ms * 1000, owner=o, stage=s) for k, ms, o, s in parts],
            figures={name: Figure(value_ms=ms, anchor="vad") for name, ms in figures.items()},
            user_bot_latency_ms=1100.0, unattributed_ms=0.0, anchor="vad", quality="ok", was_interrupted=False,
            end_reason="completed",
        )
    ]  # fmt: skip


def test_a_turn_is_seen_by_tasks_that_were_started_before_it(captured: Capture) -> None:
    async def worker(name: str, work: asyncio.Queue[str | None]) -> None:
        while await work.get():
            with voicelog.stage(name):
                pass

    async def main() -> None:
        async with voicelog.session():
            queues = {name: asyncio.Queue[str | None]() for name in ("stt", "llm", "tts")}
            tasks = [asyncio.create_task(worker(name, queue)) for name, queue in queues.items()]
            await asyncio.sleep(0)
            for turn_id in ("t1", "t2"):
                with voicelog.turn(turn_id):
                    for queue in queues.values():
                        queue.put_nowait("work")
                    for _ in range(3):
                        await asyncio.sleep(0)
            for queue in queues.values():
                queue.put_nowait(None)
            await asyncio.gather(*tasks)

    asyncio.run(main())
    assert [(e.stage, e.turn_id) for e in captured.events if e.stage] == [
        (name, turn_id) for turn_id in ("t1", "t2") for name in ("stt", "llm", "tts")
    ]
    assert "llm_request" in captured.of("turn")[0].marks


def test_a_mark_is_when_it_was_not_when_one_hears_of_it() -> None:
    with capture(step_ms=0) as captured, voicelog.session(), voicelog.turn() as turn:
        captured.clock.advance(1000)
        turn.mark("own", ago_ms=250)
        turn.mark("later", ago_ms=-100)
        turn.mark("moved")
        captured.clock.advance(5)
        turn.mark("moved")
    at = {"own": 750, "later": 1100, "moved": 1005}
    assert captured.of("turn")[0].marks == {name: START_US + ms * 1000 for name, ms in at.items()}


def test_the_users_mark_wins_over_a_stages() -> None:
    for users_first in (True, False):
        with capture(step_ms=0) as captured, voicelog.session(), voicelog.turn() as turn:
            if users_first:
                turn.mark("llm_request", ago_ms=-7)
            stepped(captured, "llm", 10)
            if not users_first:
                turn.mark("llm_request", ago_ms=3)
        assert captured.of("turn")[0].marks["llm_request"] == START_US + 7_000


def test_the_earliest_of_a_stages_marks_counts() -> None:
    """Also where it is heard of last, as with results that are published."""
    with capture(step_ms=0) as captured, voicelog.session(), voicelog.turn():
        captured.clock.advance(1000)
        stepped(captured, "llm", 50, first_ms=20)
        stepped(captured, "llm", 50, first_ms=20)
        voicelog.publish_llm_request("late", ago_ms=600, duration_ms=300, first_item_ms=100)
    marks = captured.of("turn")[0].marks
    assert (marks["llm_request"], marks["llm_first_token"]) == (START_US + 200_000, START_US + 300_000)


@pytest.mark.parametrize(("fields", "marked"), [({}, True), ({"is_final": True}, True), ({"is_final": False}, False)])
def test_only_a_final_result_is_the_end_of_recognition(captured: Capture, fields: Any, marked: bool) -> None:
    with voicelog.session(), voicelog.turn(), voicelog.stage("stt", **fields):
        pass
    assert ("stt_final" in (captured.of("turn")[0].marks or {})) is marked


def test_a_failed_recognition_is_not_final(captured: Capture) -> None:
    with voicelog.session(), voicelog.turn(), pytest.raises(KeyError), voicelog.stage("stt"):
        raise KeyError
    assert "stt_final" not in captured.of("turn")[0].marks


NAMES = st.sampled_from([*MARKS, "own"])
ACTIONS = st.lists(
    st.tuples(st.just("mark"), NAMES, st.floats(-500, 500))
    | st.tuples(st.just("stage"), st.sampled_from(["stt", "llm", "tts", "tool", "vad"]), st.floats(0, 300))
    | st.tuples(st.just("publish"), st.sampled_from(["stt", "llm", "tts"]), st.floats(0, 300)),
    max_size=15,
)


@given(ACTIONS)
def test_whatever_happens_in_a_turn_its_parts_sum_to_its_latency(actions: list[tuple[str, str, float]]) -> None:
    publish: dict[str, Any] = {
        "stt": voicelog.publish_stt_result, "llm": voicelog.publish_llm_request, "tts": voicelog.publish_tts_result,
    }  # fmt: skip
    with capture(step_ms=1.25) as captured, voicelog.session(), voicelog.turn() as turn:
        for action, name, ms in actions:
            if action == "mark":
                turn.mark(name, ago_ms=ms)
            elif action == "stage":
                stepped(captured, name, ms, first_ms=ms / 3)
            else:
                publish[name](ago_ms=ms / 2, duration_ms=ms, first_item_ms=ms / 4)
    (event,) = captured.of("turn")
    marks = event.marks or {}
    if START in marks and END in marks and marks[END] >= marks[START]:
        whole_us = marks[END] - marks[START]
        assert sum(part.us for part in event.contributions) == whole_us
        assert event.user_bot_latency_ms == whole_us / 1000
        unattributed = [part.us for part in event.contributions if part.key == "unattributed"]
        assert event.unattributed_ms == sum(unattributed) / 1000
    else:
        assert (event.contributions, event.user_bot_latency_ms, event.unattributed_ms) == (None, None, None)
        assert event.quality != "ok"


@pytest.mark.parametrize(
    ("marks", "interrupted", "quality"),
    [
        ((START, END), False, "ok"),
        ((END,), False, "no_anchor"),
        ((), False, "no_anchor"),
        ((START,), False, "no_anchor"),
        ((START,), True, "interrupted"),
        ((), True, "no_anchor"),
        ((START, END), True, "ok"),
        ((END, START), False, "clock_suspect"),
    ],
)
def test_quality_of_a_turn(captured: Capture, marks: tuple[str, ...], interrupted: bool, quality: str) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        for name in marks:
            turn.mark(name)
        if interrupted:
            turn.interrupt()
    (event,) = captured.of("turn")
    assert event.quality == quality
    assert (event.was_interrupted, event.status, event.end_reason) == (
        (True, "interrupted", "interrupted") if interrupted else (False, "ok", "completed")
    )


def test_an_interruption_before_the_bot_spoke_is_no_ok_latency() -> None:
    with capture(step_ms=0) as captured, voicelog.session(), voicelog.turn() as turn:
        turn.mark(START)
        captured.clock.advance(500)
        turn.interrupt(ago_ms=100)
        turn.mark(END)
    (event,) = captured.of("turn")
    assert (event.quality, event.figures["user_bot_latency_ms"].quality) == ("interrupted", "interrupted")
    assert event.marks["interrupted_at"] == START_US + 400_000


def mark_and_cancel() -> None:
    voicelog.current_turn().mark(START)
    raise asyncio.CancelledError


def test_a_cancelled_turn_is_interrupted_and_a_failed_one_goes_on_failing(captured: Capture) -> None:
    with voicelog.session():
        with pytest.raises(asyncio.CancelledError), voicelog.turn():
            mark_and_cancel()
        with pytest.raises(KeyError), voicelog.turn():
            raise KeyError
    assert [(t.was_interrupted, t.quality) for t in captured.of("turn")] == [
        (True, "interrupted"),
        (False, "no_anchor"),
    ]


def test_turns_are_counted_and_end_with_the_session(captured: Capture) -> None:
    with voicelog.session() as call:
        with voicelog.turn():
            pass
        call.start_turn("own")
        call.start_turn()
    assert [(t.turn_number, t.turn_id, t.end_reason) for t in captured.of("turn")] == [
        (1, "00000002-1", "completed"), (3, "00000002-3", "session_closed"), (2, "own", "session_closed"),
    ]  # fmt: skip


def test_the_turn_before_comes_back_in_whatever_order_they_end(captured: Capture) -> None:
    with voicelog.session() as call:
        first, second, third = call.start_turn("1"), call.start_turn("2"), call.start_turn("3")
        second.end()
        assert voicelog.current_turn() is third
        third.end()
        assert voicelog.current_turn() is first
        first.end()
        assert not voicelog.current_turn()
        assert not first
    assert [t.turn_id for t in captured.of("turn")] == ["2", "3", "1"]


@given(st.lists(st.integers(0, 4), max_size=12), st.randoms(use_true_random=False))
def test_turns_opened_and_ended_in_any_order_are_each_one_event(ends: list[int], rng: random.Random) -> None:
    with capture() as captured:
        with voicelog.session() as call:
            turns = []
            for end in ends:
                turns.append(call.start_turn())
                if end < len(turns):
                    turns[rng.randrange(len(turns))].end()
            open_turns = [turn for turn in turns if turn]
            assert voicelog.current_turn() is open_turns[-1] if open_turns else not voicelog.current_turn()
        assert len(captured.of("turn")) == len(turns)


def test_starting_an_open_turn_again_changes_nothing(captured: Capture) -> None:
    """As `with session.start_turn():` does."""
    with voicelog.session() as call:
        with call.start_turn("t") as turn:
            turn.start()
        turn.end()
    assert [(t.turn_id, t.turn_number, t.end_reason) for t in captured.of("turn")] == [("t", 1, "completed")]


def test_a_turn_entered_while_it_is_open_is_counted_and_ends_with_its_first_block(lenient: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        with turn:
            pass
        assert turn
        with voicelog.stage("x"):
            pass
    assert lenient.of("stage")[0].turn_id == turn.id
    assert len(lenient.turns) == 1
    assert lenient.counters.snapshot()["invalid"] == {"turn.reentered": 1}


def test_a_turn_used_again_begins_anew(captured: Capture) -> None:
    with voicelog.session():
        turn = voicelog.turn()
        with turn:
            turn.mark(START)
            turn.interrupt()
        with turn:
            pass
    first, second = captured.of("turn")
    assert (second.turn_number, second.turn_id, second.was_interrupted) == (2, "00000002-2", False)
    assert (second.marks or {}, first.turn_id) == ({}, "00000002-1")


def test_ended_from_many_threads_at_once_a_turn_is_one_event(captured: Capture) -> None:
    with voicelog.session() as call:
        turns = [call.start_turn() for _ in range(200)]
        start = threading.Barrier(4)

        def end_all() -> None:
            start.wait()
            for turn in turns:
                turn.end()

        threads = [threading.Thread(target=end_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not voicelog.current_turn()
    assert len(captured.of("turn")) == 200


def test_what_a_turn_keeps_is_bounded(lenient: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        for n in range(MAX_MARKS + 5):
            turn.mark(f"m{n}")
        turn.mark("m0")
        for _ in range(MAX_STAGES + 5):
            with voicelog.stage("x"):
                pass
        for _ in range(MAX_STAGE_MARKS + 5):
            turn.stage_mark("x", 0)
        assert (len(turn.runs), len(turn._stage_marks)) == (MAX_STAGES, MAX_STAGE_MARKS)
    assert len(lenient.of("turn")[0].marks) == MAX_MARKS
    assert lenient.counters.snapshot()["invalid"] == {"mark.many": 5}


@pytest.mark.parametrize(
    ("name", "given", "what"),
    [
        (5, {}, "mark"), ("", {}, "mark"), ("m", {"ago_ms": "1"}, "mark"), ("m", {"ago_ms": float("nan")}, "mark"),
        ("m", {"ago_ms": 1e12}, "mark"), ("m", {"ago_ms": None}, "mark"), (Awkward(), {}, "mark"),
        ("m", {"ago_ms": Awkward()}, "mark"), ("m", {"anchor": "nonsense"}, "mark.anchor"),
        ("m", {"anchor": []}, "mark.anchor"), ("m", {"at_us": "now"}, "mark.at_us"), ("m", {"at_us": 5}, "mark.at_us"),
        ("m", {"at_us": START_US // 1000}, "mark.at_us"), ("m", {"at_us": START_US, "ago_ms": 5}, "mark.at_us"),
        ("m", {"at_us": float("nan")}, "mark.at_us"), ("m", {"at_us": Awkward()}, "mark.at_us"),
    ],
)  # fmt: skip
def test_a_wrong_mark_is_counted_and_raises_only_in_a_test(name: Any, given: dict[str, Any], what: str) -> None:
    with capture(strict=False) as captured, voicelog.session(), voicelog.turn() as turn:
        turn.mark(name, **given)
    assert captured.counters.snapshot()["invalid"] == {what: 1}
    with (
        capture(),
        voicelog.session(),
        voicelog.turn() as turn,
        pytest.raises(ConfigError, match=r"mark\(.*: expected"),
    ):
        turn.mark(name, **given)


@given(ANYTHING, ANYTHING, ANYTHING, st.dictionaries(st.text(max_size=3), ANYTHING, max_size=3))
def test_whatever_is_given_a_turn_can_be_read(turn_id: Any, name: Any, ms: Any, attributes: dict[str, Any]) -> None:
    with capture(strict=False) as captured:
        with voicelog.session(), voicelog.turn(turn_id) as turn:
            turn.mark(START, ago_ms=ms, anchor=name)
            turn.mark(name)
            turn.interrupt(ago_ms=ms)
            turn.set(**attributes)
            turn.mark(END)
            turn.end(end_reason=name)
        assert [event.TYPE for event in captured.events] == ["session_started", "turn", "session_ended"]
        assert captured.counters.snapshot()["faults"] == {}


def test_a_turn_outside_of_a_session_is_counted(lenient: Capture) -> None:
    with voicelog.turn() as turn:
        turn.mark(START)
    assert lenient.messages == []
    assert lenient.counters.snapshot()["dropped"] == {"no_session": 1}


def test_without_a_turn_the_current_one_records_nothing(captured: Capture) -> None:
    voicelog.current_turn().mark(START)
    voicelog.current_turn().interrupt()
    with voicelog.session():
        voicelog.current_turn().mark(START)
        assert not voicelog.current_turn()
        with voicelog.stage("x"):
            pass
    assert captured.of("turn") == []
    assert captured.of("stage")[0].turn_id is None


def test_async_with_is_a_turn_too(captured: Capture) -> None:
    async def main() -> None:
        async with voicelog.session(), voicelog.turn("t") as turn:
            assert voicelog.current_turn() is turn

    asyncio.run(main())
    assert [t.turn_id for t in captured.of("turn")] == ["t"]


def test_turn_that_an_exception_left_says_so(voicelog_capture: Capture) -> None:
    with pytest.raises(ValueError, match="boom"), voicelog.session(), voicelog.turn():
        raise ValueError("boom")
    (ended,) = voicelog_capture.of("turn")
    assert (ended.status, ended.end_reason) == ("error", "error")
