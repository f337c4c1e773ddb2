"""What the tables must hold of given events, by the design's words; of the sink's code only the rollups' names."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from voicelog.events import Error, Event, Health, Log, Metric, SessionEnded, Turn
from voicelog_sink.rollup import names_of
from voicelog_sink.tables import TABLES

Key = tuple[Any, ...]
Keyed = dict[Key, dict[str, Any]]

KINDS = {"turn": "turn", "metric": "metric"}
STAGES = {"stt_result": "stt", "llm_request": "llm", "tts_result": "tts", "stage": ""}
WHO = ("session_id", "turn_id", "provider", "model", "variant", "host")
SPANS = ("stage", "user_id", "trace_id", "span_id")


def metric_rows(events: Iterable[Event]) -> Keyed:
    """Return performance_metrics: a row a finished stage, a figure of a turn, a metric."""
    return _keyed("performance_metrics", (row for event in events for row in _metrics(event)))


def error_rows(events: Iterable[Event]) -> Keyed:
    """Return error_logs: errors, failed stages, loud log records, and quiet ones outside of calls."""
    return _keyed("error_logs", (_error(event, level) for event in events if (level := _level(event))))


def health_rows(events: Iterable[Event]) -> Keyed:
    """Return system_health."""
    return _keyed("system_health", (_health(event) for event in events if isinstance(event, Health)))


def counts(events: Iterable[Event]) -> dict[str, dict[str, int | bool]]:
    """Return what each call's summary must count."""
    calls: dict[str, dict[str, dict[int, Event]]] = {}
    for event in events:
        if event.session_id:
            calls.setdefault(event.session_id, {}).setdefault(event.stream_id, {})[event.seq] = event
    return {session_id: _counts(streams) for session_id, streams in calls.items()}


def measured(events: Iterable[Event]) -> Counter[str]:
    """Return how many measurements each name of metric_rollups must have counted, in every tier."""
    rows = metric_rows(events).values()
    return Counter(names_of(row["name"], KINDS.get(row["type"], "stage"))[0] for row in rows)


def stage_hour(event: Event) -> str | None:
    """Return the view's partition of an event."""
    return f"{event.stage}#{_hour(event)}#{_shard(event):02d}" if event.stage else None


def _counts(streams: dict[str, dict[int, Event]]) -> dict[str, int | bool]:
    events = [event for stream in streams.values() for event in stream.values()]
    expected = sum(max([*stream, *map(_total, stream.values())]) for stream in streams.values())
    ended = all(any(isinstance(event, SessionEnded) for event in stream.values()) for stream in streams.values())
    return {
        "expected": expected, "received": len(events), "missing": expected - len(events), "rows_read": len(events),
        "complete": ended and expected == len(events), "turns": sum(isinstance(event, Turn) for event in events),
    }  # fmt: skip


def _total(event: Event) -> int:
    return (event.events_total or 0) if isinstance(event, SessionEnded) else 0


def _keyed(table: str, rows: Iterable[dict[str, Any]]) -> Keyed:
    made = TABLES[table]
    whole = ({name: row.get(name) for name in made.columns} for row in rows)
    return {tuple(row[name] for name in made.key): row for row in whole}


def _metrics(event: Event) -> Iterator[dict[str, Any]]:
    common = {**_common(event), "shard": _shard(event), "status": event.status}
    if event.TYPE in STAGES:
        figures = {name: getattr(event, name) for name in ("duration_ms", "first_item_ms", "cost_usd")}
        yield {**common, **figures, "name": event.stage or STAGES[event.TYPE]}
    elif isinstance(event, Turn):
        for name, figure in (event.figures or {}).items():
            told = {"value": figure.value_ms, "unit": "ms", "quality": figure.quality, "anchor": figure.anchor}
            yield {**common, **told, "name": f"turn.{name}"}
    elif isinstance(event, Metric):
        yield {**common, "name": event.name, "value": event.value, "unit": event.unit}


def _error(event: Event, level: str) -> dict[str, Any]:
    error = event.error
    told = {"error_type": error.type, "error_message": error.message, "error_stack": error.stack} if error else {}
    logged = {"logger": event.logger, "message": event.message} if isinstance(event, Log) else {}
    spans = {name: getattr(event, name) for name in SPANS}
    own = {"shard": _shard(event), "level": level, "service": event.service or "", "attributes": event.attributes}
    return {**_common(event), **spans, **own, **told, **logged}


def _level(event: Event) -> str | None:
    if isinstance(event, Log):
        quiet = event.level.upper() in {"NOTSET", "TRACE", "DEBUG", "INFO"}
        return None if quiet and event.session_id else event.level
    failed = event.TYPE in STAGES and event.status == "error"
    return "ERROR" if failed or isinstance(event, Error) else None


def _health(event: Health) -> dict[str, Any]:
    own = {"component": event.component, "state": event.state, "details": event.attributes, "host": event.host or ""}
    return {**_common(event), **own, "day": _hour(event)[:10]}


def _common(event: Event) -> dict[str, Any]:
    who = {name: getattr(event, name) for name in (*WHO, "service", "stream_id", "seq")}
    return {**who, "type": event.TYPE, "ts": event.ts // 1000, "ts_us": event.ts, "hour": _hour(event)}


def _hour(event: Event) -> str:
    return time.strftime("%Y-%m-%dT%H", time.gmtime(event.ts // 1_000_000))


def _shard(event: Event) -> int:
    key = event.session_id or f"~{event.service or ''}/{event.host or ''}"
    return zlib.crc32(key.encode()) % 16


def parsed(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a row as it was read, with these columns' JSON taken apart."""
    return {name: json.loads(value) if name in names and value else value for name, value in row.items()}
