"""A session: its stream can be proven whole, and every event carries whose call it is."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading
import uuid
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.voicelog.strategies import ANYTHING, Awkward

import voicelog
from voicelog.context import session_var
from voicelog.errors import ConfigError
from voicelog.events import SessionEnded, SessionStarted
from voicelog.session import Session, open_sessions, those_open
from voicelog.testing import START_US, Capture, capture


def test_a_session_is_two_whole_events(captured: Capture) -> None:
    with voicelog.session("call", "ann", variant="b", attributes={"tenant": "acme"}) as call:
        call.disconnected("user_hangup")
    who = {
        "stream_id": "0000000200000000", "session_id": "call", "service": "test", "host": "test-host", "user_id": "ann",
        "variant": "b",
    }  # fmt: skip
    assert captured.events == [
        SessionStarted(seq=1, ts=START_US + 2000, attributes={"tenant": "acme"}, **who),
        SessionEnded(
            seq=2, ts=START_US + 4000, duration_ms=1.0, status="ok", events_total=2, disconnect_reason="user_hangup",
            **who
        ),
    ]  # fmt: skip


def test_every_event_of_a_call_says_whose_it_is(captured: Capture) -> None:
    with voicelog.session("call", "ann", variant="b"), voicelog.turn():
        with voicelog.stage("stt"):
            pass
        voicelog.metric("m", 1)
        voicelog.publish_log("l")
        voicelog.log_error(ValueError())
        voicelog.health("bot", "ok")
        voicelog.publish_tts_result("hi")
    assert len(captured.events) == 9
    assert {(e.session_id, e.user_id, e.variant, e.stream_id) for e in captured.events} == {
        ("call", "ann", "b", "0000000200000000")
    }
    assert {message.key for message in captured.messages} == {b"call"}
    assert [e.seq for e in captured.events] == list(range(1, 10))


@given(st.lists(st.sampled_from(["stage", "turn", "metric", "log", "full", "free"]), max_size=30))
def test_gaps_in_seq_are_the_counted_drops(actions: list[str]) -> None:
    """The count is taken before an event can be dropped, so what is missing is known, event by event."""
    with capture() as captured:
        with voicelog.session() as call:
            for action in actions:
                if action in ("full", "free"):
                    captured.full = action == "full"
                elif action == "stage":
                    with voicelog.stage("x"):
                        pass
                elif action == "turn":
                    call.start_turn().end()
                else:
                    voicelog.metric("m", 1) if action == "metric" else voicelog.publish_log("l")
            captured.full = False
        ended = captured.of("session_ended")[0]
        arrived = [event.seq for event in captured.events]
        counts = captured.counters.snapshot()
    produced = 2 + sum(action not in ("full", "free") for action in actions)
    assert ended.events_total == ended.seq == produced
    assert arrived == sorted(set(arrived))
    assert produced - len(arrived) == counts["dropped"].get("queue_full", 0)
    assert counts["produced"] == len(arrived)


def test_threads_of_one_session_share_its_count(captured: Capture) -> None:
    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            captured.full = rng.random() < 0.3
            voicelog.metric("m", 1)

    with voicelog.session():
        threads = [threading.Thread(target=voicelog.copy_context(work), args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        captured.full = False
    arrived = {event.seq for event in captured.events}
    assert captured.of("session_ended")[0].events_total == 402
    assert 402 - len(arrived) == captured.counters.snapshot()["dropped"].get("queue_full", 0)


class CallError(Exception):
    pass


def test_an_error_that_leaves_the_session_is_recorded_once(captured: Capture) -> None:
    with pytest.raises(CallError), voicelog.session():
        raise CallError("lost")
    _, error, ended = captured.events
    assert (error.TYPE, error.status, error.error.message) == ("error", "error", "lost")
    assert "test_an_error_that_leaves" in error.error.stack
    assert (ended.status, ended.disconnect_reason, ended.events_total) == ("error", "error", 3)


@pytest.mark.parametrize("how", ["stage", "outer stage", "generator", "fail", "log_error"])
def test_an_error_that_was_recorded_is_not_repeated_by_the_session(captured: Capture, how: str) -> None:
    error = CallError("lost")

    def leave() -> None:
        if how == "generator":
            list(voicelog.stage("llm")(failing)())
        if how == "fail":
            with voicelog.stage("llm") as stage:
                stage.fail(error)
        if how == "log_error":
            voicelog.log_error(error)
        if how in ("stage", "outer stage"):
            with voicelog.stage("llm"):
                raise error
        raise error

    def failing() -> Any:
        yield 1
        raise error

    def call() -> None:
        try:
            if how == "outer stage":
                with voicelog.stage("all"):
                    leave()
            leave()
        finally:
            with voicelog.stage("apology"):
                pass

    with pytest.raises(CallError), voicelog.session():
        call()
    recorded = [event for event in captured.events if event.error is not None]
    assert len(recorded) == (2 if how == "outer stage" else 1)
    assert len(captured.of("error")) == (how == "log_error")


def test_another_error_at_the_same_address_is_recorded(captured: Capture) -> None:
    """An id() is another object's as soon as the first is gone."""

    def once(text: str) -> None:
        with voicelog.stage("x"):
            raise CallError(text)

    def call() -> None:
        with suppress(CallError):
            once("first")
        raise CallError("second")

    for _ in range(50):
        with pytest.raises(CallError, match="second"), voicelog.session():
            call()
    assert len(captured.of("error")) == 50


