"""A turn's latency, cut into parts that sum to the whole. Pure: integer microseconds in, figures out.

The way from user_speech_end to playback_start is cut at the marks of PARTS, each clamped to between the cut before it
and playback_start. A mark that is missing joins its part to the next one; a joined part keeps that next key only
where a stage that can explain it overlaps it, else it is `unattributed`. Tools are cut out of the part that llm_ttft
is, or is joined to. The rules with a drawing are in docs/explanation/latency.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import attrs

from voicelog.events import Contribution, Figure


class Part(NamedTuple):
    """One row of the table: from mark `start` to mark `end` is `key`, owed to `owner`."""

    start: str
    end: str
    key: str
    owner: str
    stages: tuple[str, ...]
    """Stages whose presence explains the part where one of its marks is missing."""


PARTS: tuple[Part, ...] = (
    Part("user_speech_end", "stt_final", "transcription", "service", ("stt",)),
    Part("stt_final", "turn_committed", "endpointing", "setting", ()),
    Part("turn_committed", "llm_request", "turn_callback", "bot", ()),
    Part("llm_request", "llm_first_token", "llm_ttft", "service", ("llm",)),
    Part("llm_first_token", "llm_first_sentence", "text_aggregation", "pipeline", ("llm",)),
    Part("llm_first_sentence", "tts_request", "to_tts", "pipeline", ("llm",)),
    Part("tts_request", "tts_first_byte", "tts_ttfb", "service", ("tts",)),
    Part("tts_first_byte", "playback_start", "playback", "pipeline", ("tts",)),
)
STAGE_MARKS: dict[str, tuple[str | None, str | None, str | None]] = {
    "stt": (None, None, "stt_final"),
    "llm": ("llm_request", "llm_first_token", None),
    "tts": ("tts_request", "tts_first_byte", None),
}
"""The marks that a stage sets at its start, its first item and its end."""
NO_MARKS = (None, None, None)

START = PARTS[0].start
END = PARTS[-1].end
TOOL = "tool"
AROUND_TOOLS = frozenset({"turn_callback", "llm_ttft", "text_aggregation", "to_tts"})
"""The parts in which a bot calls tools: before it asks the model, while it waits, and before it speaks."""
UNATTRIBUTED = "unattributed"

FIGURES: dict[str, tuple[str, str]] = {
    "user_bot_latency_ms": ("user_speech_end", "playback_start"),
    "end_of_turn_delay_ms": ("user_speech_end", "turn_committed"),
    "transcription_delay_ms": ("user_speech_end", "stt_final"),
    "turn_callback_delay_ms": ("turn_committed", "llm_request"),
    "llm_ttft_ms": ("llm_request", "llm_first_token"),
    "llm_first_sentence_ms": ("llm_request", "llm_first_sentence"),
    "text_aggregation_ms": ("llm_first_token", "llm_first_sentence"),
    "tts_ttfb_ms": ("tts_request", "tts_first_byte"),
    "playback_latency_ms": ("tts_first_byte", "playback_start"),
    "barge_in_stop_ms": ("interrupted_at", "audio_stopped"),
}
"""A figure's two marks. Names and definitions: docs/reference/metrics.md."""

MARKS = tuple(dict.fromkeys([START, *(part.end for part in PARTS), "interrupted_at", "audio_stopped"]))
"""The marks that the figures are made of; any other name is kept and shown."""


class Interval(NamedTuple):
    """A stage of the turn, epoch microseconds."""

    stage: str
    start_us: int
    end_us: int


class Latency(NamedTuple):
    """What a turn measured."""

    figures: dict[str, Figure]
    contributions: list[Contribution] | None
    quality: str

    @property
    def unattributed_ms(self) -> float | None:
        """Return the milliseconds that nothing explains; None without contributions."""
        if self.contributions is None:
            return None
        return sum(part.us for part in self.contributions if part.key == UNATTRIBUTED) / 1000


def measure(marks: Mapping[str, int], stages: Sequence[Interval], anchor: str | None) -> Latency:
    """Return a turn's figures and contributions from its marks (epoch microseconds) and stages."""
    quality = _quality(marks)
    figures = {
        name: Figure(
            value_ms=(marks[end] - marks[start]) / 1000, quality=_figure_quality(start, end, marks), anchor=anchor
        )
        for name, (start, end) in FIGURES.items()
        if start in marks and end in marks and marks[end] >= marks[start]
    }
    whole = START in marks and END in marks and marks[END] >= marks[START]
    return Latency(figures, contributions(marks, stages) if whole else None, quality)


def contributions(marks: Mapping[str, int], stages: Sequence[Interval]) -> list[Contribution]:
    """Return the contiguous parts from user_speech_end to playback_start; their `us` sum exactly to the whole."""
    end = marks[END]
    parts: list[Contribution] = []
    cut, joined = marks[START], list[Part]()
    for part in PARTS:
        joined.append(part)
        if part.end in marks:
            until = min(max(marks[part.end], cut), end)
            parts += _parts(joined, cut, until, stages)
            cut, joined = until, []
    return parts


def _parts(joined: list[Part], start: int, end: int, stages: Sequence[Interval]) -> list[Contribution]:
    last = joined[-1]
    explaining = {stage for part in joined for stage in part.stages}
    if len(joined) > 1 and not any(s.stage in explaining and s.start_us < end and s.end_us > start for s in stages):
        key, owner = UNATTRIBUTED, "unknown"
    else:
        key, owner = last.key, last.owner
    if start == end:
        return []
    stage = last.stages[0] if last.stages and key != UNATTRIBUTED else None
    whole = Contribution(key=key, us=end - start, owner=owner, stage=stage)
    return _without_tools(whole, start, end, stages) if any(part.key in AROUND_TOOLS for part in joined) else [whole]


def _without_tools(whole: Contribution, start: int, end: int, stages: Sequence[Interval]) -> list[Contribution]:
    parts: list[Contribution] = []
    cut = start
    for begin, until in _union((max(s.start_us, start), min(s.end_us, end)) for s in stages if s.stage == TOOL):
        if begin > cut:
            parts.append(attrs.evolve(whole, us=begin - cut))
        parts.append(Contribution(key=TOOL, us=until - begin, owner="bot", stage=TOOL))
        cut = until
    if end > cut:
        parts.append(attrs.evolve(whole, us=end - cut))
    return parts


def _union(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, until in sorted(span for span in spans if span[0] < span[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], until))
        else:
            merged.append((begin, until))
    return merged


def _quality(marks: Mapping[str, int]) -> str:
    if START not in marks:
        return "no_anchor"
    if _interrupted_before(marks.get(END), marks):
        return "interrupted"
    if END in marks and marks[END] < marks[START]:
        return "clock_suspect"
    return "ok"


def _figure_quality(start: str, end: str, marks: Mapping[str, int]) -> str:
    if start == "interrupted_at":
        return "ok"
    return "interrupted" if _interrupted_before(marks[end], marks) else "ok"


def _interrupted_before(moment: int | None, marks: Mapping[str, int]) -> bool:
    return "interrupted_at" in marks and (moment is None or marks["interrupted_at"] <= moment)
