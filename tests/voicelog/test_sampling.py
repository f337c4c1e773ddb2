"""Sampling: whole calls or none, in order, within bounds, and each kept call weighed so that sums come out right."""

from __future__ import annotations

import gc
import threading
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voicelog
from voicelog.client import state
from voicelog.context import session_var
from voicelog.counters import Counters
from voicelog.events import Event, SessionEnded
from voicelog.sampling import OVERHEAD_BYTES, Sampler, is_chosen
from voicelog.testing import capture

RATE = 0.25
CHOSEN = next(f"call-{n}" for n in count() if is_chosen(f"call-{n}", RATE))
OTHER = next(f"call-{n}" for n in count() if not is_chosen(f"call-{n}", RATE))
PLAIN = ("ok", "metric", "log", "cancelled", "fast")
TELLING = {"stage error": "error", "turn error": "error", "log_error": "error", "log ERROR": "error", "slow": "slow"}


def sampler() -> Sampler:
    assert state.current is not None
    assert state.current.sampler is not None
    return state.current.sampler


def do(what: str, session: voicelog.Session) -> None:
    """Make an event in the session."""
    if what == "ok":
        with voicelog.stage("llm") as llm:
            llm.set(response="x" * 40)
    elif what == "metric":
        voicelog.metric("mos", 4.1)
    elif what in ("log", "log ERROR"):
        voicelog.publish_log("a word", level="ERROR" if what == "log ERROR" else "WARNING")
    elif what == "log_error":
        voicelog.log_error(ValueError("no"))
    elif what == "cancelled":
        with voicelog.stage("tts") as tts:
            tts.interrupt()
    elif what == "stage error":
        with voicelog.stage("stt") as stt:
            stt.fail(ValueError("no"))
    elif what == "turn error":
        with pytest.raises(ValueError, match="no"), voicelog.turn():
            raise ValueError("no")
    else:
        with voicelog.turn() as turn:
            turn.mark("user_speech_end", ago_ms=3000 if what == "slow" else 1000)
            turn.mark("playback_start")


def shape(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.TYPE, event.seq) for event in events]


def whole(events: list[Event], session_id: str) -> bool:
    """Return whether a call's events are all there, in order; no event at all is not whole."""
    mine = [event for event in events if event.session_id == session_id]
    total = mine[-1].events_total if mine and isinstance(mine[-1], SessionEnded) else None
    return total is not None and [event.seq for event in mine] == list(range(1, total + 1))


@pytest.mark.parametrize("what", PLAIN)
def test_a_call_that_chance_did_not_choose_is_dropped_whole_and_counted(what: str) -> None:
    with capture(sample_rate=RATE) as captured:
        with voicelog.session(OTHER) as session:
            do(what, session)
            assert sampler().used_bytes() > 0
        assert captured.events == []
        assert captured.counters.snapshot()["dropped"] == {"sampled": 3}
        assert captured.counters.get("produced") == 0
        assert sampler().used_bytes() == 0


@pytest.mark.parametrize("what", PLAIN)
def test_a_chosen_call_goes_out_at_once_and_stands_for_others(what: str) -> None:
    with capture(sample_rate=RATE) as captured:
        with voicelog.session(CHOSEN) as session:
            do(what, session)
            assert [event.seq for event in captured.events] == [1, 2]
        assert whole(captured.events, CHOSEN)
        (ended,) = captured.of("session_ended")
        assert (ended.sample_rate, ended.sample_reason) == (RATE, "chance")
        assert captured.counters.get("produced") == 3


@pytest.mark.parametrize("session_id", [CHOSEN, OTHER])
@pytest.mark.parametrize(("what", "reason"), TELLING.items())
def test_a_call_with_an_error_or_a_slow_turn_is_kept_whole_and_stands_for_itself(
    what: str, reason: str, session_id: str
) -> None:
    with capture(sample_rate=RATE) as captured:
        with voicelog.session(session_id) as session:
            do("ok", session)
            do(what, session)
            assert [event.seq for event in captured.events] == [1, 2, 3]
            do("ok", session)
            assert [event.seq for event in captured.events] == [1, 2, 3, 4]
        assert whole(captured.events, session_id)
        (ended,) = captured.of("session_ended")
        assert (ended.sample_rate, ended.sample_reason) == (1.0, reason)
        assert captured.counters.get("produced") == 5
        assert captured.counters.get("dropped") == sampler().used_bytes() == 0


