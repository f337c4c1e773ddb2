"""An event in a line: when, which call, which stage, how long, by whom, what was said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from rich.text import Text

from voicelog.events import (
    Error,
    Event,
    Health,
    LlmRequest,
    Log,
    Metric,
    SessionEnded,
    SessionStarted,
    StageEvent,
    StageStarted,
    SttResult,
    TtsResult,
    Turn,
)
from voicelog_sink.render import NOTHING, OTHER_STAGE_STYLE, STAGE_STYLES, STATUS_STYLES, count, ms, one_line, span
from voicelog_sink.tail import is_error
from voicelog_sink.waterfall import tool_of

TIME, SESSION, STAGE, DURATION, WHO = 12, 18, 15, 9, 22
GAP = "  "
NARROW = 110
"""Columns of a terminal below which it is left out who answered."""


def event_line(event: Event, width: int | None) -> Text:
    """Return the event's line, cut to `width` columns of a terminal; without one whole, for a pipe."""
    cells = _cells(event)
    if width is None:
        return Text(GAP).join(cells)
    cells[3] = Text(cells[3].plain.rjust(DURATION))
    widths = (TIME, SESSION, STAGE, DURATION, WHO)
    fitted = [_fit(cell, columns) for cell, columns in zip(cells, widths, strict=False)]
    if width < NARROW:
        del fitted[-1]
    line = Text(GAP).join([*fitted, cells[-1]])
    line.truncate(width, overflow="ellipsis")
    return line


def told(event: Event) -> str:
    """Return what an event says, in one line: the text, the error, the figure."""
    error = f"{event.error.type}: {event.error.message}" if event.error else ""
    tell = _TELLERS.get(event.TYPE)
    return one_line(GAP.join(part for part in (error, tell(event) if tell else "") if part))


def _cells(event: Event) -> list[Text]:
    stage = event.stage or event.TYPE
    style = STAGE_STYLES.get(stage, OTHER_STAGE_STYLE) if event.stage else "dim"
    duration = span(event.duration_ms) if event.duration_ms is not None else NOTHING
    return [
        Text(_clock(event.ts), "dim"),
        Text(one_line(event.session_id or event.key)),
        Text(one_line(stage), style),
        Text(duration),
        Text(_who(event), "dim"),
        _said(event),
    ]


def _said(event: Event) -> Text:
    status = event.status if event.status not in (None, "ok") else ""
    style = "red" if is_error(event) else ""
    head = (f"{status} ", STATUS_STYLES.get(status, "yellow")) if status else ""
    return Text.assemble(head, (told(event), style))


def _fit(cell: Text, columns: int) -> Text:
    cell.truncate(columns, overflow="ellipsis", pad=True)
    return cell


def _clock(ts_us: int) -> str:
    return datetime.fromtimestamp(ts_us / 1e6, UTC).strftime("%H:%M:%S.%f")[:TIME]


def _who(event: Event) -> str:
    return one_line("/".join(name for name in (event.provider, event.model) if name)) or NOTHING


def _turn(turn: Turn) -> str:
    if turn.user_bot_latency_ms is None:
        return turn.quality or ""
    quality = f" ({turn.quality})" if turn.quality not in (None, "ok") else ""
    return f"latency {ms(turn.user_bot_latency_ms)} ms{quality}"


def _ended(event: SessionEnded) -> str:
    total = count(event.events_total, "event") if event.events_total is not None else ""
    return ", ".join(part for part in (total, event.disconnect_reason) if part)


_TELLERS: dict[str, Callable[[Any], str]] = {
    SttResult.TYPE: lambda event: cast("SttResult", event).transcript or "",
    LlmRequest.TYPE: lambda event: cast("LlmRequest", event).response or "",
    TtsResult.TYPE: lambda event: cast("TtsResult", event).text or "",
    StageEvent.TYPE: tool_of,
    StageStarted.TYPE: lambda _: "still open",
    SessionStarted.TYPE: lambda event: f"variant {event.variant}" if event.variant else "",
    SessionEnded.TYPE: _ended,
    Turn.TYPE: _turn,
    Metric.TYPE: lambda event: f"{event.name} {event.value:g} {event.unit or ''}",
    Log.TYPE: lambda event: f"{event.level} {event.logger or ''} {event.message}",
    Error.TYPE: lambda _: "",
    Health.TYPE: lambda event: f"{event.component} {event.state}",
}
"""What an event of a type says besides its error; another one's stage and times are all."""
