"""What an event becomes in the store: its rows, and the event again from its row. Pure.

Every event becomes at least one row, so that whatever the store has acknowledged can be found again by its key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, cast

import attrs
import msgspec

from voicelog.errors import DecodeError
from voicelog.events import (
    EVENT_TYPES,
    FINISHED_STAGES,
    SCHEMA_VERSION,
    STAGE_TYPES,
    Attempt,
    BargeIn,
    Contribution,
    Error,
    ErrorInfo,
    Event,
    Figure,
    Health,
    Log,
    Metric,
    Turn,
)
from voicelog_sink.stores.base import Row, Values
from voicelog_sink.tables import ERROR_LOGS, PERFORMANCE_METRICS, SYSTEM_HEALTH, VOICE_INTERACTIONS

HOUR_US = 3_600_000_000
DAY_MS = 86_400_000
QUIET_LEVELS = frozenset({"NOTSET", "TRACE", "DEBUG", "INFO"})
"""Log levels below WARNING; a level that is not known counts as a loud one."""

_JSON_TYPES: dict[str, Any] = {
    "attributes": dict[str, Any],
    "usage": dict[str, float],
    "parameters": dict[str, Any],
    "marks": dict[str, int],
    "contributions": list[Contribution],
    "figures": dict[str, Figure],
    "barge_in": BargeIn,
    "attempts": list[Attempt],
    "cut": dict[str, int],
    "extra": dict[str, Any],
}
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _JSON_TYPES.items()}
_encoder = msgspec.json.Encoder()
_sorting_encoder = msgspec.json.Encoder(order="deterministic")
_STAGE_OF = {cls.TYPE: stage for stage, cls in STAGE_TYPES.items()}


class _Plan(NamedTuple):
    """How an event class maps to voice_interactions: columns taken as they are, and columns of JSON."""

    plain: tuple[str, ...]
    read_plain: Callable[[Event], tuple[Any, ...]]
    json: tuple[str, ...]
    read_json: Callable[[Event], tuple[Any, ...]]


def _plan(cls: type[Event]) -> _Plan:
    names = [a.name for a in attrs.fields(cls) if a.name not in ("error", "ts")]
    plain = tuple(n for n in names if n not in _JSON_TYPES)
    as_json = tuple(n for n in names if n in _JSON_TYPES)
    return _Plan(plain, attrgetter(*plain), as_json, attrgetter(*as_json))


_PLANS = {kind: _plan(cls) for kind, cls in EVENT_TYPES.items()}


def rows_of(event: Event) -> list[Row]:
    """Return every row that the event becomes; columns that are absent are left out.

    Takes what `wire.read` gives as well. Raises DecodeError (`invalid_field`) for an event whose attributes are nested
    too deeply to be written again.
    """
    kind, at = event.TYPE, (hour_of(event.ts), event.shard)
    rows = [_interaction(event, *at)] if event.session_id else []
    make = _MAKERS.get(kind)
    if make is not None:
        rows += make(event, *at)
    level = _error_level(event, kind)
    if level:
        rows.append(_error(event, level, *at))
    return rows


def event_of(values: Values) -> Event:
    """Return the event that a row of voice_interactions was made from."""
    kind = values["type"]
    plan = _PLANS[kind]
    fields: dict[str, Any] = {name: values.get(name) for name in plan.plain}
    fields["ts"] = values["ts_us"]
    for name in plan.json:
        text = values.get(name)
        if text is not None:
            fields[name] = _DECODERS[name].decode(text)
    if values.get("error_type") is not None:
        fields["error"] = ErrorInfo(
            type=values["error_type"], message=values.get("error_message") or "", stack=values.get("error_stack")
        )
    if kind == Log.TYPE and fields["message"] is None:
        fields["message"] = ""  # its time is over, and a log record has one
    return EVENT_TYPES[kind](**fields)


def is_expired(event: Event, now_ms: int, events_ms: int) -> bool:
    """Say whether the event is older than any table keeps it, so that it must be counted and not stored."""
    return event.ts // 1000 + events_ms <= now_ms


def hour_of(ts_us: int) -> str:
    """Return the UTC hour of a moment, like `2026-11-22T10`."""
    return _hour(ts_us // HOUR_US)


def day_of(ts_us: int) -> str:
    """Return the UTC day of a moment, like `2026-11-22`."""
    return _hour(ts_us // HOUR_US)[:10]


@lru_cache(maxsize=4096)
def _hour(hours: int) -> str:
    return time.strftime("%Y-%m-%dT%H", time.gmtime(hours * 3600))


def to_json(value: Any, encoder: msgspec.json.Encoder = _encoder) -> str:
    """Return compact JSON; raises DecodeError where `value` is nested too deeply."""
    try:
        return encoder.encode(value).decode()
    except RecursionError as exc:
        reason, message = (
            "invalid_field",
            "a field is nested too deeply to be stored: expected at most some hundred levels",
        )
        raise DecodeError(reason, message) from exc


def _present(values: Values) -> Values:
    return {name: value for name, value in values.items() if value is not None}


def _interaction(event: Event, hour: str, shard: int) -> Row:
    kind, ts, stage = event.TYPE, event.ts, event.stage
    plan = _PLANS[kind]
    values = {n: v for n, v in zip(plan.plain, plan.read_plain(event), strict=True) if v is not None}
    for name, value in zip(plan.json, plan.read_json(event), strict=True):
        if value is not None:
            values[name] = to_json(value)
    if event.extra is not None:  # the wire gives unknown fields in no order, and a row must be the same each time
        values["extra"] = to_json(event.extra, _sorting_encoder)
    values["ts"] = ts // 1000
    values["ts_us"] = ts
    values["v"] = SCHEMA_VERSION
    values["type"] = kind
    if stage:
        values["stage_hour"] = f"{stage}#{hour}#{shard:02d}"
    if event.error:
        values |= _error_columns(event.error)
    return Row(VOICE_INTERACTIONS.name, values)


def _error_columns(error: ErrorInfo) -> Values:
    columns = {"error_type": error.type, "error_message": error.message, "error_stack": error.stack}
    return _present(columns)


def _stage_metric(event: Event, hour: str, shard: int) -> list[Row]:
    values = _measured(event, hour, shard)
    values["name"] = event.stage or _STAGE_OF.get(event.TYPE, "")
    _set(values, "duration_ms", event.duration_ms)
    _set(values, "first_item_ms", event.first_item_ms)
    _set(values, "cost_usd", event.cost_usd)
    return [Row(PERFORMANCE_METRICS.name, values)]


def _turn_metrics(event: Event, hour: str, shard: int) -> list[Row]:
    turn = cast("Turn", event)
    if not turn.figures:
        return []
    measured = _measured(turn, hour, shard)
    measured["unit"] = "ms"
    return [_figure(measured.copy(), name, figure) for name, figure in turn.figures.items()]


def _figure(values: Values, name: str, figure: Figure) -> Row:
    values["name"] = f"turn.{name}"
    values["quality"] = figure.quality
    _set(values, "value", figure.value_ms)
    _set(values, "anchor", figure.anchor)
    return Row(PERFORMANCE_METRICS.name, values)


def _custom_metric(event: Event, hour: str, shard: int) -> list[Row]:
    metric = cast("Metric", event)
    values = _measured(metric, hour, shard)
    values["name"] = metric.name
    values["value"] = metric.value
    _set(values, "unit", metric.unit)
    return [Row(PERFORMANCE_METRICS.name, values)]


_DIMENSIONS = ("session_id", "turn_id", "status", "service", "host", "provider", "model", "variant")
_read_dimensions = attrgetter(*_DIMENSIONS)


def _measured(event: Event, hour: str, shard: int) -> Values:
    """Return the columns that all of an event's rows in performance_metrics share."""
    values = {n: v for n, v in zip(_DIMENSIONS, _read_dimensions(event), strict=True) if v is not None}
    values["hour"] = hour
    values["shard"] = shard
    values["type"] = event.TYPE
    values["ts"] = event.ts // 1000
    values["ts_us"] = event.ts
    values["stream_id"] = event.stream_id
    values["seq"] = event.seq
    return values


