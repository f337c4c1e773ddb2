"""A turn's figures: which there are, what each is the time between, and how far it can be trusted."""

from __future__ import annotations

import pytest

from voicelog.events import Figure
from voicelog.figures import FIGURES
from voicelog.latency import MARKS, measure
from voicelog.marks import END, START, Interval

ALL = {
    "session_start": -5000, "user_speech_start": 2000, START: 0, "stt_final": 100, "turn_committed": 300,
    "llm_request": 350, "llm_first_token": 750, "llm_first_answer_token": 800, "llm_first_sentence": 900,
    "tts_request": 910, "tts_first_byte": 1110, "tts_first_audible": 1130, END: 1150, "interrupted_at": 2200,
    "audio_stopped": 2240,
}  # fmt: skip
TOOL = Interval("tool", 400, 500)


def values(marks: dict[str, int], *stages: Interval) -> dict[str, float | None]:
    return {name: figure.value_ms for name, figure in measure(marks, stages, None).figures.items()}


def qualities(marks: dict[str, int], *stages: Interval, foreign: frozenset[str] = frozenset()) -> dict[str, str]:
    return {n: figure.quality for n, figure in measure(marks, stages, None, foreign=foreign).figures.items()}


def test_all_marks_give_every_figure() -> None:
    assert values(ALL, TOOL) == {
        "user_bot_latency_ms": 1.15, "end_of_turn_delay_ms": 0.3, "transcription_delay_ms": 0.1,
        "turn_callback_delay_ms": 0.05, "llm_ttft_ms": 0.4, "llm_ttfat_ms": 0.45, "thinking_time_ms": 0.05,
        "llm_first_sentence_ms": 0.55, "text_aggregation_ms": 0.15, "tts_ttfb_ms": 0.2, "tts_ttfa_ms": 0.22,
        "leading_silence_ms": 0.02, "playback_latency_ms": 0.04, "barge_in_stop_ms": 0.24, "first_bot_speech_ms": 6.15,
        "tool_call_ms": 0.1, "unattributed_ms": 0.0,
    }  # fmt: skip
    assert values(ALL, TOOL).keys() == FIGURES.keys()


def test_every_figure_carries_its_quality_and_anchor() -> None:
    for figure in measure(ALL, [TOOL], "vad").figures.values():
        assert (figure.quality, figure.anchor) == ("ok", "vad")


@pytest.mark.parametrize("name", [name for name, row in FIGURES.items() if row.start in MARKS and row.start != START])
def test_a_figure_without_one_of_its_marks_is_absent(name: str) -> None:
    for missing in FIGURES[name][:2]:
        assert name not in values({mark: at for mark, at in ALL.items() if mark != missing})


def test_a_figure_from_the_end_of_speech_that_was_not_marked_is_counted_without_a_value() -> None:
    found = measure({mark: at for mark, at in ALL.items() if mark != START}, [], None)
    anchored = ("user_bot_latency_ms", "end_of_turn_delay_ms", "transcription_delay_ms")
    assert [found.figures[name] for name in anchored] == [Figure(value_ms=None, quality="no_anchor")] * 3
    assert found.quality == "no_anchor"
    assert found.figures["llm_ttft_ms"] == Figure(value_ms=0.4)


def test_a_figure_that_would_be_negative_has_no_value() -> None:
    found = measure({**ALL, "llm_first_token": 340}, [], "vad").figures
    assert found["llm_ttft_ms"] == Figure(value_ms=None, quality="clock_suspect", anchor="vad")
    assert found["thinking_time_ms"] == Figure(value_ms=0.46, anchor="vad")


def test_a_figure_that_ends_after_an_interruption_is_marked() -> None:
    found = qualities({**ALL, "interrupted_at": 800}, TOOL)
    assert {name for name, quality in found.items() if quality == "interrupted"} == {
        "user_bot_latency_ms", "llm_first_sentence_ms", "llm_ttfat_ms", "thinking_time_ms", "text_aggregation_ms",
        "tts_ttfb_ms", "tts_ttfa_ms", "leading_silence_ms", "playback_latency_ms", "first_bot_speech_ms",
        "unattributed_ms",
    }  # fmt: skip
    assert found["barge_in_stop_ms"] == "ok"


@pytest.mark.parametrize(
    ("mark", "figures"),
    [
        (START, {
            "user_bot_latency_ms", "end_of_turn_delay_ms", "transcription_delay_ms", "tool_call_ms", "unattributed_ms",
        }),
        (END, {
            "user_bot_latency_ms", "playback_latency_ms", "first_bot_speech_ms", "tool_call_ms", "unattributed_ms",
        }),
        ("llm_first_token", {"llm_ttft_ms", "thinking_time_ms", "text_aggregation_ms"}),
        ("user_speech_start", {"barge_in_stop_ms"}),
        ("audio_stopped", {"barge_in_stop_ms"}),
        ("interrupted_at", set()),
        ("own", set()),
    ],
)  # fmt: skip
def test_what_uses_another_clocks_mark_is_estimated(mark: str, figures: set[str]) -> None:
    found = qualities({**ALL, "own": 1}, TOOL, foreign=frozenset({mark}))
    assert {name for name, quality in found.items() if quality != "ok"} == figures
    assert {found[name] for name in figures} <= {"estimated"}


def test_what_is_both_interrupted_and_of_another_clock_is_interrupted() -> None:
    assert qualities({**ALL, "interrupted_at": 800}, foreign=frozenset({END}))["user_bot_latency_ms"] == "interrupted"


@pytest.mark.parametrize(
    ("marks", "interrupted", "quality"),
    [
        ({START: 0, END: 100}, False, "ok"),
        ({END: 100}, False, "no_anchor"),
        ({}, False, "no_anchor"),
        ({}, True, "no_anchor"),
        ({START: 0}, False, "no_anchor"),
        ({START: 0}, True, "interrupted"),
        ({START: 0, "interrupted_at": 150}, False, "interrupted"),
        ({START: 100, END: 0}, False, "clock_suspect"),
        ({START: 0, END: 100, "interrupted_at": 50}, True, "interrupted"),
        ({START: 0, END: 100, "interrupted_at": 150}, True, "ok"),
        ({START: 0, END: 100}, True, "ok"),
    ],
)
def test_quality_says_how_far_the_latency_can_be_trusted(
    marks: dict[str, int], interrupted: bool, quality: str
) -> None:
    assert measure(marks, [], None, is_interrupted=interrupted).quality == quality


def test_tools_are_timed_once_where_they_overlap_and_only_within_the_latency() -> None:
    tools = [
        Interval("tool", -100, 50), Interval("tool", 400, 500), Interval("tool", 450, 600, None, "error"),
        Interval("tool", 1100, None), Interval("tool", 1200, 1300),
    ]  # fmt: skip
    assert values(ALL, *tools)["tool_call_ms"] == 0.3
    assert values({START: 0}, *tools)["tool_call_ms"] == 0.35
    assert "tool_call_ms" not in values(ALL, Interval("tool", 2000, 2100))


def test_a_tool_that_an_interruption_met_is_marked() -> None:
    assert qualities({**ALL, "interrupted_at": 450}, TOOL)["tool_call_ms"] == "interrupted"
