"""A call as a person reads it: whole pages compared."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from tests.builders import CallBuilder, realistic_call, troubled_call
from tests.strategies import events

from voicelog.events import Attempt, BargeIn, ErrorInfo, Event, Turn
from voicelog_sink.calls import call_of
from voicelog_sink.render_call import CallPrinter, rounded
from voicelog_sink.summary import summarise


def page(events: list[Event], width: int = 80, *, stacks: bool = False, color: bool = False) -> str:
    summary = summarise(events)
    assert summary is not None
    out = io.StringIO()
    console = Console(
        file=out, width=width, highlight=False, force_terminal=color, color_system="standard" if color else None
    )
    CallPrinter(console, stacks=stacks).print(call_of(summary, events))
    return out.getvalue()


GOOD = """\
call-1 · front-desk · host bot-1 · variant b · complete (7 events)
2026-11-22 10:00:00 UTC · 5.1 s · 1 turn · user_hangup
no errors · latency p50 891 max 891 ms · $0.0016

Turn 1 · +400 ms · 4.1 s · $0.0016
  user     Hi, do you have a table for two tonight?
  bot      Good evening! Let me see what is free tonight.
  latency  891 ms = transcription 99 + endpointing 210 + turn_callback 2 +
           llm_ttft 294 + text_aggregation 147 + to_tts 3 + tts_ttfb 116 +
           playback 20
  owed to  service 509 · setting 210 · pipeline 170 · bot 2
                            start   took  first  0 ms          1000
    user to bot               915    891                      ├── 891 ───┤
    stt deepgram/nova-3         0   1014    248  ░░░███████████
    llm openai/gpt-4o-mini   1227    690    294                   ░░░░██████
    tts cartesia/sonic-2     1671    228    116                         ░░█
    tts cartesia/sonic-2     1821    403    125                           ░░████

ms   ░ until the first item  █ after it  ✗ failed  ‖ cut short  … open
"""

TROUBLED_TURN = """\
Turn 2 · +5.4 s · 4.6 s · interrupted · slow
  user     And for Sunday?
  bot      I am afraid [interrupted]
  latency  2900 ms = transcription 120 + endpointing 200 + llm_ttft 40 + tool 2003 + llm_ttft 307 +
           to_tts 100 + tts_ttfb 110 + playback 20
  owed to  bot 2003 · service 577 · setting 200 · pipeline 120
                            start   took  first  0 ms        1000         2000        3000
    user to bot              1180   2900                        ├────────────── 2900 ──────────────┤
    stt deepgram/nova-3         0   1300      -  ████████████████
  ‖ llm openai/gpt-4o-mini   1500   2600   2350         interrupted ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░███
  ✗ └ tool find_table        1540   2003      -                     █████████████████████████ error
  ‖ tts cartesia/sonic-2     3950    150    110                                       interrupted ░█
  error    tool find_table: TimeoutError: no free connection within 2 s
           4 lines above: --stacks shows them
               async with self._pool.acquire(timeout=2) as connection:
             File "/usr/lib/python3.11/asyncio/timeouts.py", line 111, in __aexit__
               raise TimeoutError from exc_val
           TimeoutError: no free connection within 2 s

Outside of turns · +9.4 s
                            start   took  first  0 ms
  … llm openai/gpt-4o-mini      0      -      -  ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░ open
  error    bot.SocketClosed: peer went away
  log      +9.4 s WARNING caller was silent for 4 s
  metric   +9.5 s queue_depth = 3
