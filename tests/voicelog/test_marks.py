"""Which marks a turn's stages set: the first of each, of those that the user waited for."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicelog.marks import (
    END,
    NO_MARKS,
    STAGE_MARKS,
    START,
    Interval,
    StageMark,
    intervals,
    stage_marks,
    within,
)

WINDOW = {START: 0, END: 1000}


def marks_of(*stages: Interval, marks: dict[str, int] | None = None) -> dict[str, int]:
    return stage_marks(within(stages, WINDOW if marks is None else marks, ()))


def test_a_stage_sets_the_marks_of_its_kind() -> None:
    assert marks_of(Interval("stt", -500, 100), Interval("llm", 110, 700, 300), Interval("tts", 310, 900, 400)) == {
        "stt_final": 100, "llm_request": 110, "llm_first_token": 300, "tts_request": 310, "tts_first_byte": 400,
    }  # fmt: skip


def test_a_stage_of_another_name_sets_none() -> None:
    assert marks_of(Interval("vad", 0, 10, 5), Interval("tool", 0, 10, 5)) == {}


def test_the_first_of_each_counts() -> None:
    assert marks_of(Interval("llm", 100, 500, 300), Interval("llm", 50, 500, 400)) == {
        "llm_request": 50, "llm_first_token": 300,
    }  # fmt: skip


def test_only_recognition_that_ended_well_and_is_final_ends_the_transcription() -> None:
    failed, interim = Interval("stt", -5, 10, None, "error"), Interval("stt", -5, 20, None, "ok", is_final=False)
    cancelled, final = Interval("stt", -5, 30, None, "cancelled"), Interval("stt", -5, 40)
    assert marks_of(failed, interim, cancelled) == {}
    assert marks_of(failed, interim, cancelled, final) == {"stt_final": 40}


def test_a_failed_request_is_waited_for_until_the_one_that_answers() -> None:
    """Failover: what the turn waited for a first token is the time from the first request on."""
    failed, good = Interval("llm", 10, 300, None, "error"), Interval("llm", 310, 900, 500)
    assert marks_of(failed, good) == {"llm_request": 10, "llm_first_token": 500}


def test_the_tokens_of_a_failed_answer_count_only_without_another_one() -> None:
    failed = Interval("llm", 10, 300, 200, "error")
    assert marks_of(failed, Interval("llm", 310, 900, 500)) == {"llm_request": 10, "llm_first_token": 500}
    assert marks_of(failed, Interval("llm", 310, 900)) == {"llm_request": 10, "llm_first_token": 200}


def test_a_withdrawn_request_is_not_waited_for() -> None:
    """A guess at the user's last words that was wrong: asked before the end of the turn, and cancelled."""
    guess, answer = Interval("llm", -200, 60, 50, "cancelled"), Interval("llm", 300, 900, 600)
    assert marks_of(guess, answer) == {"llm_request": 300, "llm_first_token": 600}
    assert marks_of(guess) == {"llm_request": -200, "llm_first_token": 50}


def test_what_happens_after_the_bot_spoke_does_not_change_what_was_heard() -> None:
    """The first sentence is heard; then the answer fails, or the user cuts it off."""
    beside, later = Interval("llm", 400, 5000, 600), Interval("llm", 1200, 1500, 1300)
    for status in ("ok", "error", "cancelled", "interrupted"):
        assert marks_of(Interval("llm", 100, 5000, 300, status), beside, later) == {
            "llm_request": 100, "llm_first_token": 300,
        }  # fmt: skip
    assert marks_of(Interval("llm", 100, 5000, 1300), Interval("stt", 100, 1300)) == {"llm_request": 100}


@pytest.mark.parametrize("name", ["stt", "llm", "tts"])
def test_a_stage_outside_of_the_latency_sets_no_mark(name: str) -> None:
    assert marks_of(Interval(name, -50, -1, -20), Interval(name, 1001, 1100, 1050)) == {}
    assert marks_of(Interval(name, 1001, None, 1050)) == {}


def test_a_bound_that_is_missing_or_of_another_clock_bounds_nothing() -> None:
    early, late = Interval("llm", -50, -10, -20), Interval("tts", 1001, 1100, 1050)
    all_marks = {"llm_request": -50, "llm_first_token": -20, "tts_request": 1001, "tts_first_byte": 1050}
    assert marks_of(early, late, marks={}) == all_marks
    assert stage_marks(within([early, late], WINDOW, {START, END})) == all_marks
    assert marks_of(early, late, marks={START: 1000, END: 0}) == all_marks


def test_an_open_stage_sets_what_it_has_come_to() -> None:
    assert marks_of(Interval("llm", 10, None), Interval("tts", 20, None, 30)) == {
        "llm_request": 10, "tts_request": 20, "tts_first_byte": 30,
    }  # fmt: skip


def test_stages_are_known_from_those_that_ended_and_from_the_marks_of_all() -> None:
    ended = [
        Interval("stt", 0, 5, None, "ok", is_final=False), Interval("llm", 10, 20, 15), Interval("llm", 30, 30, 35),
        Interval("tool", 7, 9, None, "error"),
    ]  # fmt: skip
    told: list[StageMark] = [
        ("llm_request", 10), ("llm_first_token", 15), ("llm_request", 40), ("tts_request", 50), ("tts_request", 60),
        ("tts_first_byte", 65),
    ]  # fmt: skip
    assert intervals(ended, told) == [
        ended[0], ended[1],
        Interval("llm", None, 30, None),  # published without a duration
        ended[3],
        Interval("llm", 40, None), Interval("tts", 60, None, 65), Interval("tts", 50, None),
    ]  # fmt: skip


MOMENTS = st.integers(0, 9)
ENDED = st.lists(
    st.builds(
        Interval, st.sampled_from(["stt", "llm", "tts", "tool"]), MOMENTS, MOMENTS, st.none() | MOMENTS, st.just("ok"),
        st.booleans(),
    ), max_size=6,
)  # fmt: skip
NAMES = st.sampled_from(["stt_final", "llm_request", "llm_first_token", "tts_request", "tts_first_byte", "x"])
TOLD: st.SearchStrategy[list[StageMark]] = st.lists(st.tuples(NAMES, MOMENTS), max_size=12)


def told_by(stage: Interval) -> list[StageMark]:
    request, answer, _ = STAGE_MARKS.get(stage.stage, NO_MARKS)
    pairs = ((request, stage.start_us), (answer, stage.first_us))
    return [(name, at) for name, at in pairs if name is not None and at is not None]


@given(ENDED, TOLD, st.randoms(use_true_random=False))
def test_no_stage_and_no_mark_is_lost_in_whatever_order_they_come(
    ended: list[Interval], by_open_ones: list[StageMark], random: Random
) -> None:
    told = [mark for stage in ended for mark in told_by(stage)] + by_open_ones
    found = intervals(ended, told)
    shuffled = intervals(random.sample(ended, len(ended)), random.sample(told, len(told)))
    assert sorted(map(repr, shuffled)) == sorted(map(repr, found))
    assert found[: len(ended)] == ended
    open_ones = found[len(ended) :]
    assert all(stage.end_us is None for stage in open_ones)
    for number, mark in enumerate(("llm_request", "llm_first_token", "tts_request", "tts_first_byte")):
        mine = [stage for stage in open_ones if stage.stage == mark[:3]]
        moments = [stage.first_us if number % 2 else stage.start_us for stage in mine]
        expected = [at for name, at in by_open_ones if name == mark]
        assert sorted(at for at in moments if at is not None) == sorted(expected)
