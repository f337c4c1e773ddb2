"""A turn's latency: whatever the marks and stages, the parts are contiguous and sum to the whole."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicelog.events import QUALITIES, Contribution, Figure
from voicelog.latency import END, FIGURES, MARKS, PARTS, START, Interval, Latency, contributions, measure

MOMENT = st.integers(0, 200)
ANY_MARKS = st.dictionaries(st.sampled_from([*MARKS, "own"]), MOMENT)
STAGES = st.lists(
    st.builds(
        lambda name, start, length: Interval(name, start, start + length),
        st.sampled_from(["stt", "llm", "tts", "tool", "vad"]), MOMENT, st.integers(0, 80),
    ), max_size=8,
)  # fmt: skip
WHOLE_MARKS = st.builds(
    lambda marks, start, length: {**marks, START: start, END: start + length}, ANY_MARKS, MOMENT, MOMENT
)

ALL = {
    START: 0, "stt_final": 100, "turn_committed": 300, "llm_request": 350, "llm_first_token": 750,
    "llm_first_sentence": 900, "tts_request": 910, "tts_first_byte": 1110, END: 1150,
}  # fmt: skip


def part(key: str, us: int, owner: str, stage: str | None = None) -> Contribution:
    return Contribution(key=key, us=us, owner=owner, stage=stage)


@given(WHOLE_MARKS, STAGES)
def test_contributions_sum_exactly_to_the_whole(marks: dict[str, int], stages: list[Interval]) -> None:
    parts = contributions(marks, stages)
    assert sum(p.us for p in parts) == marks[END] - marks[START]
    assert all(p.us > 0 for p in parts)


@given(WHOLE_MARKS, STAGES)
def test_contributions_are_known_keys_in_the_tables_order(marks: dict[str, int], stages: list[Interval]) -> None:
    owners = {**{row.key: row.owner for row in PARTS}, "tool": "bot", "unattributed": "unknown"}
    parts = contributions(marks, stages)
    assert all(owners[p.key] == p.owner for p in parts)
    order = [row.key for row in PARTS]
    keys = [key for key, _ in itertools.groupby(p.key for p in parts if p.key in order)]
    assert keys == sorted(set(keys), key=order.index)


@given(WHOLE_MARKS, STAGES)
def test_an_unattributed_part_is_owed_to_no_stage(marks: dict[str, int], stages: list[Interval]) -> None:
    parts = contributions(marks, stages)
    assert all(p.stage is None for p in parts if p.key == "unattributed")


@given(WHOLE_MARKS, STAGES)
def test_a_tool_part_is_time_in_which_a_tool_ran(marks: dict[str, int], stages: list[Interval]) -> None:
    at = marks[START]
    for p in contributions(marks, stages):
        if p.key == "tool":
            moments = range(at, at + p.us)
            assert all(any(s.stage == "tool" and s.start_us <= m < s.end_us for s in stages) for m in moments)
        at += p.us
    assert at == marks[END]


@given(ANY_MARKS, STAGES, st.sampled_from(["vad", None]))
def test_any_marks_give_figures_that_are_measured_or_missing(
    marks: dict[str, int], stages: list[Interval], anchor: str | None
) -> None:
    latency = measure(marks, stages, anchor)
    assert set(latency.figures) == {
        name for name, (a, b) in FIGURES.items() if a in marks and b in marks and marks[b] >= marks[a]
    }
    for name, figure in latency.figures.items():
        start, end = FIGURES[name]
        assert figure.value_ms == (marks[end] - marks[start]) / 1000
        assert figure.quality in QUALITIES
    assert latency.quality in QUALITIES
    assert (latency.contributions is not None) == ("user_bot_latency_ms" in latency.figures)


@given(WHOLE_MARKS, STAGES)
def test_unattributed_is_the_sum_of_its_parts_and_never_more_than_the_whole(
    marks: dict[str, int], stages: list[Interval]
) -> None:
    latency = measure(marks, stages, None)
    assert latency.unattributed_ms == sum(p.us for p in latency.contributions or () if p.key == "unattributed") / 1000
    assert latency.unattributed_ms <= latency.figures["user_bot_latency_ms"].value_ms


def test_all_marks_give_each_part_its_key_and_owner() -> None:
    assert contributions(ALL, []) == [
        part("transcription", 100, "service", "stt"), part("endpointing", 200, "setting"), part("turn_callback", 50,
        "bot"),
        part("llm_ttft", 400, "service", "llm"), part("text_aggregation", 150, "pipeline", "llm"),
        part("to_tts", 10, "pipeline", "llm"), part("tts_ttfb", 200, "service", "tts"),
        part("playback", 40, "pipeline", "tts"),
    ]  # fmt: skip


def test_all_marks_give_every_figure() -> None:
    marks = {**ALL, "interrupted_at": 5000, "audio_stopped": 5240}
    assert {name: figure.value_ms for name, figure in measure(marks, [], "vad").figures.items()} == {
        "user_bot_latency_ms": 1.15, "end_of_turn_delay_ms": 0.3, "transcription_delay_ms": 0.1,
        "turn_callback_delay_ms": 0.05, "llm_ttft_ms": 0.4, "llm_first_sentence_ms": 0.55, "text_aggregation_ms": 0.15,
        "tts_ttfb_ms": 0.2, "playback_latency_ms": 0.04, "barge_in_stop_ms": 0.24,
    }  # fmt: skip
    assert measure(marks, [], "vad").figures["user_bot_latency_ms"] == Figure(value_ms=1.15, quality="ok", anchor="vad")


def test_tools_are_cut_out_of_what_lies_between_the_callback_and_the_voice_and_counted_once() -> None:
    tools = [
        Interval("tool", 400, 500),
        Interval("tool", 450, 550),
        Interval("tool", 700, 2000),
        Interval("tool", 0, 10),
        Interval("tool", 310, 320),
    ]
    assert contributions(ALL, tools) == [
        part("transcription", 100, "service", "stt"), part("endpointing", 200, "setting"),
        part("turn_callback", 10, "bot"), part("tool", 10, "bot", "tool"), part("turn_callback", 30, "bot"),
        part("llm_ttft", 50, "service", "llm"), part("tool", 150, "bot", "tool"),
        part("llm_ttft", 150, "service", "llm"), part("tool", 50, "bot", "tool"),
        part("tool", 150, "bot", "tool"), part("tool", 10, "bot", "tool"),
        part("tts_ttfb", 200, "service", "tts"), part("playback", 40, "pipeline", "tts"),
    ]  # fmt: skip


def test_a_tool_between_two_answers_of_the_model_is_the_bots_and_not_the_pipelines() -> None:
    """The usual function call: the model answers with a call, the tool runs, the model answers again."""
    marks = {START: 0, "stt_final": 50, "turn_committed": 51, "llm_request": 51, "llm_first_token": 101,
             "tts_request": 402, "tts_first_byte": 452, END: 452}  # fmt: skip
    stages = [Interval("llm", 51, 120), Interval("tool", 120, 320), Interval("llm", 320, 410)]
    assert contributions(marks, stages)[3:6] == [
        part("to_tts", 19, "pipeline", "llm"), part("tool", 200, "bot", "tool"), part("to_tts", 82, "pipeline", "llm"),
    ]  # fmt: skip


def test_tools_are_cut_out_where_the_first_token_is_missing_too() -> None:
    marks = {name: at for name, at in ALL.items() if name != "llm_first_token"}
    parts = contributions(marks, [Interval("llm", 350, 900), Interval("tool", 400, 500)])
    assert [(p.key, p.us) for p in parts[3:6]] == [("text_aggregation", 50), ("tool", 100), ("text_aggregation", 400)]


def test_a_mark_out_of_order_is_clamped_between_its_neighbours() -> None:
    early = contributions({**ALL, "llm_request": 50}, [])
    late = contributions({**ALL, "turn_committed": 9000}, [])
    assert [(p.key, p.us) for p in early[:4]] == [
        ("transcription", 100), ("endpointing", 200), ("llm_ttft", 450), ("text_aggregation", 150),
    ]  # fmt: skip
    assert [(p.key, p.us) for p in late] == [("transcription", 100), ("endpointing", 1050)]


def test_a_missing_mark_joins_its_part_to_the_next_where_a_stage_explains_it() -> None:
    marks = {name: at for name, at in ALL.items() if name not in ("llm_request", "turn_committed")}
    explained = contributions(marks, [Interval("llm", 350, 800)])
    unexplained = contributions(marks, [Interval("llm", 750, 800)])
    assert explained[1] == part("llm_ttft", 650, "service", "llm")
    assert unexplained[1] == part("unattributed", 650, "unknown")


def test_without_any_mark_between_all_is_unattributed() -> None:
    latency = measure({START: 0, END: 900_000}, [], "manual")
    assert latency.contributions == [part("unattributed", 900_000, "unknown")]
    assert (latency.unattributed_ms, latency.quality) == (900.0, "ok")


def test_no_latency_is_no_part() -> None:
    assert measure({START: 5, END: 5}, [], None).contributions == []


@pytest.mark.parametrize(
    ("marks", "quality"),
    [
        ({START: 0, END: 100}, "ok"),
        ({END: 100}, "no_anchor"),
        ({}, "no_anchor"),
        ({START: 100, END: 0}, "clock_suspect"),
        ({START: 0, END: 100, "interrupted_at": 50}, "interrupted"),
        ({START: 0, END: 100, "interrupted_at": 150}, "ok"),
        ({START: 0, "interrupted_at": 150}, "interrupted"),
    ],
)
def test_quality_says_how_far_the_latency_can_be_trusted(marks: dict[str, int], quality: str) -> None:
    assert measure(marks, [], None).quality == quality


def test_an_end_before_the_start_is_no_latency_at_all() -> None:
    assert measure({START: 100, END: 0}, [], None) == Latency({}, None, "clock_suspect")


def test_a_figure_that_ends_after_an_interruption_is_marked() -> None:
    figures = measure({**ALL, "interrupted_at": 800}, [], "vad").figures
    assert {name for name, figure in figures.items() if figure.quality == "interrupted"} == {
        "user_bot_latency_ms", "llm_first_sentence_ms", "text_aggregation_ms", "tts_ttfb_ms", "playback_latency_ms",
    }  # fmt: skip