"""


def test_whole_call_at_80_columns() -> None:
    assert page(realistic_call(turns=1, variant="b").events) == GOOD


def test_troubled_call_says_what_went_wrong() -> None:
    text = page(troubled_call().events, 100)
    assert text.startswith(
        "call-2 · front-desk · host bot-1 · 1 of 15 events missing\n"
        "2026-11-22 10:00:00 UTC · 10.0 s so far · 2 turns\n"
        "2 errors · 1 interruption · 1 slow turn · latency p50 988 max 2900 ms · $0.0007\n"
    )
    assert TROUBLED_TURN in text


def test_stacks_are_shown_whole_on_request() -> None:
    text = page(troubled_call().events, stacks=True)
    assert '           Traceback (most recent call last):\n             File "/app/bot.py", line 41, in look_up' in text
    assert "--stacks" not in text


def test_exception_that_left_several_stages_is_shown_once_with_its_stack() -> None:
    call, error = CallBuilder(), ErrorInfo(type="ValueError", message="no such table", stack="Traceback\nValueError")
    call.stage("llm", 0, 9, turn_id="t", span_id="a", status="error", error=error)
    call.stage("tool", 1, 7, turn_id="t", parent_id="a", status="error", error=error)
    assert page(call.events).splitlines()[-6:-2] == [
        "  error    llm: ValueError: no such table (from the stage within)",
        "  error    tool: ValueError: no such table",
        "           Traceback",
        "           ValueError",
    ]


def test_latency_that_is_not_ok_says_why_and_that_it_does_not_count() -> None:
    call = CallBuilder()
    call.add(Turn, 0, turn_id="t", user_bot_latency_ms=90_000.0, quality="clock_suspect")
    call.add(Turn, 1, turn_id="u", quality="no_anchor")
    text = page(call.events)
    assert "latency  90000 ms (clock_suspect: in no percentile)" in text
    assert "latency  not measured (no_anchor: no user_speech_end and no playback_start)" in text


@pytest.mark.parametrize(
    ("barge_in", "line"),
    [
        (
            BargeIn(
                onset_us=1, stop_us=2, stop_ms=412.0, synthesised_characters=1100, played_characters=25,
                synthesised_audio_ms=5200.0, played_audio_ms=900.0, wasted_usd=0.00075,
            ),
            "barge-in 412 ms until the bot was silent · 25 of 1,100 characters heard · 900 ms of 5.2 s heard · "
            "$0.0008 for nothing",
        ),
        (BargeIn(onset_us=1, synthesised_characters=90), "barge-in when the bot fell silent is not known"),
    ],
)  # fmt: skip
def test_barge_in_says_how_long_the_bot_spoke_on_and_what_was_heard(barge_in: BargeIn, line: str) -> None:
    call = CallBuilder()
    call.add(Turn, 0, turn_id="t", was_interrupted=True, barge_in=barge_in)
    assert f"  {line}\n" in page(call.events, width=130)


def test_attempts_say_who_failed_and_who_answered() -> None:
    call, error = CallBuilder(), ErrorInfo(type="TimeoutError", message="no answer")
    failed = Attempt(provider="openai", model="gpt-4o", duration_ms=800.0, status="error", error=error)
    answered = Attempt(provider="groq", model="llama", start_ms=800.0, duration_ms=260.0)
    call.stage("llm", 0, 1060, provider="groq", model="llama", attempts=[failed, answered])
    line = "llm: openai/gpt-4o error after 800 ms (TimeoutError: no answer) · groq/llama ok after 260 ms"
    assert f"  attempts {line}\n" in page(call.events, width=130)


def test_single_attempt_is_shown_only_where_its_failure_is_not_the_stages() -> None:
    error = ErrorInfo(type="TimeoutError", message="no answer")
    lines = {}
    for status in ("ok", "error"):
        call, tried = CallBuilder(), Attempt(provider="openai", duration_ms=9.0, status="error", error=error)
        call.stage("llm", 0, 9, status=status, error=error if status == "error" else None, attempts=[tried])
        lines[status] = [line.split()[0] for line in page(call.events).splitlines() if "no answer" in line]
    assert lines == {"ok": ["attempts"], "error": ["error"]}


def test_cost_of_a_call_says_how_many_stages_have_no_price() -> None:
    call = CallBuilder()
    call.stage("stt", 0, 9, turn_id="t", cost_usd=0.5, usage={"audio_seconds": 4.0})
    call.stage("llm", 9, 9, turn_id="t", usage={"input_tokens": 9.0})
    call.stage("tts", 18, 9, cost_usd=1.0, usage={"characters_count": 4.0})
    text = page(call.events)
    assert "no errors · $1.50 and 1 stage without a price\n" in text
    assert "Turn 1 · +0 ms · still open · $0.5000\n" in text


def test_turn_that_goes_on_is_shown_as_open() -> None:
    text = page(realistic_call(turns=2).events[:9])
    assert "no end yet (9 events)" in text
    assert "Turn 2 · +5.1 s · still open" in text


def test_stages_without_any_turn_have_a_waterfall_too() -> None:
    call = CallBuilder()
    call.stage("stt", 0, 500, transcript="hi"), call.stage("tts", 600, 400, text="hello")
    assert page(call.events, 60).splitlines()[4:-2] == [
        "Outside of turns · +0 ms",
        "  user     hi",
        "  bot      hello",
        "         start   took  first  0 ms           500",
        "    stt      0    500      -  ███████████████",
        "    tts    600    400      -                    ████████████",
    ]


def test_style_of_one_part_does_not_spill_over_the_next() -> None:
    text = page(troubled_call().events, color=True)
    assert "\x1b[2m  user     \x1b[0mAnd for Sunday?\n" in text
    assert "\x1b[1m2900 ms\x1b[0m = \x1b[36mtranscription \x1b[0m\x1b[1m120\x1b[0m" in text
    assert "\x1b[1;31m✗ \x1b[0m\x1b[2m└ \x1b[0m\x1b[33mtool find_table\x1b[0m" in text


@given(st.lists(events(session_id=st.just("c"), turn_id=st.none() | st.just("t")), min_size=1, max_size=6))
def test_any_call_at_all_can_be_printed(events: list[Event]) -> None:
    assert "\x1b" not in page(events, 60)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_pictures_are_never_wider_than_the_terminal(width: int) -> None:
    for call in (realistic_call(), troubled_call()):
        lines = page(call.events, width).splitlines()
        assert max(cell_len(line) for line in lines if line.startswith("  ") and not line.isascii()) <= width


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=12))
def test_shown_parts_sum_to_the_shown_whole(parts_us: list[int]) -> None:
    total = round(sum(parts_us) / 1000)
    shown = rounded([part / 1000 for part in parts_us], total)
    assert sum(shown) == total
    assert all(abs(value - part / 1000) < 1 for value, part in zip(shown, parts_us, strict=True))