def _set(values: Values, name: str, value: Any) -> None:
    if value is not None:
        values[name] = value


def _place(event: Event) -> Values:
    return {"ts": event.ts // 1000, "stream_id": event.stream_id, "seq": event.seq, "ts_us": event.ts}


def _error_level(event: Event, kind: str) -> str | None:
    """Return the level under which the event belongs into error_logs, None where it does not.

    A quiet log record outside of any session goes there too: it has no other table.
    """
    if kind == Log.TYPE:
        level = cast("Log", event).level
        loud = level.upper() not in QUIET_LEVELS
        return level if loud or not event.session_id else None
    failed = event.status == "error" and kind in FINISHED_STAGES
    return "ERROR" if failed or kind == Error.TYPE else None


_ERROR_FIELDS = (
    "session_id", "turn_id", "stage", "provider", "model", "variant", "host", "user_id", "trace_id", "span_id",
)  # fmt: skip
_read_error_fields = attrgetter(*_ERROR_FIELDS)


def _error(event: Event, level: str, hour: str, shard: int) -> Row:
    key = {"service": event.service or "", "hour": hour, "shard": shard, **_place(event)}
    fields = dict(zip(_ERROR_FIELDS, _read_error_fields(event), strict=True))
    log = cast("Log", event)
    logged = {"logger": log.logger, "message": log.message} if event.TYPE == Log.TYPE else {}
    attributes = {"attributes": to_json(event.attributes)} if event.attributes is not None else {}
    error = _error_columns(event.error) if event.error else {}
    whole = {**key, "type": event.TYPE, "level": level, **fields, **logged, **attributes, **error}
    return Row(ERROR_LOGS.name, _present(whole))


def _health(event: Event, _hour: str, _shard: int) -> list[Row]:
    health = cast("Health", event)
    details = to_json(event.attributes) if event.attributes is not None else None
    key = {"component": health.component, "host": event.host or "", "day": day_of(event.ts), **_place(event)}
    values = {**key, "service": event.service, "state": health.state, "details": details}
    return [Row(SYSTEM_HEALTH.name, _present(values))]


_MAKERS: dict[str, Callable[[Event, str, int], list[Row]]] = {
    **dict.fromkeys(FINISHED_STAGES, _stage_metric),
    Turn.TYPE: _turn_metrics,
    Metric.TYPE: _custom_metric,
    Health.TYPE: _health,
}
"""What an event's type becomes besides its row in voice_interactions."""