@pytest.mark.parametrize(
    ("exc", "status"), [(asyncio.CancelledError(), "cancelled"), (KeyboardInterrupt(), "interrupted"),
    (SystemExit(0), "interrupted")]
)  # fmt: skip
def test_an_end_that_is_no_error_is_none(captured: Capture, exc: BaseException, status: str) -> None:
    with pytest.raises(type(exc)), voicelog.session():
        raise exc
    assert captured.of("error") == []
    assert [(e.status, e.disconnect_reason) for e in captured.of("session_ended")] == [(status, None)]


def test_nested_sessions_are_streams_of_their_own(captured: Capture) -> None:
    with voicelog.session("a") as outer:
        with voicelog.session("b") as inner:
            assert voicelog.current_session() is inner
        assert voicelog.current_session() is outer
    assert not voicelog.current_session()
    assert [(e.TYPE, e.session_id, e.seq) for e in captured.events] == [
        ("session_started", "a", 1), ("session_started", "b", 1), ("session_ended", "b", 2), ("session_ended", "a", 2),
    ]  # fmt: skip


def test_entered_again_a_session_is_another_stream_of_the_call(captured: Capture) -> None:
    call = voicelog.session("call")
    for reason in ("user_hangup", None):
        with call, voicelog.turn():
            if reason:
                call.disconnected(reason)
    ended = captured.of("session_ended")
    assert [e.events_total for e in ended] == [3, 3]
    assert [e.disconnect_reason for e in ended] == ["user_hangup", None]
    assert len({e.stream_id for e in ended}) == 2
    assert [t.turn_number for t in captured.of("turn")] == [1, 1]


def test_entered_while_open_a_session_stays_one_and_is_left_at_its_outer_end(lenient: Capture) -> None:
    call = voicelog.session("call")
    with call:
        with call:
            pass
        assert call
        assert voicelog.current_session() is call
    assert session_var.get() is None
    assert [e.TYPE for e in lenient.events] == ["session_started", "session_ended"]
    assert lenient.counters.snapshot()["invalid"] == {"session.reentered": 1}


def test_start_and_end_fit_where_no_block_does(captured: Capture) -> None:
    call = voicelog.session("call").start()
    assert voicelog.current_session() is call
    with call.start():
        pass
    call.end(CallError())
    assert session_var.get() is None
    assert [e.TYPE for e in captured.events] == ["session_started", "session_ended"]


def test_ended_in_another_context_nothing_is_left_in_either(captured: Capture) -> None:
    call = voicelog.session("call")
    inside = contextvars.copy_context()
    inside.run(call.start)
    other = inside.copy()
    other.run(call.end)
    assert other.run(session_var.get) is None
    assert len(captured.events) == 2


