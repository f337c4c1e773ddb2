"""What `--json` prints and the API answers, as plain objects: units in names, numbers as numbers, absent as null.

Moments of a call (`started_at`, `ended_at`) are ISO 8601 texts in UTC, those of an event (`ts_us`, `marks`) epoch
microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from voicelog.events import Event
from voicelog_sink.calls import Call, CallTurn
from voicelog_sink.stats import StatsRow
from voicelog_sink.summary import Summary

Shape = dict[str, Any]


def line(shape: Shape) -> str:
    """Return the shape as one line of JSON."""
    return msgspec.json.encode(shape).decode()


def session_shape(summary: Summary) -> Shape:
    """Return a call's summary: its fields by their names."""
    moments = {name: moment(getattr(summary, name)) for name in ("started_at", "ended_at")}
    return attrs.asdict(summary) | moments


def call_shape(call: Call) -> Shape:
    """Return `session`, `turns` (each `turn_id`, `turn`, `stages`, `others`) and `outside`, the events of no turn."""
    return {
        "session": session_shape(call.summary),
        "turns": [_turn_shape(turn) for turn in call.turns],
        "outside": [event_shape(event) for event in call.outside],
    }


def _turn_shape(turn: CallTurn) -> Shape:
    return {
        "turn_id": turn.turn_id,
        "turn": event_shape(turn.event) if turn.event else None,
        "stages": [event_shape(stage) for stage in turn.stages],
        "others": [event_shape(other) for other in turn.others],
    }


def event_shape(event: Event) -> Shape:
    """Return an event: `type`, `event_id`, `ts_us` and the fields of its type."""
    fields = attrs.asdict(event)
    return {"type": event.TYPE, "event_id": event.event_id, "ts_us": fields.pop("ts"), **fields}


def stats_shape(row: StatsRow) -> Shape:
    """Return a row of percentiles: its fields by their names."""
    return attrs.asdict(row)


def moment(at_ms: int | None) -> str | None:
    """Return epoch milliseconds as an ISO 8601 text in UTC."""
    if at_ms is None:
        return None
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
