"""A metric's figures in a minute, from its rows and merged from others."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder

from voicelog.events import Event, Figure, Metric, Turn
from voicelog_sink.parts import FAILED, measurements
from voicelog_sink.rollup import (
    COST_UNITS,
    Cell,
    Minutes,
    Name,
    Rollup,
    name_row,
    names_of,
    start_ms_of,
    unpack,
)
from voicelog_sink.sketch import Sketch

MINUTE = START_US // 60_000_000
WHO = ("front-desk", "openai", "gpt", "")


def minutes_of(events: Iterable[Event]) -> Minutes:
    minutes = Minutes()
    for place, grouped in measurements(events).items():
        for group, rows in grouped.items():
            minutes.add(place.minute, group, rows)
    return minutes


def rollups_of(events: Iterable[Event]) -> dict[Cell, Rollup]:
    return minutes_of(events).rollups


def figures(rollup: Rollup) -> dict[str, Any]:
    names = ("count", "errors", "excluded", "cost_usd")
    return {name: getattr(rollup, name) for name in names} | {"p": rollup.sketch.quantiles([0, 1])}


def test_stage_has_a_rollup_of_its_duration_and_one_of_its_first_item() -> None:
    call = CallBuilder()
    llm = {"provider": "openai", "model": "gpt"}
    call.stage("llm", 0, 700, first_item_ms=250.0, cost_usd=0.1, **llm)
    call.stage("llm", 10, 900, first_item_ms=350.0, cost_usd=0.2, **llm)
    call.stage("llm", 20, 90_000, status="error", **llm)
    call.stage("llm", 30, 5, first_item_ms=1.0, status="interrupted", cost_usd=0.4, **llm)
    found = {cell: figures(rollup) for cell, rollup in rollups_of(call.events).items()}
    assert found == {
        Cell("llm.duration_ms", MINUTE, WHO): {
            "count": 4, "errors": 1, "excluded": 2, "cost_usd": 0.7, "p": (700.0, 900.0),
        },
        Cell("llm.first_item_ms", MINUTE, WHO): {
            "count": 3, "errors": 0, "excluded": 1, "cost_usd": None, "p": (250.0, 350.0),
        },
    }  # fmt: skip


def test_figure_of_a_turn_counts_by_its_quality() -> None:
    call = CallBuilder(variant="b")
    for at, quality in enumerate(["ok", "no_anchor", "estimated", "ok"]):
        value = None if quality == "no_anchor" else 100.0 + at
        call.add(Turn, at, status="error", figures={"llm_ttft_ms": Figure(value_ms=value, quality=quality)})
    ((cell, rollup),) = rollups_of(call.events).items()
    assert cell == Cell("turn.llm_ttft_ms", MINUTE, ("front-desk", "", "", "b"))
    assert figures(rollup) == {"count": 4, "errors": 4, "excluded": 2, "cost_usd": None, "p": (100.0, 103.0)}


def test_minutes_and_dimensions_are_told_apart() -> None:
    call = CallBuilder()
    for at_ms, model in ((0, "a"), (59_999, "a"), (60_000, "a"), (0, "b"), (0, None)):
        call.stage("stt", at_ms, 1, model=model)
    counts = {
        (c.minute - MINUTE, c.dimensions[2]): r.count
        for c, r in rollups_of(call.events).items()
        if c.name == "stt.duration_ms"
    }
    assert counts == {(0, "a"): 2, (1, "a"): 1, (0, "b"): 1, (0, ""): 1}


def test_value_that_is_no_number_is_excluded() -> None:
    rollup = Rollup()
    rollup.add([1.0, float("inf"), None, 2.0], [0] * 4, [float("inf"), None, None, 1.0])
    assert figures(rollup) == {"count": 4, "errors": 0, "excluded": 1, "cost_usd": 1_000_001.0, "p": (1.0, 2.0)}


moments_ms = st.floats(0, 7_200_000)
status = st.sampled_from([None, "ok", "error", "interrupted"])
costs = st.none() | st.floats(0, 10)


@st.composite
def stages(draw: st.DrawFn) -> list[Event]:
    call = CallBuilder()
    for _ in range(draw(st.integers(1, 25))):
        first = draw(st.none() | st.floats(0, 1000))
        call.stage("llm", draw(moments_ms), draw(st.floats(0, 1e5)), status=draw(status), cost_usd=draw(costs),
                   first_item_ms=first, model=draw(st.sampled_from("ab")))  # fmt: skip
    return call.events


@given(stages(), st.randoms(), st.integers(1, 4))
def test_merging_minutes_gives_what_computing_the_hour_at_once_gives(
    events: list[Event], random: Random, parts: int
) -> None:
    at_once = rollups_of(attrs.evolve(event, ts=START_US) for event in events)
    random.shuffle(events)
    minutes = Minutes()
    for part in range(parts):
        for place, grouped in measurements(events[part::parts]).items():
            for group, rows in grouped.items():
                minutes.add(place.minute, group, rows)
    merged: dict[Cell, Rollup] = {}
    cells = list(minutes.rollups)
    random.shuffle(cells)
    for cell in cells:
        packed = unpack(minutes.rollups[cell].packed())
        merged.setdefault(cell._replace(minute=MINUTE), Rollup()).merge(packed)
    assert {c: r.packed() for c, r in merged.items()} == {c: r.packed() for c, r in at_once.items()}
    assert merged == at_once


def test_stored_form_is_as_documented() -> None:
    rollup = Rollup()
    rollup.add([1.0, 100.0], [0, FAILED], [2.5, None])
    values = [1.0, 100.0, 0, [0, 231], [1, 1], [], []]
    assert msgspec.msgpack.decode(rollup.packed()) == [1, 2, 1, 0, 2, COST_UNITS // 2, values]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (msgspec.msgpack.encode([2, 0, 0, 0, None, 0, Sketch().packed()]), "of format 2: this voicelog-sink reads"),
        (msgspec.msgpack.encode([2, "new"]), "not of format 1: .*a newer voicelog-sink"),
        (b"", "not of format 1"),
    ],
)
def test_rollup_of_another_format_is_refused(blob: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(blob)


words = st.sampled_from(["turn", "turn.", ".", "stage:", "metric:", ".duration_ms", ".first_item_ms", "x"])
sources = st.lists(words, min_size=1, max_size=4).map("".join)


@given(st.lists(sources, min_size=2, max_size=6, unique=True))
def test_no_two_things_have_the_same_name(sources: list[str]) -> None:
    named = [
        (name, kind, source)
        for source in sources
        for kind in ("stage", "turn", "metric")
        for name in names_of(source, kind)
        if kind != "turn" or source.startswith("turn.")
    ]
    assert len({name for name, _, _ in named}) == len(named)


def test_plain_names_are_the_designs() -> None:
    assert names_of("llm", "stage") == ("llm.duration_ms", "llm.first_item_ms")
    assert names_of("turn.user_bot_latency_ms", "turn") == ("turn.user_bot_latency_ms",)
    assert names_of("queue_depth", "metric") == ("queue_depth",)
    assert names_of("llm.duration_ms", "metric") == ("metric:llm.duration_ms",)
    assert names_of("turn", "stage") == ("stage:turn.duration_ms", "stage:turn.first_item_ms")


def test_names_are_listed_by_month_with_their_unit() -> None:
    call = CallBuilder()
    call.add(Metric, 0, name="queue_depth", value=3.0, unit="1"), call.add(Metric, 0, name="queue_depth", value=3.0)
    assert minutes_of(call.events).names == {Name("queue_depth", "metric", "queue_depth", unit) for unit in ("1", "")}
    row = name_row(Name("queue_depth", "metric", "queue_depth", "1"), "2026-11-22T10")
    assert row.values == {
        "month": "2026-11", "name": "queue_depth", "unit": "1", "kind": "metric", "source": "queue_depth",
        "start": 1_793_491_200_000,
    }  # fmt: skip


def test_rollups_row_says_where_and_when_it_belongs() -> None:
    rollup = Rollup()
    rollup.add([1.0], [0], [0.5])
    row = rollup.row("llm.duration_ms", "hour", "2026-11-22T10", start_ms_of("hour", "2026-11-22T10"), WHO)
    assert row == ("metric_rollups", {
        "name": "llm.duration_ms", "tier": "hour", "period": "2026-11-22", "start": 1_795_341_600_000,
        "service": "front-desk", "provider": "openai", "model": "gpt", "variant": "", "sketch": rollup.packed(),
        "count": 1, "errors": 0, "excluded": 0, "cost_usd": 0.5, "rows_read": 1,
    })  # fmt: skip