def test_tasks_have_their_own_sessions(captured: Capture) -> None:
    async def call(n: int) -> None:
        async with voicelog.session(f"call-{n}"), voicelog.turn():
            for _ in range(3):
                await asyncio.sleep(0)
                async with voicelog.stage("llm"):
                    await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(call(n) for n in range(10)))

    asyncio.run(main())
    for n in range(10):
        events = [event for event in captured.events if event.session_id == f"call-{n}"]
        assert [event.seq for event in events] == list(range(1, 7))
        assert {event.turn_id for event in events if event.stage} == {f"{events[0].stream_id[:8]}-1"}


def test_what_comes_after_the_end_is_still_of_the_call(captured: Capture) -> None:
    """A task that outlives the session; its events have counts above the total."""
    with voicelog.session("call"):
        context = contextvars.copy_context()
    context.run(lambda: voicelog.stage("late").__enter__().__exit__(None, None, None))
    assert [(e.TYPE, e.seq) for e in captured.events] == [("session_started", 1), ("session_ended", 2), ("stage", 3)]


@pytest.mark.parametrize(
    ("given_id", "taken", "invalid"),
    [
        ("call", "call", False), (None, "session-1", False), ("", "session-1", False), ("\ud800x", "?x", False),
        ("x" * 2000, "x" * 1024, False), (5, "5", True), (0, "0", True),
        (uuid.UUID(int=1), str(uuid.UUID(int=1)), True),
        (b"call", "b'call'", True), (Awkward(), "<Awkward whose repr fails>", True), (["a"], "['a']", True),
    ],
)  # fmt: skip
def test_any_session_id_makes_a_key(lenient: Capture, given_id: Any, taken: str, invalid: bool) -> None:
    with voicelog.session(given_id) as call, voicelog.stage("x"):
        assert call.id == taken
    assert {message.key for message in lenient.messages} == {taken.encode()}
    assert {event.session_id for event in lenient.events} == {taken}
    assert lenient.counters.snapshot()["invalid"] == ({"session.id": 1} if invalid else {})


def test_a_session_id_that_is_no_text_raises_in_a_users_test(captured: Capture) -> None:
    with pytest.raises(ConfigError, match="session id 5 is of type int: expected a text"):
        voicelog.session(5).start()  # type: ignore[arg-type]


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_whatever_is_given_a_session_can_be_read(
    session_id: Any, user: Any, variant: Any, attributes: Any, reason: Any
) -> None:
    with capture(strict=False) as captured:
        with voicelog.session(session_id, user, variant=variant, attributes=attributes) as call:
            call.disconnected(reason)
            voicelog.inject({})
        assert [event.TYPE for event in captured.events] == ["session_started", "session_ended"]
        assert captured.counters.snapshot()["faults"] == {}


def test_a_session_is_let_go_of_at_its_end(captured: Capture) -> None:
    before = len(open_sessions)
    with voicelog.session():
        assert len(open_sessions) == before + 1
    assert len(open_sessions) == before


def test_those_open_are_found_while_other_threads_open_and_end_some(captured: Capture) -> None:
    done = threading.Event()
    before = sys.getswitchinterval()

    def open_and_end() -> None:
        while not done.is_set():
            some = [Session() for _ in range(50)]
            open_sessions.update(some)
            open_sessions.difference_update(some)

    threads = [threading.Thread(target=open_and_end) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        with voicelog.session() as mine:
            for thread in threads:
                thread.start()
            assert all(mine in those_open() for _ in range(3000))
    finally:
        done.set()
        sys.setswitchinterval(before)
        for thread in threads:
            thread.join()


def test_an_id_is_random_when_none_is_given() -> None:
    from voicelog.ids import RandomIds

    ids = RandomIds()
    assert len({ids.session() for _ in range(100)} | {ids.stream() for _ in range(100)}) == 200
    assert len(ids.stream()) == 16