def test_an_exception_that_ends_the_call_keeps_it() -> None:
    with capture(sample_rate=0) as captured:
        with pytest.raises(ValueError, match="no"), voicelog.session("s"):
            raise ValueError("no")
        assert shape(captured.events) == [("session_started", 1), ("error", 2), ("session_ended", 3)]
        assert captured.of("session_ended")[0].sample_reason == "error"


def test_an_error_outweighs_a_slow_turn() -> None:
    with capture(sample_rate=0) as captured:
        with voicelog.session("s") as session:
            do("slow", session)
            do("log_error", session)
            do("slow", session)
        assert captured.of("session_ended")[0].sample_reason == "error"


def test_a_slow_turn_by_a_clock_that_is_suspect_keeps_nothing() -> None:
    with capture(sample_rate=0) as captured:
        with voicelog.session("s"):
            hold = voicelog.current_session().stream.hold  # type: ignore[union-attr]
            assert hold is not None
            hold.see({"user_bot_latency_ms": 90_000.0, "quality": "clock_suspect"})
            assert hold.reason is None
            hold.see({"user_bot_latency_ms": 2000.0, "quality": "interrupted"})
            assert hold.reason == "slow"
        assert captured.events


def test_how_slow_is_slow_is_a_setting() -> None:
    with capture(sample_rate=0, slow_turn_ms=500) as captured:
        with voicelog.session("s") as session:
            do("fast", session)
        assert captured.of("session_ended")[0].sample_reason == "slow"


def test_without_sampling_there_is_no_weight_and_no_hold() -> None:
    with capture() as captured:
        with voicelog.session("s") as session:
            assert session.stream is not None
            assert session.stream.hold is None
        (ended,) = captured.of("session_ended")
        assert (ended.sample_rate, ended.sample_reason) == (None, None)


def test_events_without_a_session_are_not_sampled() -> None:
    with capture(sample_rate=0) as captured:
        voicelog.metric("load", 1)
        voicelog.health("bot", "ok")
        assert [event.TYPE for event in captured.events] == ["metric", "health"]


def test_what_comes_after_a_dropped_calls_end_is_dropped_too() -> None:
    with capture(sample_rate=0) as captured:
        with voicelog.session("s") as session:
            late = voicelog.stage("llm").__enter__()
            assert session
        late.fail(ValueError("no"))
        late.__exit__(None, None, None)
        assert captured.events == []
        assert captured.counters.snapshot()["dropped"] == {"sampled": 3}


def test_a_call_that_does_not_fit_is_kept_early_and_nothing_is_lost() -> None:
    with capture(sample_rate=0, sample_hold_max_bytes=4000) as captured:
        with voicelog.session("s") as session:
            for _ in range(20):
                do("ok", session)
                assert sampler().used_bytes() <= 4000
        assert whole(captured.events, "s")
        (ended,) = captured.of("session_ended")
        assert (ended.sample_rate, ended.sample_reason) == (1.0, "early")


@pytest.mark.parametrize("max_bytes", [1, 4000, 40_000, 10**9])
def test_each_kept_call_weighed_they_add_up_to_all_calls_however_small_the_hold(max_bytes: int) -> None:
    """Calls overlap, so that the hold is full now and then."""
    total, weights, kept_early = 600, 0.0, 0
    with capture(sample_rate=RATE, sample_hold_max_bytes=max_bytes, strict=False) as captured:
        open_calls: list[voicelog.Session] = []
        for number in range(total):
            session = voicelog.Session(f"call-{number}").start()
            open_calls.append(session)
            for _ in range(number % 7):
                do("metric", session)
            if number % 50 == 0:
                do("log_error", session)
            if len(open_calls) > 9:
                open_calls.pop(number % 9).end()
        for session in open_calls:
            session.end()
        for ended in captured.of("session_ended"):
            weights += 1 / ended.sample_rate
            kept_early += ended.sample_reason == "early"
        by_call: dict[str, list[Event]] = {}
        for event in captured.events:
            by_call.setdefault(event.session_id or "", []).append(event)
        assert all(whole(events, session_id) for session_id, events in by_call.items())
    assert abs(weights - total) <= 3 * (3 * total) ** 0.5  # three standard deviations of 600 draws at a quarter
    assert (kept_early > 0) == (max_bytes < 40_000)


