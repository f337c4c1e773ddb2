"""A turn's latency in parts: the rules, one by one. What holds for all turns is in test_latency_properties."""

from __future__ import annotations

import pytest

from voicelog.events import Contribution, Figure
from voicelog.latency import MARKS, PARTS, Latency, measure
from voicelog.marks import END, START, Interval

ALL = {
    START: 0, "stt_final": 100, "turn_committed": 300, "llm_request": 350, "llm_first_token": 750,
    "llm_first_sentence": 900, "tts_request": 910, "tts_first_byte": 1110, END: 1150,
}  # fmt: skip


def part(key: str, us: int, owner: str, stage: str | None = None) -> Contribution:
    return Contribution(key=key, us=us, owner=owner, stage=stage)


def parts_of(marks: dict[str, int], *stages: Interval) -> list[tuple[str, int]]:
    """Return the parts' keys and lengths; those of the whole table are compared in full below."""
    return [(p.key, p.us) for p in measure(marks, stages, None).contributions or ()]


def test_all_marks_give_each_part_its_key_and_owner() -> None:
    assert measure(ALL, [], "vad").contributions == [
        part("transcription", 100, "service", "stt"), part("endpointing", 200, "setting"),
        part("turn_callback", 50, "bot"), part("llm_ttft", 400, "service", "llm"),
        part("text_aggregation", 150, "pipeline", "llm"), part("to_tts", 10, "pipeline", "llm"),
        part("tts_ttfb", 200, "service", "tts"), part("playback", 40, "pipeline", "tts"),
    ]  # fmt: skip


def test_stages_set_the_marks_that_they_know() -> None:
    stages = [Interval("stt", -900, 100), Interval("llm", 350, 1000, 750), Interval("tts", 910, 1400, 1110)]
    own = {name: ALL[name] for name in (START, "turn_committed", "llm_first_sentence", END)}
    assert measure(own, stages, "vad") == measure(ALL, stages, "vad")
    assert measure(own, stages, "vad").marks == ALL


def test_the_users_own_mark_wins_over_a_stages() -> None:
    assert measure({**ALL, "llm_request": 320}, [Interval("llm", 350, 1000, 750)], None).marks["llm_request"] == 320


# --- tools


def test_tools_are_cut_out_of_what_lies_between_the_callback_and_the_voice_and_counted_once() -> None:
    tools = [
        Interval("tool", 400, 500), Interval("tool", 450, 550), Interval("tool", 700, 2000), Interval("tool", 0, 10),
        Interval("tool", 310, 320),
    ]  # fmt: skip
    assert measure(ALL, tools, None).contributions == [
        part("transcription", 100, "service", "stt"), part("endpointing", 200, "setting"),
        part("turn_callback", 10, "bot"), part("tool", 10, "bot", "tool"), part("turn_callback", 30, "bot"),
        part("llm_ttft", 50, "service", "llm"), part("tool", 150, "bot", "tool"),
        part("llm_ttft", 150, "service", "llm"), part("tool", 210, "bot", "tool"),
        part("tts_ttfb", 200, "service", "tts"), part("playback", 40, "pipeline", "tts"),
    ]  # fmt: skip


def test_a_tool_that_is_still_open_or_failed_is_the_bots_time_too() -> None:
    assert parts_of(ALL, Interval("tool", 400, 500, None, "error"), Interval("tool", 900, None))[3:] == [
        ("llm_ttft", 50), ("tool", 100), ("llm_ttft", 250), ("text_aggregation", 150), ("tool", 10), ("tts_ttfb", 200),
        ("playback", 40),
    ]  # fmt: skip


def test_a_function_call_is_the_models_wait_the_bots_tool_and_the_models_wait_again() -> None:
    """The model answers with a call, the tool runs, the model is asked again and answers."""
    marks = {START: 0, "stt_final": 50, "turn_committed": 51, END: 452}
    stages = [
        Interval("llm", 51, 120, 101), Interval("tool", 120, 320), Interval("llm", 320, 500, 395),
        Interval("tts", 402, 600, 452),
    ]  # fmt: skip
    assert measure(marks, stages, None).contributions == [
        part("transcription", 50, "service", "stt"), part("endpointing", 1, "setting"),
        part("llm_ttft", 50, "service", "llm"), part("to_tts", 19, "pipeline", "llm"),
        part("tool", 200, "bot", "tool"), part("llm_ttft", 75, "service", "llm"), part("to_tts", 7, "pipeline", "llm"),
        part("tts_ttfb", 50, "service", "tts"),
    ]  # fmt: skip


