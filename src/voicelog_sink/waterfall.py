"""The layout of a turn's stages as bars on one time axis. Pure: offsets and widths, no characters, no colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import attrs

from voicelog.events import Event, StageStarted
from voicelog_sink.calls import CallTurn
from voicelog_sink.tally import end_us

LATENCY = ("user_speech_end", "playback_start")
"""The marks between which a turn's latency lies."""

OPEN = "open"
"""The status of a stage that has not ended."""

STEPS = (1, 2, 5)
TOOL_NAMES = ("tool", "tool_name", "function", "name")


class Span(NamedTuple):
    """Cells of a line: `skip` empty ones, then `waiting` before the first item, then `running`."""

    skip: int
    waiting: int
    running: int

    @property
    def end(self) -> int:
        """The first cell after it."""
        return self.skip + self.waiting + self.running


@attrs.frozen(kw_only=True)
class Bar:
    """A stage on the axis; `start_ms` from the axis's origin, `duration_ms` None while it is open."""

    event: Event
    name: str
    provider: str
    depth: int
    start_ms: float
    duration_ms: float | None
    first_item_ms: float | None
    status: str


@attrs.frozen(kw_only=True)
class Waterfall:
    """Bars on an axis of `span_ms` from `origin_us` on; `latency_ms` is where the turn's latency lies on it."""

    origin_us: int
    span_ms: float
    bars: tuple[Bar, ...]
    latency_ms: tuple[float, float] | None

    def cells(self, bar: Bar, width: int) -> Span:
        """Return a bar's cells of `width`: at least one, the waiting part never the whole of a bar that had an item."""
        end_ms = self.span_ms if bar.duration_ms is None else bar.start_ms + bar.duration_ms
        skip, end = self.between(bar.start_ms, end_ms, width)
        if bar.first_item_ms is None or end - skip < 2:
            return Span(skip, 0, end - skip)
        first, _ = self.between(bar.start_ms + bar.first_item_ms, end_ms, width)
        first = min(max(first, skip), end - 1)
        return Span(skip, first - skip, end - first)

    def between(self, start_ms: float, end_ms: float, width: int) -> tuple[int, int]:
        """Return the first cell from `start_ms` on and the one after `end_ms`: at least one lies between them."""
        start = min(self._cell(start_ms, width), width - 1)
        return start, min(max(self._cell(end_ms, width), start + 1), width)

    def _cell(self, at_ms: float, width: int) -> int:
        return round(min(max(at_ms / self.span_ms, 0.0), 1.0) * width)

    def ticks(self, width: int, apart: int) -> Iterator[tuple[int, float]]:
        """Yield the axis's ticks, their cell and milliseconds: round numbers at least `apart` cells from each other."""
        step_ms = next(step for step in _steps() if step * width >= self.span_ms * apart)
        for number in range(int(self.span_ms / step_ms) + 1):
            yield self._cell(number * step_ms, width), number * step_ms


def of_turn(turn: CallTurn) -> Waterfall | None:
    """Return the waterfall of a turn's stages; None without stages.

    The axis goes from the first to the last of them, and over the turn's latency. The playback, which often is far
    longer, is not on it.
    """
    marks = turn.event.marks if turn.event and turn.event.marks else {}
    return of_stages(turn.stages, marks)


def of_stages(stages: Sequence[Event], marks: Mapping[str, int] | None = None) -> Waterfall | None:
    """Return the waterfall of any stages and a turn's marks (epoch microseconds); None without stages."""
    if not stages:
        return None
    moments = [moment for name, moment in (marks or {}).items() if name in LATENCY]
    origin_us = min(*moments, *(stage.ts for stage in stages), stages[0].ts)
    last_us = max(*moments, *(end_us(stage) for stage in stages), origin_us)
    return Waterfall(
        origin_us=origin_us,
        span_ms=max(last_us - origin_us, 1) / 1000,
        bars=tuple(_bar(stage, depth, origin_us) for stage, depth in _nested(stages)),
        latency_ms=_latency(marks or {}, origin_us),
    )


def _latency(marks: Mapping[str, int], origin_us: int) -> tuple[float, float] | None:
    start, end = (marks.get(name) for name in LATENCY)
    if start is None or end is None or end < start:
        return None
    return (start - origin_us) / 1000, (end - origin_us) / 1000


def _bar(stage: Event, depth: int, origin_us: int) -> Bar:
    is_open = isinstance(stage, StageStarted)
    return Bar(
        event=stage,
        name=" ".join(part for part in (stage.stage or stage.TYPE, tool_of(stage)) if part),
        provider="/".join(part for part in (stage.provider, stage.model) if part),
        depth=depth,
        start_ms=(stage.ts - origin_us) / 1000,
        duration_ms=None if is_open else stage.duration_ms or 0.0,
        first_item_ms=stage.first_item_ms,
        status=OPEN if is_open else stage.status or "ok",
    )


def tool_of(stage: Event) -> str:
    """Return the name of the tool that a tool stage called; empty for other stages and where it is not told."""
    if stage.stage != "tool" or not stage.attributes:
        return ""
    return next((name for key in TOOL_NAMES if isinstance(name := stage.attributes.get(key), str)), "")


def _nested(stages: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """Yield the stages by their start, what was called inside of a stage below it, with its depth."""
    ordered = sorted(stages, key=lambda stage: (stage.ts, stage.stream_id, stage.seq))
    ids = {stage.span_id for stage in ordered if stage.span_id}
    children: dict[str | None, list[Event]] = {}
    for stage in ordered:
        parent = stage.parent_id if stage.parent_id in ids and stage.parent_id != stage.span_id else None
        children.setdefault(parent, []).append(stage)
    left = {id(stage): stage for stage in ordered}
    pending = [(stage, 0) for stage in reversed(children.get(None, []))]
    while pending or left:
        stage, depth = pending.pop() if pending else (next(iter(left.values())), 0)  # the latter: a ring of parents
        if left.pop(id(stage), None) is not None:
            yield stage, depth
            inner = children.get(stage.span_id, []) if stage.span_id else []
            pending += [(child, depth + 1) for child in reversed(inner)]


def _steps() -> Iterator[float]:
    power = 1.0
    while True:
        yield from (step * power for step in STEPS)
        power *= 10