def test_whether_a_call_is_early_does_not_depend_on_chance() -> None:
    """Else a call that chance chose would count for four where, unchosen, it had been kept as well."""
    reasons = []
    for session_id in (CHOSEN, OTHER):
        with capture(sample_rate=RATE, sample_hold_max_bytes=2000) as captured:
            with voicelog.session(session_id) as session:
                for _ in range(10):
                    do("ok", session)
            reasons.append([(e.sample_rate, e.sample_reason) for e in captured.of("session_ended")])
    assert reasons == [[(1.0, "early")]] * 2


ACTIONS = st.tuples(st.integers(0, 3), st.sampled_from(["open", "end", *PLAIN, *TELLING]))


@settings(max_examples=60)
@given(actions=st.lists(ACTIONS, max_size=40), rate=st.sampled_from([0, 0.3, 0.9]), max_bytes=st.integers(1, 6000))
def test_any_sequence_of_events_gives_whole_calls_or_none_in_order_and_in_bounds(
    actions: list[tuple[int, str]], rate: float, max_bytes: int
) -> None:
    expected: dict[str, str | None] = {}
    with capture(sample_rate=rate, sample_hold_max_bytes=max_bytes) as captured:
        calls: dict[int, voicelog.Session] = {}
        names = (f"call-{number}" for number in count())
        for slot, what in [*actions, *((slot, "end") for slot in range(4))]:
            if what == "end" and slot in calls:
                calls.pop(slot).end()
            elif what != "end":
                if slot not in calls:
                    calls[slot] = voicelog.Session(next(names))
                    expected[calls[slot].start().id or ""] = None
                run_in(calls[slot], what)
                if what in TELLING and expected[calls[slot].id or ""] != "error":
                    expected[calls[slot].id or ""] = TELLING[what]
            assert sampler().used_bytes() <= max_bytes
        assert sampler().used_bytes() == 0
        events = captured.events
        ended = {event.session_id: event for event in captured.of("session_ended")}
    for session_id, why in expected.items():
        if session_id not in ended:
            assert why is None
            assert not is_chosen(session_id, rate)
            assert not any(event.session_id == session_id for event in events)
            continue
        assert whole(events, session_id)
        weight, reason = ended[session_id].sample_rate, ended[session_id].sample_reason
        assert reason in ((why,) if why == "error" else (why, "early") if why else ("early", "chance"))
        assert weight == (rate if reason == "chance" else 1.0)


def run_in(session: voicelog.Session, what: str) -> None:
    """Make an event in a session that is not the last one that was opened."""
    if what == "open":
        return
    token = session_var.set(session)
    try:
        do(what, session)
    finally:
        session_var.reset(token)