def test_another_request_that_the_voice_did_not_wait_for_is_no_part_of_the_latency() -> None:
    """Such as a summary that is written beside the answer."""
    beside = Interval("llm", 760, 5000), Interval("llm", 400, 850)
    assert parts_of(ALL, Interval("llm", 350, 1000, 750), *beside) == parts_of(ALL)


# --- repeated, failed over, withdrawn


def test_a_failed_request_is_the_services_time_until_another_one_answers() -> None:
    marks = {START: 0, "turn_committed": 300, "llm_first_sentence": 900, END: 1150}
    stages = [
        Interval("stt", -900, 100), Interval("llm", 350, 400, None, "error"), Interval("llm", 405, 1000, 750),
        Interval("tts", 910, 1005, None, "error"), Interval("tts", 1006, 1400, 1110),
    ]  # fmt: skip
    assert measure(marks, stages, None).contributions == measure(ALL, [], None).contributions


def test_an_answer_that_failed_in_mid_stream_is_asked_for_again() -> None:
    marks = {name: at for name, at in ALL.items() if not name.startswith("llm_")}
    stages = [Interval("llm", 350, 500, 400, "error"), Interval("llm", 510, 1000, 750)]
    assert parts_of(marks, *stages)[2:5] == [("turn_callback", 50), ("llm_ttft", 400), ("to_tts", 160)]


def test_when_no_request_was_answered_the_rest_until_the_voice_is_unexplained() -> None:
    """The bot gives up on the model, and apologises."""
    marks = {START: 0, "stt_final": 100, "turn_committed": 300, END: 1150}
    failed = [Interval("llm", 310, 500, None, "error"), Interval("llm", 520, 700, None, "error")]
    assert parts_of(marks, *failed, Interval("tts", 910, 1400, 1110)) == [
        ("transcription", 100), ("endpointing", 200), ("turn_callback", 10), ("llm_ttft", 190), ("unattributed", 20),
        ("llm_ttft", 180), ("unattributed", 210), ("tts_ttfb", 200), ("playback", 40),
    ]  # fmt: skip


def test_failed_recognition_is_the_services_time_where_another_one_ends_it() -> None:
    marks = {START: 0, "turn_committed": 300, END: 1150}
    stages = [Interval("stt", -900, 80, None, "error"), Interval("stt", 90, 200)]
    assert parts_of(marks, *stages)[:2] == [("transcription", 200), ("endpointing", 100)]


def test_recognition_that_was_never_final_explains_the_time_that_it_ran() -> None:
    marks = {START: 0, "turn_committed": 300, END: 1150}
    assert parts_of(marks, Interval("stt", -900, 80, None, "error")) == [
        ("transcription", 80), ("unattributed", 1070),
    ]  # fmt: skip
    assert parts_of(marks, Interval("stt", -900, None)) == [("unattributed", 1150)]


def test_a_request_made_before_the_user_fell_silent_is_waited_for_from_the_end_of_the_turn() -> None:
    assert parts_of({**ALL, "llm_request": -200})[:4] == [
        ("transcription", 100), ("endpointing", 200), ("llm_ttft", 450), ("text_aggregation", 150),
    ]  # fmt: skip


# --- missing marks


def test_an_answer_in_one_piece_is_the_services_time_and_not_the_pipelines() -> None:
    """A model or voice that is not streamed has no first item: it was waited for to its end."""
    marks = {START: 0, "stt_final": 100, "turn_committed": 300, END: 1150}
    stages = [Interval("llm", 350, 900), Interval("tts", 910, 1110)]
    assert measure(marks, stages, None).contributions == [
        part("transcription", 100, "service", "stt"), part("endpointing", 200, "setting"),
        part("turn_callback", 50, "bot"), part("llm_ttft", 550, "service", "llm"),
        part("to_tts", 10, "pipeline", "llm"), part("tts_ttfb", 200, "service", "tts"),
        part("playback", 40, "pipeline", "tts"),
    ]  # fmt: skip


