"""A turn's figures: each the time between two of its marks, or none, and how far to trust it. Pure.

FIGURES is the one table of them; docs/reference/metrics.md is written from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from voicelog.events import Figure
from voicelog.marks import END, START, TOOL, Interval
from voicelog.spans import FOREVER, clip

ONSET = "barge_in_onset"
"""Stands for the moment at which the user began to speak into the bot's speech; see voicelog.barge_in."""
SESSION_START = "session_start"
INTERRUPTED = "interrupted_at"
STOPPED = "audio_stopped"


class Definition(NamedTuple):
    """A figure: from mark `start` to mark `end`, or computed otherwise where both are empty."""

    start: str
    end: str
    meaning: str
    aligns: str = ""
    """What others call it."""


FIGURES: dict[str, Definition] = {
    "user_bot_latency_ms": Definition(
        START, END, "how long the user waited for the bot's voice",
        "Pipecat turn.user_bot_latency_seconds, LiveKit e2e_latency",
    ),
    "end_of_turn_delay_ms": Definition(
        START, "turn_committed", "until the turn was taken to be over",
        "LiveKit end_of_turn_delay, Pipecat user_turn_secs",
    ),
    "transcription_delay_ms": Definition(
        START, "stt_final", "until the transcript was final", "LiveKit transcription_delay, Pipecat TTFS",
    ),
    "turn_callback_delay_ms": Definition(
        "turn_committed", "llm_request", "what the bot did before it asked the model",
        "LiveKit on_user_turn_completed_delay",
    ),
    "llm_ttft_ms": Definition(
        "llm_request", "llm_first_token",
        "until the model's first token; with retries, failover and tools that lie within",
        "OTel gen_ai.response.time_to_first_chunk, LiveKit ttft, Pipecat LLM TTFB",
    ),
    "llm_ttfat_ms": Definition(
        "llm_request", "llm_first_answer_token", "until the first token of the answer, after the model's thinking",
        "Pipecat ttfat",
    ),
    "thinking_time_ms": Definition(
        "llm_first_token", "llm_first_answer_token", "the model's thinking aloud before its answer",
        "Pipecat thinking_time",
    ),
    "llm_first_sentence_ms": Definition(
        "llm_request", "llm_first_sentence", "until there was a sentence to speak", "LiveKit llm_node_ttfs",
    ),
    "text_aggregation_ms": Definition(
        "llm_first_token", "llm_first_sentence", "gathering tokens to a sentence", "Pipecat TextAggregationMetricsData",
    ),
    "tts_ttfb_ms": Definition(
        "tts_request", "tts_first_byte", "until the first byte of speech", "LiveKit tts_node_ttfb, Pipecat TTS TTFB",
    ),
    "tts_ttfa_ms": Definition("tts_request", "tts_first_audible", "until the first audible sound", "Pipecat ttfa"),
    "leading_silence_ms": Definition(
        "tts_first_byte", "tts_first_audible", "the silence that synthesised speech begins with",
        "Pipecat leading_silence",
    ),
    "playback_latency_ms": Definition(
        "tts_first_byte", END, "from the first byte of speech to its sound", "LiveKit playback_latency",
    ),
    "barge_in_stop_ms": Definition(
        ONSET, STOPPED, "how long the bot spoke on after the user began to speak into its speech",
    ),
    "first_bot_speech_ms": Definition(
        SESSION_START, END, "of a session's first turn: until the bot was first heard",
        "Pipecat on_first_bot_speech_latency, Bolna time_to_first_audio",
    ),
    "tool_call_ms": Definition(
        "", "", "time of the latency in which at least one tool ran; what one call took is in its own stage",
        "OTel gen_ai.execute_tool.duration, of each call",
    ),
    "unattributed_ms": Definition("", "", "time of the latency that no stage and no mark explains"),
}  # fmt: skip
"""A turn's figures by name, in the order of a turn."""


def between_marks(marks: Mapping[str, int], foreign: Collection[str], anchor: str | None) -> dict[str, Figure]:
    """Return the figures whose end is marked; what can't be measured for want of order or anchor has no value."""
    found = {}
    for name, row in FIGURES.items():
        if row.end in marks and (row.start in marks or row.start == START):
            quality = quality_of(row, marks, foreign)
            is_measured = quality not in ("no_anchor", "clock_suspect")
            value_ms = (marks[row.end] - marks[row.start]) / 1000 if is_measured else None
            found[name] = Figure(value_ms=value_ms, quality=quality, anchor=anchor)
    return found


def quality_of(row: Definition, marks: Mapping[str, int], foreign: Collection[str]) -> str:
    """Return how far the time between two marks can be trusted; the end must be there."""
    if row.start not in marks:
        return "no_anchor"
    if marks[row.end] < marks[row.start]:
        return "clock_suspect"
    if row.start != ONSET and _is_interrupted_by(marks[row.end], marks):
        return "interrupted"
    return "estimated" if row.start in foreign or row.end in foreign else "ok"


def quality_of_whole(marks: Mapping[str, int], foreign: Collection[str], is_interrupted: bool) -> str:
    """Return how far the turn's latency can be trusted, also where there is none."""
    if START in marks and END not in marks and (is_interrupted or INTERRUPTED in marks):
        return "interrupted"
    if END not in marks:
        return "no_anchor"
    return quality_of(FIGURES["user_bot_latency_ms"], marks, foreign)


def _is_interrupted_by(moment: int, marks: Mapping[str, int]) -> bool:
    return INTERRUPTED in marks and marks[INTERRUPTED] <= moment


def tool_call(
    stages: Iterable[Interval], marks: Mapping[str, int], foreign: Collection[str], anchor: str | None
) -> Figure | None:
    """Return the time in which tools ran; None without any.

    It is that between user_speech_end and playback_start; a mark that is missing bounds nothing, nor do both where
    they are out of order.
    """
    since, until = marks.get(START, 0), marks.get(END, FOREVER)
    bounds = (since, until) if since <= until else (0, FOREVER)
    ran = [(s.start_us, s.end_us if s.end_us is not None else until) for s in stages if s.stage == TOOL]
    spans = clip([(begin, end) for begin, end in ran if begin is not None and end < FOREVER], *bounds)
    if not spans:
        return None
    is_foreign = any(name in marks and name in foreign for name in (START, END))
    quality = "interrupted" if _is_interrupted_by(spans[-1][1], marks) else "estimated" if is_foreign else "ok"
    return Figure(value_ms=sum(end - begin for begin, end in spans) / 1000, quality=quality, anchor=anchor)