def test_messages_of_many_threads_are_whole_and_bounded() -> None:
    with capture(sample_rate=0, sample_hold_max_bytes=20_000, strict=False) as captured:
        with voicelog.session("s") as session:

            def work() -> None:
                for _ in range(50):
                    do("metric", session)

            threads = [threading.Thread(target=voicelog.copy_context(work)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sampler().used_bytes() <= 20_000
        assert sorted(event.seq for event in captured.events) == list(range(1, 203))
        assert sampler().used_bytes() == 0


def test_an_abandoned_call_gives_its_bytes_back_and_is_counted() -> None:
    with capture(sample_rate=0) as captured:
        session = voicelog.Session("s").start()
        do("metric", session)
        assert sampler().used_bytes() > 0
        session_var.set(None)
        session._token = None  # it holds the context's value before
        del session
        gc.collect()
        assert sampler().used_bytes() == 0
        assert captured.events == []
        assert captured.counters.snapshot()["dropped"] == {"sampled": 2}


def test_a_session_that_is_started_again_is_decided_anew() -> None:
    with capture(sample_rate=0) as captured:
        session = voicelog.session("s")
        with session:
            do("log_error", session)
        with session:
            do("metric", session)
        assert [event.TYPE for event in captured.events] == ["session_started", "error", "session_ended"]


def test_every_process_decides_alike_and_independently_of_the_interpreters_hash() -> None:
    assert [n for n in range(40) if is_chosen(f"call-{n}", 0.25)] == [1, 4, 8, 11, 16, 18, 21, 28, 31, 36, 37, 38]
    assert not any(is_chosen(f"call-{n}", 0) for n in range(1000))
    assert all(is_chosen(f"call-{n}", 1) for n in range(1000))
    assert is_chosen("\ud800", 1)


def test_the_share_that_is_chosen_is_the_rate() -> None:
    for rate in (0.01, 0.5, 0.9):
        chosen = sum(is_chosen(f"call-{n}", rate) for n in range(20_000))
        assert abs(chosen - 20_000 * rate) < 4 * (20_000 * rate * (1 - rate)) ** 0.5


def test_a_call_that_is_kept_already_is_kept_where_it_is_handed_over_to() -> None:
    headers: dict[str, str] = {}
    with capture(sample_rate=0) as captured:
        with voicelog.session("s") as session:
            do("log_error", session)
            voicelog.inject(headers)
        with voicelog.extract(headers):
            voicelog.metric("there", 1)
        ended = captured.of("session_ended")
        assert [(e.sample_rate, e.sample_reason) for e in ended] == [(1.0, "error")] * 2
        assert len(captured.events) == 6


@pytest.mark.parametrize("kept", ["chance", "nonsense", ""])
def test_a_reason_in_the_headers_that_is_none_keeps_nothing(kept: str) -> None:
    with capture(sample_rate=0) as captured:
        with voicelog.extract({"voicelog-session": f"id=s&kept={kept}"}):
            voicelog.metric("there", 1)
        assert captured.events == []


@pytest.mark.parametrize("failed_before", [True, False])
def test_after_a_fork_what_was_held_stays_with_the_parent_and_the_child_decides_for_itself(failed_before: bool) -> None:
    with capture(sample_rate=0) as captured:
        client = state.current
        assert client is not None
        with voicelog.session("s") as session:
            if failed_before:
                do("log_error", session)
            before = len(captured.events)
            parents = session.stream
            session.renew_stream(client)  # as the child does
            do("metric", session)
            assert len(captured.events) == before + failed_before
            assert session.stream is not parents
            do("log_error", session)
        mine = [event for event in captured.events if event.stream_id == session.stream.stream_id]
        assert shape(mine) == [("metric", 1), ("error", 2), ("session_ended", 3)]
        assert len(captured.events) == before + 3


def test_the_programs_exit_decides_about_open_calls_as_their_end_does() -> None:
    with capture(sample_rate=RATE) as captured:
        for session_id in (CHOSEN, OTHER):
            voicelog.Session(session_id).start().end_at_exit()
        assert [event.session_id for event in captured.events] == [CHOSEN, CHOSEN]
        assert sampler().used_bytes() == 0


def held(counters: Counters, **given: Any) -> tuple[Sampler, list[bytes]]:
    delivered: list[bytes] = []
    options = {"rate": 0.0, "hold_max_bytes": 10_000, "slow_turn_ms": 2000, **given}
    return Sampler(**options, counters=counters, deliver=lambda t, k, v, h: delivered.append(v)), delivered


def test_headers_and_a_messages_overhead_count() -> None:
    sampler, _ = held(Counters())
    hold = sampler.hold("s")
    hold.add("t", b"k", b"12345", [("traceparent", b"123")])
    assert sampler.used_bytes() == OVERHEAD_BYTES + 8
    hold.end({})
    assert sampler.used_bytes() == 0


def test_what_an_event_sets_off_while_held_ones_go_out_is_not_lost() -> None:
    delivered: list[bytes] = []

    def deliver(topic: str, key: bytes, value: bytes, headers: Any) -> None:
        delivered.append(value)
        if value == b"1":
            hold.add(topic, key, b"within", None)

    sampler = Sampler(0.0, 10_000, 2000, Counters(), deliver)
    hold = sampler.hold("s")
    for value in (b"1", b"2"):
        hold.add("t", b"k", value, None)
    hold.keep("error")
    assert sorted(delivered) == [b"1", b"2", b"within"]


def test_reasons_after_the_end_change_nothing() -> None:
    counters = Counters()
    sampler, delivered = held(counters)
    hold = sampler.hold("s")
    hold.add("t", b"k", b"1", None)
    assert hold.end({}) == {}
    hold.keep("error")
    hold.add("t", b"k", b"2", None)
    assert delivered == []
    assert counters.snapshot()["dropped"] == {"sampled": 2}
    chosen = held(counters, rate=1.0)[0].hold("s")
    assert chosen.end({}) == {"sample_rate": 1.0, "sample_reason": "chance"}
    chosen.keep("error")
    assert chosen.reason is None


def test_after_a_new_configuration_held_calls_go_to_the_new_producer() -> None:
    with capture(sample_rate=0) as first:
        session = voicelog.Session("s").start()
        do("metric", session)
        assert state.current is not None
        old = state.current
        with capture(sample_rate=0) as second:
            old.closed = True
            assert session.stream is not None
            assert session.stream.hold is not None
            session.stream.hold.keep("error")
            assert shape(second.events) == [("session_started", 1), ("metric", 2)]
        assert first.events == []
