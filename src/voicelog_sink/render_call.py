"""A call as text: what was said, how long each part took, what went wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from voicelog.events import Contribution, Event, Health, Log, Metric, SessionEnded, SessionStarted, Turn
from voicelog_sink.calls import Call, CallTurn
from voicelog_sink.render import (
    OWNER_STYLES,
    STATUS_STYLES,
    count,
    glyphs,
    moment,
    ms,
    one_line,
    safe,
    span,
    styled,
)
from voicelog_sink.render_facts import (
    attempt_facts,
    barge_in_facts,
    call_facts,
    completeness,
    cost_of,
    failure_of,
    place_of,
    turn_facts,
)
from voicelog_sink.render_waterfall import lines
from voicelog_sink.rows import QUIET_LEVELS
from voicelog_sink.summary import Summary
from voicelog_sink.tally import SLOW_TURN_MS
from voicelog_sink.waterfall import of_turn

STACK_LINES = 4
GLUE = "\ue000"
"""Stands for a space at which no line is broken."""
INDENT = "  "


class CallPrinter:
    """Prints calls to one console; `stacks` shows stack traces whole."""

    def __init__(self, console: Console, *, stacks: bool = False, slow_turn_ms: float = SLOW_TURN_MS) -> None:
        """Print to `console`, as wide as it is; a turn of `slow_turn_ms` or more is called slow."""
        self._slow_turn_ms = slow_turn_ms
        self._console = console
        self._glyphs = glyphs(console)
        self._stacks = stacks

    def print(self, call: Call) -> None:
        """Print the whole call."""
        self._print_head(call)
        for number, turn in enumerate(call.turns, start=1):
            self._print_turn(call.summary, turn, number)
        self._print_outside(call)
        self._line()
        self._line(Text(self._legend(), "dim"))

    def _legend(self) -> str:
        g = self._glyphs
        bars = f"{g.waiting} until the first item  {g.running} after it"
        return f"ms   {bars}  {g.failed} failed  {g.stopped} cut short  {g.open} open"

    def _line(self, line: Text | str = "") -> None:
        self._console.print(line, no_wrap=True, overflow="ignore", crop=False)

    def _hanging(self, name: str, body: Text, name_style: str = "dim") -> None:
        """Print `body` wrapped, the lines after the first under its beginning."""
        head = styled(f"{INDENT}{name:<8} ", name_style)
        for number, line in enumerate(body.wrap(self._console, max(self._console.width - head.cell_len, 20))):
            line.rstrip()
            line.plain = line.plain.replace(GLUE, " ")
            self._line((head if number == 0 else Text(" " * head.cell_len)) + line)

    def _joined(self, parts: Iterable[Text | str]) -> Text:
        return Text(f" {self._glyphs.dot} ").join(Text(p) if isinstance(p, str) else p for p in parts if p)

    # --- the call

    def _print_head(self, call: Call) -> None:
        summary = call.summary
        identity = {"": summary.service, "host ": summary.host, "variant ": summary.variant, "user ": summary.user_id}
        who = [Text(f"{prefix}{one_line(value)}") for prefix, value in identity.items() if value]
        self._line(self._joined([Text(one_line(summary.session_id), "bold"), *who, completeness(summary)]))
        lasted = span(summary.duration_ms) + ("" if summary.ended_at else " so far")
        reason = one_line(summary.disconnect_reason or "")
        self._line(self._joined([f"{moment(summary.started_at)} UTC", lasted, count(summary.turns, "turn"), reason]))
        self._line(self._joined(call_facts(call)))

    # --- one turn

    def _print_turn(self, summary: Summary, turn: CallTurn, number: int) -> None:
        event = turn.event
        name = Text(f"Turn {event.turn_number if event and event.turn_number else number}", "bold")
        began = _after(turn.started_us / 1000 - summary.started_at)
        self._line()
        lasted = span(event.duration_ms) if event else "still open"
        self._line(self._joined([name, began, lasted, cost_of(turn.stages), *turn_facts(event, self._slow_turn_ms)]))
        for heard in turn.heard:
            self._hanging("user", Text(safe(heard.transcript or "")))
        if turn.spoken:
            self._hanging("bot", self._spoken(turn))
        if event:
            self._print_latency(event)
        if event and event.barge_in:
            self._hanging("barge-in", self._joined(barge_in_facts(event.barge_in)))
        self._print_waterfall(turn)
        for other in turn.others:
            self._print_other(other, turn.started_us)

    def _spoken(self, turn: CallTurn) -> Text:
        said = Text()
        for event in turn.spoken:
            text = getattr(event, "text", None) or getattr(event, "response", None) or ""
            said.append(" " if said else "").append(safe(text))
            if event.status in ("interrupted", "cancelled", "error"):
                said.append(f" [{event.status}]", STATUS_STYLES.get(event.status, ""))
        return said

    def _print_latency(self, turn: Turn) -> None:
        if turn.user_bot_latency_ms is None:
            if turn.quality not in (None, "ok"):
                missing = [mark for mark in ("user_speech_end", "playback_start") if mark not in (turn.marks or {})]
                why = f": no {' and no '.join(missing)}" if missing else ""
                self._hanging("latency", Text(f"not measured ({turn.quality}{why})", "yellow"))
            return
        body = styled(f"{ms(turn.user_bot_latency_ms)} ms", "bold")
        if turn.quality not in (None, "ok"):
            body.append(f" ({turn.quality}: in no percentile)", "yellow")
        if turn.contributions:
            body.append(" = ").append(_sum(turn.contributions))
        self._hanging("latency", body)
        if turn.contributions:
            self._hanging("owed to", self._joined(_owners(turn.contributions)))

    def _print_waterfall(self, turn: CallTurn) -> None:
        waterfall = of_turn(turn)
        for line in lines(waterfall, self._console.width - len(INDENT), self._glyphs) if waterfall else ():
            line.rstrip()
            self._line(Text(INDENT) + line)
        for stage in turn.stages:
            self._print_attempts(stage)
        for failure in turn.failed:
            self._print_error(failure, passed_on=_passed_on(failure, turn.failed))

    def _print_attempts(self, stage: Event) -> None:
        """Print the tries of a stage; not the only one of a stage that failed, which is shown as the failure."""
        if stage.attempts and (len(stage.attempts) > 1 or stage.status != "error"):
            self._hanging("attempts", Text(f"{place_of(stage)}: ") + self._joined(map(attempt_facts, stage.attempts)))

    # --- what is no stage

    def _print_other(self, event: Event, origin_us: int) -> None:
        if isinstance(event, Log):
            style = "red" if event.level.upper() in ("ERROR", "CRITICAL", "FATAL") else "yellow"
            text = styled(one_line(event.level), style if event.level.upper() not in QUIET_LEVELS else "dim")
            self._note(event, origin_us, text.append(f" {one_line(event.message)}"))
        elif isinstance(event, Metric):
            unit = "" if event.unit in (None, "1") else f" {one_line(event.unit)}"
            self._note(event, origin_us, Text(f"{one_line(event.name)} = {event.value:g}{unit}"))
        elif isinstance(event, Health):
            self._note(event, origin_us, Text(f"{one_line(event.component)} is {one_line(event.state)}"))

    def _note(self, event: Event, origin_us: int, body: Text) -> None:
        self._hanging(event.TYPE, styled(f"{_after((event.ts - origin_us) / 1000)} ", "dim") + body)

    def _print_error(self, event: Event, passed_on: bool) -> None:
        error, where = event.error, place_of(event)
        body = Text(f"{where}: " if where else "").append(safe(failure_of(error)), "red")
        self._hanging("error", body.append(" (from the stage within)" if passed_on else "", "dim"), "bold red")
        for line in self._stack_lines(error.stack if error and error.stack and not passed_on else ""):
            self._line(Text(f"{INDENT}{'':<9}{line}", "dim"))

    def _stack_lines(self, stack: str) -> Iterator[str]:
        found = safe(stack).rstrip().splitlines()
        if not self._stacks and len(found) > STACK_LINES + 1:
            yield f"{count(len(found) - STACK_LINES, 'line')} above: --stacks shows them"
            found = found[-STACK_LINES:]
        yield from found

    def _print_outside(self, call: Call) -> None:
        events = [e for e in call.outside if not isinstance(e, (SessionStarted, SessionEnded))]
        if not events:
            return
        rest = CallTurn.of(events)
        self._line()
        began = _after(rest.started_us / 1000 - call.summary.started_at)
        self._line(self._joined([Text("Outside of turns", "bold"), began]))
        for heard in rest.heard:
            self._hanging("user", Text(safe(heard.transcript or "")))
        if rest.spoken:
            self._hanging("bot", self._spoken(rest))
        self._print_waterfall(rest)
        for other in rest.others:
            self._print_other(other, call.summary.started_at * 1000)


def _passed_on(failure: Event, failures: Sequence[Event]) -> bool:
    """Say whether the same exception left a stage within this one before, and is shown there with its stack."""
    inner = [other.error for other in failures if failure.span_id and other.parent_id == failure.span_id]
    outer = failure.error
    return any(error and outer and (error.type, error.message) == (outer.type, outer.message) for error in inner)


def _after(offset_ms: float) -> str:
    """Return an offset with its sign: what was published with timings of its own may lie before its turn."""
    return f"{'-' if offset_ms < 0 else '+'}{span(abs(offset_ms))}"


def _shown_ms(contributions: Sequence[Contribution]) -> list[int]:
    """Return each part in whole milliseconds, which sum to the rounded whole."""
    return rounded([part.us / 1000 for part in contributions], round(sum(part.us for part in contributions) / 1000))


def _sum(contributions: Sequence[Contribution]) -> Text:
    parts = [
        styled(f"{one_line(part.key)}{GLUE}", OWNER_STYLES.get(part.owner, "")).append(f"{value}", "bold")
        for part, value in zip(contributions, _shown_ms(contributions), strict=True)
        if value
    ]
    return styled(f"{GLUE}+ ", "dim").join(parts)


def _owners(contributions: Sequence[Contribution]) -> Iterator[Text]:
    sums: dict[str, int] = {}
    for part, value in zip(contributions, _shown_ms(contributions), strict=True):
        sums[part.owner] = sums.get(part.owner, 0) + value
    for owner, value in sorted(sums.items(), key=lambda item: -item[1]):
        if value:
            yield styled(f"{one_line(owner)} ", OWNER_STYLES.get(owner, "")).append(f"{value}", "bold")


def rounded(values: Sequence[float], total: int) -> list[int]:
    """Return the values as whole numbers that sum to `total`, each within one of its own."""
    whole = [math.floor(value) for value in values]
    by_rest = sorted(range(len(values)), key=lambda index: whole[index] - values[index])
    for index in by_rest[: total - sum(whole)]:
        whole[index] += 1
    return whole
