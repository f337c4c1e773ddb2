"""Barge-in: the user speaks into the bot's speech; when, how long the bot spoke on, what was made for nothing. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from voicelog.events import BargeIn
from voicelog.figures import INTERRUPTED, STOPPED
from voicelog.marks import END

SPEECH_START = "user_speech_start"
SPEECH_ENDS = (STOPPED, "playback_end")
"""The marks at which the bot's speech is over."""


class Speech(NamedTuple):
    """How much speech: what a stage synthesised, with what it cost, or what was played. None is not known."""

    characters: int | None = None
    audio_ms: float | None = None
    cost_usd: float | None = None


def speech_of(fields: Mapping[str, Any]) -> Speech:
    """Return what a finished tts stage synthesised, by its event's fields: `characters`, or else the text's length."""
    characters, text = fields.get("characters"), fields.get("text")
    if characters is None:
        characters = (fields.get("usage") or {}).get("characters_count", len(text) if text is not None else None)
    return Speech(characters, fields.get("audio_ms"), fields.get("cost_usd"))


def onset_mark(marks: Mapping[str, int]) -> str | None:
    """Return the mark at which the user began to speak into the bot's speech; None where nobody did.

    It is user_speech_start, where that lies in the bot's speech, which then was stopped; or else interrupted_at.
    A user_speech_start before the bot speaks is that of the speech which the bot answers.
    """
    began, heard = marks.get(SPEECH_START), marks.get(INTERRUPTED)
    is_told = heard is not None or STOPPED in marks
    if began is not None and is_told and _bot_speaks(began, marks) and (heard is None or began <= heard):
        return SPEECH_START
    return INTERRUPTED if heard is not None else None


def _bot_speaks(at: int, marks: Mapping[str, int]) -> bool:
    return END in marks and marks[END] <= at <= min((marks[name] for name in SPEECH_ENDS if name in marks), default=at)


def ledger(marks: Mapping[str, int], synthesised: Sequence[Speech], played: Speech) -> BargeIn | None:
    """Return what a barge-in cut off; None without one."""
    mark, stopped = onset_mark(marks), marks.get(STOPPED)
    if mark is None:
        return None
    began = marks[mark]
    if stopped is not None and stopped < began:
        stopped = None
    whole = _total(synthesised)
    return BargeIn(
        onset_us=began,
        stop_us=stopped,
        stop_ms=None if stopped is None else (stopped - began) / 1000,
        synthesised_characters=whole.characters,
        played_characters=played.characters,
        synthesised_audio_ms=whole.audio_ms,
        played_audio_ms=played.audio_ms,
        wasted_usd=_wasted_usd(whole, played),
    )


def _total(speeches: Sequence[Speech]) -> Speech:
    """Return the sums; a sum of which a part is not known is not known."""
    characters, audio_ms, cost_usd = (_sum([speech[n] for speech in speeches]) for n in range(3))
    return Speech(None if characters is None else int(characters), audio_ms, cost_usd)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known and len(known) == len(values) else None


def _wasted_usd(whole: Speech, played: Speech) -> float | None:
    """Return the cost of the share that was not played, by characters or else by length."""
    for made, heard in ((whole.characters, played.characters), (whole.audio_ms, played.audio_ms)):
        if whole.cost_usd is not None and made and heard is not None:
            return whole.cost_usd * max(made - heard, 0) / made
    return None
