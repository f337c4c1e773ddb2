"""Stages as bars on one axis."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import CallBuilder, realistic_call, troubled_call
from tests.strategies import events_of

from voicelog.events import LlmRequest, StageEvent, StageStarted
from voicelog_sink.calls import call_of
from voicelog_sink.summary import summarise
from voicelog_sink.waterfall import Bar, Span, Waterfall, of_stages, of_turn

widths = st.integers(1, 200)
lengths = st.integers(0, 100_000)


def waterfall_of(call: CallBuilder) -> Waterfall:
    made = of_stages(call.events)
    assert made is not None
    return made


def spans(call: CallBuilder, width: int) -> list[Span]:
    made = waterfall_of(call)
    return [made.cells(bar, width) for bar in made.bars]


def test_no_stages_have_no_waterfall() -> None:
    assert of_stages([]) is None


def test_bars_lie_where_their_stages_were() -> None:
    call = CallBuilder()
    call.stage("stt", 0, 40), call.stage("llm", 40, 60, first_item_ms=30), call.stage("tts", 70, 30, first_item_ms=10)
    assert spans(call, 10) == [Span(0, 0, 4), Span(4, 3, 3), Span(7, 1, 2)]


def test_first_item_is_never_the_whole_bar_and_never_out_of_it() -> None:
    call = CallBuilder()
    call.stage("llm", 0, 100, first_item_ms=100), call.stage("llm", 0, 100, first_item_ms=0)
    assert spans(call, 10) == [Span(0, 9, 1), Span(0, 0, 10)]


@given(st.lists(st.tuples(lengths, lengths, st.none() | lengths), min_size=1, max_size=12), widths)
def test_every_stage_is_seen_and_none_leaves_the_axis(stages: list[tuple[int, int, int | None]], width: int) -> None:
    call = CallBuilder()
    for at, duration, first in stages:
        call.stage("llm", at, duration, first_item_ms=None if first is None else float(first))
    for skip, waiting, running in spans(call, width):
        assert skip >= 0
        assert waiting >= 0
        assert running >= 1
        assert skip + waiting + running <= width


@given(lengths, st.integers(1, 100_000), lengths, st.integers(1, 100_000), widths)
def test_stages_that_overlapped_by_a_cell_are_seen_to(
    start: int, length: int, other: int, its: int, width: int
) -> None:
    call = CallBuilder()
    call.stage("llm", start, length), call.stage("tts", other, its)
    made = waterfall_of(call)
    first, second = (made.cells(bar, width) for bar in made.bars)
    overlap_ms = min(start + length, other + its) - max(start, other)
    if overlap_ms * width > made.span_ms:
        assert max(first.skip, second.skip) < min(first.end, second.end)


@given(
    st.lists(events_of(StageEvent) | events_of(LlmRequest) | events_of(StageStarted), min_size=1, max_size=6), widths
)
def test_any_stages_at_all_can_be_laid_out(stages: list[StageEvent], width: int) -> None:
    made = of_stages(stages)
    assert made is not None
    assert sorted(id(bar.event) for bar in made.bars) == sorted(id(stage) for stage in stages)
    assert all(0 <= made.cells(bar, width).end <= width for bar in made.bars)


def depths(call: CallBuilder) -> list[tuple[str, int]]:
    return [(bar.name, bar.depth) for bar in waterfall_of(call).bars]


def test_inner_stages_are_below_the_one_around_them() -> None:
    call = CallBuilder()
    call.stage("llm", 0, 100, span_id="a"), call.stage("tts", 10, 5, span_id="t")
    call.stage("tool", 20, 30, span_id="b", parent_id="a"), call.stage("retrieval", 25, 10, parent_id="b")
    call.stage("tool", 60, 5, parent_id="a"), call.stage("vad", 15, 5, parent_id="gone")
    assert depths(call) == [("llm", 0), ("tool", 1), ("retrieval", 2), ("tool", 1), ("tts", 0), ("vad", 0)]


def test_ring_of_parents_loses_no_stage() -> None:
    call = CallBuilder()
    call.stage("a", 0, 1, span_id="1", parent_id="2"), call.stage("b", 1, 1, span_id="2", parent_id="1")
    call.stage("c", 2, 1, span_id="3", parent_id="3")
    assert depths(call) == [("c", 0), ("a", 0), ("b", 1)]


def test_open_stage_reaches_to_the_end_of_the_axis() -> None:
    call = CallBuilder()
    call.stage("stt", 0, 100), call.add(StageStarted, 50, stage="llm")
    made = waterfall_of(call)
    assert [(bar.status, bar.duration_ms, made.cells(bar, 10)) for bar in made.bars] == [
        ("ok", 100.0, Span(0, 0, 10)), ("open", None, Span(5, 0, 5)),
    ]  # fmt: skip


def turn_bars(call: CallBuilder, number: int) -> tuple[Waterfall, tuple[Bar, ...]]:
    summary = summarise(call.events)
    assert summary is not None
    made = of_turn(call_of(summary, call.events).turns[number])
    assert made is not None
    return made, made.bars


def test_axis_of_a_turn_holds_its_latency() -> None:
    call = realistic_call(turns=1)
    made, bars = turn_bars(call, 0)
    turn = next(event for event in call.events if event.TYPE == "turn")
    assert made.latency_ms is not None
    assert round(made.latency_ms[1] - made.latency_ms[0], 3) == turn.user_bot_latency_ms  # type: ignore[attr-defined]
    assert made.latency_ms[1] <= made.span_ms
    assert [bar.provider for bar in bars] == [
        "deepgram/nova-3", "openai/gpt-4o-mini", "cartesia/sonic-2", "cartesia/sonic-2",
    ]  # fmt: skip


def test_tool_stage_is_called_by_its_tool() -> None:
    _, bars = turn_bars(troubled_call(), 1)
    assert [(bar.name, bar.depth, bar.status) for bar in bars] == [
        ("stt", 0, "ok"), ("llm", 0, "interrupted"), ("tool find_table", 1, "error"), ("tts", 0, "interrupted"),
    ]  # fmt: skip


@given(st.integers(1, 10_000_000), st.integers(20, 200), st.integers(5, 20))
def test_ticks_are_round_and_apart(span_ms: int, width: int, apart: int) -> None:
    call = CallBuilder()
    call.stage("llm", 0, span_ms)
    ticks = list(waterfall_of(call).ticks(width, apart))
    assert ticks[0] == (0, 0)
    assert all(later[0] - earlier[0] >= apart - 1 for earlier, later in pairwise(ticks))
    steps = {round(later[1] - earlier[1], 6) for earlier, later in pairwise(ticks)}
    assert all(f"{step:e}"[0] in "125" for step in steps)
    assert len(steps) <= 1
