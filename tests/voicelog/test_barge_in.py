"""Barge-in: when the user began to speak into the bot's speech, when that ended, and what nobody heard."""

from __future__ import annotations

import pytest

from voicelog.barge_in import Speech, ledger, onset_mark, speech_of
from voicelog.events import BargeIn
from voicelog.latency import measure
from voicelog.marks import END, START

SPOKEN = {"user_speech_start": 50, START: 90, END: 100}
NOTHING = Speech()


@pytest.mark.parametrize(
    ("marks", "onset"),
    [
        ({}, None),
        ({"interrupted_at": 300, "audio_stopped": 350}, "interrupted_at"),
        ({"interrupted_at": 300}, "interrupted_at"),
        ({"user_speech_start": 200, "interrupted_at": 300, "audio_stopped": 350}, "user_speech_start"),
        ({"user_speech_start": 200, "audio_stopped": 350}, "user_speech_start"),
        ({"user_speech_start": 200}, None),  # the user spoke, and the bot went on: no barge-in
        ({"audio_stopped": 350}, None),  # that speech was the one the bot answers
        ({"user_speech_start": 400, "interrupted_at": 500, "audio_stopped": 350}, "interrupted_at"),
        ({"user_speech_start": 400, "interrupted_at": 500, "playback_end": 350}, "interrupted_at"),
        ({"user_speech_start": 400, "interrupted_at": 300}, "interrupted_at"),
    ],
)
def test_it_begins_with_the_users_speech_into_the_bots_or_else_when_it_was_heard_of(
    marks: dict[str, int], onset: str | None
) -> None:
    assert onset_mark({**SPOKEN, **marks}) == onset


def test_without_the_bots_speech_it_begins_when_it_was_heard_of() -> None:
    assert onset_mark({"user_speech_start": 200, "interrupted_at": 300}) == "interrupted_at"


def test_the_ledger_says_what_was_made_and_what_was_heard() -> None:
    marks = {**SPOKEN, "user_speech_start": 1000, "interrupted_at": 1300, "audio_stopped": 1450}
    made = [Speech(60, 3000.0, 0.0006), Speech(40, 2000.0, 0.0004)]
    assert ledger(marks, made, Speech(25, 1200.0)) == BargeIn(
        onset_us=1000, stop_us=1450, stop_ms=0.45, synthesised_characters=100, played_characters=25,
        synthesised_audio_ms=5000.0, played_audio_ms=1200.0, wasted_usd=pytest.approx(0.00075),
    )  # fmt: skip
    assert measure(marks, [], None).figures["barge_in_stop_ms"].value_ms == 0.45


def test_without_a_barge_in_there_is_no_ledger() -> None:
    assert ledger(SPOKEN, [Speech(60, 3000.0, 0.1)], Speech(1, 1.0)) is None


def test_what_is_not_known_is_absent() -> None:
    assert ledger({**SPOKEN, "interrupted_at": 300}, [], NOTHING) == BargeIn(onset_us=300)


def test_a_sum_of_which_a_part_is_not_known_is_not_known() -> None:
    found = ledger({"interrupted_at": 300}, [Speech(60, 3000.0, 0.1), Speech(40)], Speech(25, 1.0))
    assert found == BargeIn(onset_us=300, synthesised_characters=100, played_characters=25, played_audio_ms=1.0)


def test_a_stop_before_the_onset_stopped_nothing() -> None:
    assert ledger({**SPOKEN, "interrupted_at": 300, "audio_stopped": 200}, [], NOTHING) == BargeIn(onset_us=300)
    suspect = measure({**SPOKEN, "interrupted_at": 300, "audio_stopped": 200}, [], None).figures["barge_in_stop_ms"]
    assert (suspect.value_ms, suspect.quality) == (None, "clock_suspect")


@pytest.mark.parametrize(
    ("made", "played", "wasted_usd"),
    [
        (Speech(100, 5000.0, 1.0), Speech(25, None), 0.75),
        (Speech(100, 5000.0, 1.0), Speech(None, 1000.0), 0.8),
        (Speech(None, 5000.0, 1.0), Speech(25, 1000.0), 0.8),
        (Speech(100, 5000.0, 1.0), Speech(0, 0.0), 1.0),
        (Speech(100, 5000.0, 1.0), Speech(120, None), 0.0),
        (Speech(100, 5000.0, None), Speech(25, None), None),
        (Speech(100, 5000.0, 1.0), NOTHING, None),
        (Speech(0, 0.0, 1.0), Speech(0, 0.0), None),
    ],
)
def test_what_was_wasted_is_the_share_of_the_cost_that_nobody_heard(
    made: Speech, played: Speech, wasted_usd: float | None
) -> None:
    found = ledger({"interrupted_at": 300}, [made], played)
    assert found is not None
    assert found.wasted_usd == (None if wasted_usd is None else pytest.approx(wasted_usd))


@pytest.mark.parametrize(
    ("fields", "speech"),
    [
        ({"text": "Hello", "audio_ms": 900.0, "cost_usd": 0.1}, Speech(5, 900.0, 0.1)),
        ({"text": "Hello", "characters": 9}, Speech(9)),
        ({"text": "Hello", "usage": {"characters_count": 7}}, Speech(7)),
        ({"usage": {"audio_seconds": 7}}, Speech()),
        ({}, Speech()),
    ],
)
def test_a_voices_characters_are_those_it_tells_or_its_texts(fields: dict[str, object], speech: Speech) -> None:
    assert speech_of(fields) == speech
