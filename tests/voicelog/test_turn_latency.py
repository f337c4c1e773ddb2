"""What a turn measures of stages that really ran: retries, failover, tools, other clocks, barge-in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import voicelog
from voicelog.errors import ConfigError
from voicelog.events import BargeIn, Figure, Turn
from voicelog.marks import END, START
from voicelog.testing import START_US, Capture, capture
from voicelog.turn_marks import MAX_MARKS


@pytest.fixture
def still() -> Iterator[Capture]:
    """Return a capture whose clock moves only by `advance`."""
    with capture(step_ms=0) as captured:
        yield captured


def stepped(captured: Capture, name: str, ms: float, first_ms: float | None = None, **fields: Any) -> None:
    """Run a stage that takes `ms`."""
    with voicelog.stage(name, **fields) as stage:
        if first_ms is not None:
            captured.clock.advance(first_ms)
            stage.mark_first()
            ms -= first_ms
        captured.clock.advance(ms)


def failing(captured: Capture, name: str, ms: float) -> None:
    """Run a stage that fails after `ms`."""
    with voicelog.stage(name) as stage:
        captured.clock.advance(ms)
        stage.fail(TimeoutError())


def spoken(captured: Capture, turn: Any) -> None:
    """Synthesise, and begin to play."""
    stepped(captured, "tts", 300, first_ms=200)
    turn.mark(END, ago_ms=50)


def parts(turn: Turn) -> list[tuple[str, float]]:
    return [(part.key, part.us / 1000) for part in turn.contributions or ()]


def test_a_provider_that_failed_is_the_services_time_and_its_successor_answers(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark(START)
        failing(still, "stt", 40)
        stepped(still, "stt", 60)
        turn.mark("turn_committed")
        still.clock.advance(5)
        failing(still, "llm", 1000)
        stepped(still, "llm", 500, first_ms=300)
        failing(still, "tts", 70)
        spoken(still, turn)
    (event,) = still.of("turn")
    assert parts(event) == [
        ("transcription", 100), ("turn_callback", 5), ("llm_ttft", 1300), ("to_tts", 200), ("tts_ttfb", 270),
        ("playback", 50),
    ]  # fmt: skip
    figures = ("transcription_delay_ms", "turn_callback_delay_ms", "llm_ttft_ms", "tts_ttfb_ms")
    assert [event.figures[name].value_ms for name in figures] == [100, 5, 1300, 270]


def test_a_tool_between_two_answers_is_the_bots_and_the_second_wait_the_services(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark(START)
        turn.mark("stt_final")
        turn.mark("turn_committed")
        stepped(still, "llm", 120, first_ms=100)
        stepped(still, "tool", 200)
        stepped(still, "llm", 80, first_ms=70)
        spoken(still, turn)
    (event,) = still.of("turn")
    assert parts(event) == [
        ("llm_ttft", 100), ("to_tts", 20), ("tool", 200), ("llm_ttft", 70), ("to_tts", 10), ("tts_ttfb", 200),
        ("playback", 50),
    ]  # fmt: skip
    assert event.figures["tool_call_ms"] == Figure(value_ms=200.0, anchor="manual")


def test_stages_that_are_still_open_at_the_turns_end_have_set_their_marks(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark(START)
        llm, tts = voicelog.stage("llm"), voicelog.stage("tts")
        with llm:
            still.clock.advance(100)
            llm.mark_first()
            still.clock.advance(10)
            with tts:
                still.clock.advance(50)
                tts.mark_first()
                turn.mark(END)
                turn.end()
    (event,) = still.of("turn")
    assert parts(event) == [("llm_ttft", 100), ("to_tts", 10), ("tts_ttfb", 50)]


def test_published_results_count_as_stages_do(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark(START)
        still.clock.advance(1000)
        voicelog.publish_tts_result("Hello", ago_ms=0, duration_ms=300, first_item_ms=150)
        voicelog.publish_llm_request("Hello", ago_ms=350, duration_ms=500, first_item_ms=400)
        voicelog.publish_llm_request("no", ago_ms=900, duration_ms=40, error=TimeoutError())
        voicelog.publish_stt_result("Hi", ago_ms=960)
        turn.mark("turn_committed", ago_ms=950)
        turn.mark(END)
    (event,) = still.of("turn")
    assert parts(event) == [
        ("transcription", 40), ("endpointing", 10), ("turn_callback", 10), ("llm_ttft", 490), ("to_tts", 150),
        ("tts_ttfb", 150), ("playback", 150),
    ]  # fmt: skip


def test_a_result_without_a_duration_sets_no_mark_but_its_end(still: Capture) -> None:
    with voicelog.session(), voicelog.turn():
        voicelog.publish_llm_request("Hello", first_item_ms=100)
        voicelog.publish_stt_result("Hi")
    assert still.of("turn")[0].marks == {"stt_final": START_US}


# --- other clocks


def test_a_mark_that_another_process_took_makes_an_estimate(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark(START, anchor="vad")
        still.clock.advance(100)
        stepped(still, "tts", 300, first_ms=200)
        turn.mark(END, at_us=START_US + 512_345)
    (event,) = still.of("turn")
    assert event.marks[END] == START_US + 512_345
    assert event.user_bot_latency_ms == 512.345
    assert (event.quality, event.anchor) == ("estimated", "vad")
    assert {name: figure.quality for name, figure in event.figures.items()} == {
        "user_bot_latency_ms": "estimated", "playback_latency_ms": "estimated", "first_bot_speech_ms": "estimated",
        "unattributed_ms": "estimated", "tts_ttfb_ms": "ok",
    }  # fmt: skip
    assert sum(part.us for part in event.contributions) == 512_345


def test_another_clock_that_is_far_off_spoils_only_its_own_figures(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        still.clock.advance(1000)
        turn.mark(START)
        stepped(still, "llm", 500, first_ms=300)
        stepped(still, "tts", 300, first_ms=200)
        turn.mark(END, at_us=START_US)
    (event,) = still.of("turn")
    assert (event.user_bot_latency_ms, event.contributions, event.quality) == (None, None, "clock_suspect")
    assert event.figures["llm_ttft_ms"] == Figure(value_ms=300.0, anchor="manual")
    assert event.figures["playback_latency_ms"] == Figure(value_ms=None, quality="clock_suspect", anchor="manual")


def test_the_last_mark_of_a_name_counts_whichever_clock_took_it(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark("a", at_us=START_US + 5)
        turn.mark("a", ago_ms=1)
        turn.mark("b")
        turn.mark("b", at_us=START_US + 5)
        turn.mark(START)
        turn.mark(END, at_us=START_US + 9)
        turn.mark(END)
    (event,) = still.of("turn")
    assert (event.marks["a"], event.marks["b"], event.quality) == (START_US - 1000, START_US + 5, "ok")


def test_a_mark_of_both_clocks_is_one_mark(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        for number in range(MAX_MARKS):
            turn.mark(f"m{number}")
            turn.mark(f"m{number}", at_us=START_US + number)
    assert still.of("turn")[0].marks == {f"m{number}": START_US + number for number in range(MAX_MARKS)}


# --- the session's first turn


def test_the_first_turn_says_when_the_bot_was_first_heard(still: Capture) -> None:
    with voicelog.session():
        for _ in range(2):
            with voicelog.turn() as turn:
                still.clock.advance(700)
                turn.mark(END)
    first, second = still.of("turn")
    assert first.figures["first_bot_speech_ms"] == Figure(value_ms=700.0)
    assert first.figures["user_bot_latency_ms"] == Figure(value_ms=None, quality="no_anchor")
    assert (first.marks["session_start"], "session_start" in second.marks) == (START_US, False)
    assert "first_bot_speech_ms" not in second.figures


def test_who_knows_when_the_caller_connected_marks_it(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        still.clock.advance(700)
        turn.mark("session_start", ago_ms=900)
        turn.mark(END)
    assert still.of("turn")[0].figures["first_bot_speech_ms"].value_ms == 900.0


def test_a_process_that_took_a_call_over_does_not_know_when_it_began(still: Capture) -> None:
    headers: dict[str, str] = {}
    with voicelog.session():
        voicelog.inject(headers)
    with voicelog.extract(headers), voicelog.turn() as turn:
        turn.mark(END)
    (event,) = still.of("turn")
    assert (event.turn_number, "first_bot_speech_ms" in event.figures) == (1, False)


# --- barge-in


def test_a_barge_in_says_what_was_synthesised_and_what_was_heard(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.mark("user_speech_start")
        still.clock.advance(500)
        turn.mark(START)
        failing(still, "tts", 10)
        stepped(still, "tts", 300, first_ms=200, text="x" * 60, audio_ms=3000.0, cost_usd=0.0006)
        turn.mark(END, ago_ms=50)
        stepped(still, "tts", 300, first_ms=200, characters=40, audio_ms=2000.0, cost_usd=0.0004)
        turn.played(characters=10, audio_ms=500)
        still.clock.advance(1000)
        turn.mark("user_speech_start", ago_ms=400)
        turn.interrupt(ago_ms=100)
        turn.played(characters=25)
        turn.mark("audio_stopped")
    (event,) = still.of("turn")
    assert event.barge_in == BargeIn(
        onset_us=START_US + 1_710_000, stop_us=START_US + 2_110_000, stop_ms=400.0, synthesised_characters=100,
        played_characters=25, synthesised_audio_ms=5000.0, wasted_usd=pytest.approx(0.00075),
    )  # fmt: skip
    assert event.figures["barge_in_stop_ms"] == Figure(value_ms=400.0, anchor="manual")
    assert (event.was_interrupted, event.quality, event.status) == (True, "ok", "interrupted")


def test_what_a_barge_in_wasted_is_priced_by_the_users_table() -> None:
    table = {"version": "1", "prices": [{"provider": "p", "model": "m", "usd_per_million": {"characters_count": 10.0}}]}
    with capture(step_ms=0, prices=table) as captured, voicelog.session(), voicelog.turn() as turn:
        stepped(captured, "tts", 10, provider="p", model="m", text="x" * 100)
        turn.played(characters=40)
        turn.interrupt()
    assert captured.of("turn")[0].barge_in.wasted_usd == pytest.approx(60 * 10.0 / 1e6)


def test_a_barge_in_is_known_by_its_marks_too(still: Capture) -> None:
    for names in (("interrupted_at",), ("user_speech_start", "audio_stopped")):
        with voicelog.session(), voicelog.turn() as turn:
            turn.mark(START)
            turn.mark(END)
            still.clock.advance(100)
            for name in names:
                turn.mark(name)
    for event in still.of("turn"):
        assert (event.was_interrupted, event.status, event.end_reason) == (True, "interrupted", "interrupted")
        assert event.barge_in.onset_us == event.marks[END] + 100_000


def test_without_a_barge_in_what_was_played_is_not_kept(still: Capture) -> None:
    with voicelog.session(), voicelog.turn() as turn:
        turn.played(characters=3)
    assert (still.of("turn")[0].barge_in, still.of("turn")[0].was_interrupted) == (None, False)


def test_texts_that_are_not_captured_are_counted_all_the_same() -> None:
    with capture(step_ms=0, capture_content="transcript") as captured, voicelog.session(), voicelog.turn() as turn:
        stepped(captured, "tts", 10, text="Hello")
        turn.interrupt()
    assert captured.of("tts_result")[0].text is None
    assert captured.of("turn")[0].barge_in.synthesised_characters == 5


@pytest.mark.parametrize(
    "given",
    [
        {}, {"characters": None}, {"characters": -1}, {"characters": 1.5}, {"characters": "5"}, {"audio_ms": -0.1},
        {"audio_ms": float("nan")}, {"audio_ms": []}, {"characters": 5, "audio_ms": "x"},
    ],
)  # fmt: skip
def test_what_was_played_must_be_an_amount(given: dict[str, Any]) -> None:
    with capture(strict=False) as captured, voicelog.session(), voicelog.turn() as turn:
        turn.played(**given)
        turn.interrupt()
    assert captured.counters.snapshot()["invalid"] == {"played": 1}
    assert captured.of("turn")[0].barge_in.played_characters is None
    with (
        capture(),
        voicelog.session(),
        voicelog.turn() as turn,
        pytest.raises(ConfigError, match=r"played\(.*expected"),
    ):
        turn.played(**given)


def test_outside_of_an_open_turn_nothing_was_played(captured: Capture) -> None:
    voicelog.current_turn().played(characters=5)
    with voicelog.session(), voicelog.turn() as turn:
        pass
    turn.played(characters="nonsense")  # type: ignore[arg-type]
    assert captured.counters.snapshot()["invalid"] == {}