def test_a_stream_without_a_marked_first_item_is_waited_for_until_it_is_spoken() -> None:
    marks = {START: 0, "stt_final": 100, "turn_committed": 300, END: 1150}
    assert parts_of(marks, Interval("llm", 350, 5000), Interval("tts", 910, 6000))[2:] == [
        ("turn_callback", 50), ("llm_ttft", 560), ("tts_ttfb", 240),
    ]  # fmt: skip


def test_without_a_first_sentence_the_time_to_the_voice_is_the_pipelines() -> None:
    marks = {name: at for name, at in ALL.items() if name != "llm_first_sentence"}
    assert parts_of(marks)[4] == ("to_tts", 160)


def test_without_the_end_of_the_turn_nobody_knows_how_long_was_waited_for_it() -> None:
    marks = {name: at for name, at in ALL.items() if name != "turn_committed"}
    assert measure(marks, [], None).contributions[1:3] == [  # type: ignore[index]
        part("unattributed", 250, "unknown"), part("llm_ttft", 400, "service", "llm"),
    ]  # fmt: skip


def test_tools_are_cut_out_where_marks_are_missing_too() -> None:
    marks = {name: at for name, at in ALL.items() if name not in ("turn_committed", "llm_first_token")}
    assert parts_of(marks, Interval("llm", 350, 2000), Interval("tool", 320, 330), Interval("tool", 400, 500)) == [
        ("transcription", 100), ("unattributed", 220), ("tool", 10), ("unattributed", 20), ("llm_ttft", 50),
        ("tool", 100), ("llm_ttft", 400), ("to_tts", 10), ("tts_ttfb", 200), ("playback", 40),
    ]  # fmt: skip


def test_a_result_without_a_duration_explains_nothing() -> None:
    marks = {START: 0, "turn_committed": 300, END: 1150}
    assert parts_of(marks, Interval("llm", None, 900), Interval("tts", None, 1100)) == [("unattributed", 1150)]


def test_without_any_mark_between_all_is_unattributed() -> None:
    latency = measure({START: 0, END: 900_000}, [], "manual")
    assert latency.contributions == [part("unattributed", 900_000, "unknown")]
    assert (latency.unattributed_ms, latency.user_bot_latency_ms, latency.quality) == (900.0, 900.0, "ok")


# --- marks out of order


def test_a_mark_out_of_order_is_clamped_between_its_neighbours() -> None:
    assert parts_of({**ALL, "llm_request": 50})[:4] == [
        ("transcription", 100), ("endpointing", 200), ("llm_ttft", 450), ("text_aggregation", 150),
    ]  # fmt: skip
    assert parts_of({**ALL, "turn_committed": 9000}) == [("transcription", 100), ("endpointing", 1050)]


def test_no_latency_is_no_part() -> None:
    assert parts_of({START: 5, END: 5}) == []


def test_an_end_before_the_start_is_no_latency_at_all() -> None:
    suspect = {"user_bot_latency_ms": Figure(value_ms=None, quality="clock_suspect")}
    assert measure({START: 100, END: 0}, [], None) == Latency({START: 100, END: 0}, suspect, None, "clock_suspect")
    assert measure({START: 100, END: 0}, [], None).unattributed_ms is None


# --- what is not within


@pytest.mark.parametrize("name", ["stt", "llm", "tts", "tool", "vad"])
def test_what_ran_before_the_user_fell_silent_or_after_the_bot_spoke_changes_nothing(name: str) -> None:
    own = {name: ALL[name] for name in (START, "turn_committed", END)}
    stages = [Interval("stt", -900, 100), Interval("llm", 350, 1000, 750), Interval("tts", 910, 1400, 1110)]
    outside = [Interval(name, -500, -1, -100), Interval(name, 1151, 1500, 1160), Interval(name, 1151, None)]
    assert measure(own, stages + outside, "vad") == measure(own, stages, "vad")


def test_the_marks_with_a_meaning_are_those_of_the_parts_and_figures() -> None:
    assert {mark for row in PARTS for mark in (row.start, row.end)} <= set(MARKS)
    assert {"llm_first_answer_token", "tts_first_audible", "audio_stopped", "user_speech_start"} <= set(MARKS)
