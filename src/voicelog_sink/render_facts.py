"""The short facts of a call, a turn and a stage, as text: what it cost, how it ended, who answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from voicelog.events import Attempt, BargeIn, ErrorInfo, Event, Turn
from voicelog_sink.calls import Call
from voicelog_sink.render import STATUS_STYLES, count, ms, one_line, span, styled, usd
from voicelog_sink.summary import Summary
from voicelog_sink.tally import COMPLETE, MISSING, total
from voicelog_sink.waterfall import tool_of


def completeness(summary: Summary) -> Text:
    """Say whether all events of the call are here, or how many are missing."""
    if summary.completeness == COMPLETE:
        return Text(f"complete ({count(summary.received, 'event')})", "green")
    if summary.completeness == MISSING:
        return Text(f"{summary.missing:,} of {count(summary.expected, 'event')} missing", "bold red")
    return Text(f"no end yet ({count(summary.received, 'event')})", "yellow")


def call_facts(call: Call) -> Iterator[Text]:
    """Yield what is to be known of a call at first sight: errors, interruptions, latency, cost."""
    summary = call.summary
    yield Text(count(summary.errors, "error"), "bold red") if summary.errors else Text("no errors", "dim")
    if summary.interruptions:
        yield Text(count(summary.interruptions, "interruption"), "yellow")
    if summary.slow_turns:
        yield Text(count(summary.slow_turns, "slow turn"), "yellow")
    if summary.user_bot_latency_p50_ms is not None:
        yield Text(f"latency p50 {ms(summary.user_bot_latency_p50_ms)} max {ms(summary.user_bot_latency_max_ms)} ms")
    if summary.cost_usd is not None:
        without = f" and {count(summary.unpriced, 'stage')} without a price" if summary.unpriced else ""
        yield Text(usd(summary.cost_usd) + without)


def cost_of(stages: Sequence[Event]) -> str:
    """Return what the stages cost, those without a price left out; empty where no cost is known."""
    costs = [stage.cost_usd for stage in stages if stage.cost_usd is not None]
    return usd(total(costs)) if costs else ""


def turn_facts(turn: Turn | None, slow_turn_ms: float) -> Iterator[Text]:
    """Yield how a turn went, where it went not as it should; slow is one of `slow_turn_ms` or more."""
    if turn is None:
        return
    if turn.was_interrupted:
        yield Text("interrupted", "yellow")
    if turn.user_bot_latency_ms is not None and turn.user_bot_latency_ms >= slow_turn_ms:
        yield Text("slow", "yellow")
    if turn.end_reason == "session_closed":
        yield Text("cut off by the call's end", "yellow")


def barge_in_facts(found: BargeIn) -> Iterator[Text]:
    """Yield how the user cut the bot off: how long it spoke on, what was heard, what was made for nothing."""
    if found.stop_ms is None:
        yield Text("when the bot fell silent is not known", "dim")
    else:
        yield styled(f"{ms(found.stop_ms)} ms", "bold").append(" until the bot was silent")
    if found.synthesised_characters is not None and found.played_characters is not None:
        yield Text(f"{found.played_characters:,} of {count(found.synthesised_characters, 'character')} heard")
    if found.synthesised_audio_ms is not None and found.played_audio_ms is not None:
        yield Text(f"{span(found.played_audio_ms)} of {span(found.synthesised_audio_ms)} heard")
    if found.wasted_usd is not None:
        yield Text(f"{usd(found.wasted_usd)} for nothing")


def attempt_facts(tried: Attempt) -> Text:
    """Return who was tried, how that ended and after how long."""
    who = "/".join(part for part in (tried.provider, tried.model) if part)
    text = Text(f"{one_line(who)} " if who else "").append(one_line(tried.status), STATUS_STYLES.get(tried.status, ""))
    text.append(f" after {span(tried.duration_ms)}")
    return text.append(f" ({one_line(failure_of(tried.error))})", "red") if tried.error else text


def place_of(event: Event) -> str:
    """Return the stage's name, with that of the tool which it called."""
    return one_line(" ".join(part for part in (event.stage or "", tool_of(event)) if part))


def failure_of(error: ErrorInfo | None) -> str:
    """Return an error's type and message."""
    if error is None:
        return "no details"
    return f"{error.type}: {error.message}" if error.message else error.type
