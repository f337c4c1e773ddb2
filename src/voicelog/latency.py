"""A turn's latency, cut into parts that sum to the whole. Pure: integer microseconds in, figures out.

The way from user_speech_end to playback_start is cut at the marks of PARTS, each clamped to between the cut before it
and playback_start. A mark that is missing joins its part to the next one. Out of a part is cut what is known of it
better: the time of tools, and that in which a service was waited for. The rules, with a drawing and worked examples,
are in docs/explanation/latency.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from voicelog.barge_in import onset_mark
from voicelog.events import Contribution, Figure
from voicelog.figures import FIGURES, ONSET, between_marks, quality_of_whole, tool_call
from voicelog.marks import END, START, TOOL, Interval, asked, stage_marks, within
from voicelog.spans import FOREVER, Span, clip, covers


class Part(NamedTuple):
    """One row of the table: from mark `start` to mark `end` is `key`, owed to `owner`."""

    start: str
    end: str
    key: str
    owner: str
    stage: str | None
    """The stage that it is a part of."""


PARTS: tuple[Part, ...] = (
    Part("user_speech_end", "stt_final", "transcription", "service", "stt"),
    Part("stt_final", "turn_committed", "endpointing", "setting", None),
    Part("turn_committed", "llm_request", "turn_callback", "bot", None),
    Part("llm_request", "llm_first_token", "llm_ttft", "service", "llm"),
    Part("llm_first_token", "llm_first_sentence", "text_aggregation", "pipeline", "llm"),
    Part("llm_first_sentence", "tts_request", "to_tts", "pipeline", "llm"),
    Part("tts_request", "tts_first_byte", "tts_ttfb", "service", "tts"),
    Part("tts_first_byte", "playback_start", "playback", "pipeline", "tts"),
)
UNATTRIBUTED = Part("", "", "unattributed", "unknown", None)
TOOLS = Part("", "", TOOL, "bot", TOOL)

SERVICES = tuple(part for part in PARTS if part.owner == "service")
"""The parts in which a service is waited for."""
AROUND_TOOLS = frozenset({"turn_callback", "llm_ttft", "text_aggregation", "to_tts"})
"""The parts in which a bot calls tools: before it asks the model, while it waits, and before it speaks."""
AFTER_TOKENS = frozenset({"text_aggregation", "to_tts"})
"""The parts in which a model may be asked again: after a tool that it wanted, or by a second step of the bot."""

_ROWS = FIGURES.values()
MARKS = tuple(
    dict.fromkeys(
        [START, *(part.end for part in PARTS)]
        + [mark for row in _ROWS for mark in (row.start, row.end) if mark not in ("", ONSET)]
        + ["user_speech_start", "interrupted_at", "playback_end"]
    )
)
"""The marks that the figures are made of; any other name is kept and shown."""


class Latency(NamedTuple):
    """What a turn measured, and the marks that it was measured by: the stages' and the user's own."""

    marks: dict[str, int]
    figures: dict[str, Figure]
    contributions: list[Contribution] | None
    quality: str

    @property
    def user_bot_latency_ms(self) -> float | None:
        """The whole; None where it was not measured."""
        whole = self.figures.get("user_bot_latency_ms")
        return whole.value_ms if whole is not None else None

    @property
    def unattributed_ms(self) -> float | None:
        """Return the milliseconds that nothing explains; None without contributions."""
        figure = self.figures.get("unattributed_ms")
        return figure.value_ms if figure is not None else None


def measure(
    marks: Mapping[str, int],
    stages: Iterable[Interval],
    anchor: str | None,
    *,
    foreign: Collection[str] = (),
    is_interrupted: bool = False,
) -> Latency:
    """Return a turn's figures and contributions from its own marks (epoch microseconds) and its stages.

    The user's marks win over the stages'. `foreign` names those that another process's clock gave.
    """
    inside = within(stages, marks, foreign)
    known = {**stage_marks(inside), **marks}
    quality = quality_of_whole(known, foreign, is_interrupted)
    is_whole = START in known and END in known and known[END] >= known[START]
    parts = contributions(known, inside) if is_whole else None
    figures = between_marks(*_with_onset(known, foreign), anchor)
    tools = tool_call(inside, known, foreign, anchor)
    if tools is not None:
        figures["tool_call_ms"] = tools
    if parts is not None:
        us = sum(part.us for part in parts if part.key == UNATTRIBUTED.key)
        figures["unattributed_ms"] = Figure(value_ms=us / 1000, quality=quality, anchor=anchor)
    return Latency(known, figures, parts, quality)


def _with_onset(marks: dict[str, int], foreign: Collection[str]) -> tuple[dict[str, int], Collection[str]]:
    mark = onset_mark(marks)
    if mark is None:
        return marks, foreign
    return {**marks, ONSET: marks[mark]}, {*foreign, ONSET} if mark in foreign else foreign


def contributions(marks: Mapping[str, int], stages: Sequence[Interval]) -> list[Contribution]:
    """Return the contiguous parts from user_speech_end to playback_start; their `us` sum exactly to the whole.

    `marks` are all marks, the stages' too; the stages are those within.
    """
    end = marks[END]
    parts: list[Contribution] = []
    cut, joined = marks[START], list[Part]()
    for part in PARTS:
        joined.append(part)
        if part.end in marks:
            until = min(max(marks[part.end], cut), end)
            parts += _parts(joined, cut, until, stages)
            cut, joined = until, []
    return _merged(parts)


def _parts(joined: Sequence[Part], start: int, end: int, stages: Sequence[Interval]) -> Iterator[Contribution]:
    """Yield what the time from `start` to `end` is made of: a part of the table, or several where marks are missing."""
    rest = joined[0] if len(joined) == 1 else _rest(joined, start, end, stages)
    cuts = [(part, clip(spans, start, end)) for part, spans in _known_better(joined, start, end, stages)]
    moments = sorted({start, end, *(moment for _, spans in cuts for span in spans for moment in span)})
    for begin, until in pairwise(moments):
        part = next((part for part, spans in cuts if covers(spans, begin)), rest)
        yield Contribution(key=part.key, us=until - begin, owner=part.owner, stage=part.stage)


def _rest(joined: Sequence[Part], start: int, end: int, stages: Sequence[Interval]) -> Part:
    """Return what joined parts are called: the last of them, where its own stage ran or all have one owner."""
    last = joined[-1]
    mine = (s for s in stages if s.stage == last.stage and s.status not in ("error", "cancelled"))
    spans = [_span(stage) for stage in mine if stage.start_us is not None]
    is_explained = last.owner != "service" and any(begin <= end and until >= start for begin, until in spans)
    return last if is_explained or len({part.owner for part in joined}) == 1 else UNATTRIBUTED


def _known_better(
    joined: Sequence[Part], start: int, end: int, stages: Sequence[Interval]
) -> Iterator[tuple[Part, list[Span]]]:
    """Yield what is cut out of a part, and when it was; what comes first wins where they overlap."""
    keys = {part.key for part in joined}
    if keys & AROUND_TOOLS:
        yield TOOLS, [_span(s) for s in stages if s.stage == TOOL]
    for service in SERVICES:
        if service.key in keys and len(joined) > 1:
            yield service, list(_waits(service, end, stages))
        elif service.stage == "llm" and keys & AFTER_TOKENS:
            yield service, [wait for wait in _waits(service, end, stages) if start <= wait[0] and wait[1] <= end]


def _waits(service: Part, end: int, stages: Sequence[Interval]) -> Iterator[Span]:
    """Yield when a service was waited for: until its first item, or its end where it gave none or failed.

    Recognition that goes on after `end` was not waited for: it runs on from turn to turn.
    """
    for stage in asked(stages, service.stage or ""):
        begin, until = _span(stage)
        if stage.first_us is not None and stage.status != "error":
            until = stage.first_us
        if service.stage != "stt" or until <= end:
            yield begin, until


def _span(stage: Interval) -> Span:
    """Return from when to when a stage ran: no time at all where its start is not known."""
    until = FOREVER if stage.end_us is None else stage.end_us
    return (until if stage.start_us is None else stage.start_us), until


def _merged(parts: Iterable[Contribution]) -> list[Contribution]:
    merged: list[Contribution] = []
    for part in parts:
        before = merged[-1] if merged else None
        if before is not None and before.key == part.key:
            merged[-1] = Contribution(key=part.key, us=before.us + part.us, owner=part.owner, stage=part.stage)
        else:
            merged.append(part)
    return merged
