"""Gathering what a call's summary says while its events go by; nothing of it depends on their order. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import attrs

from voicelog.events import (
    FINISHED_STAGES,
    INT64_MAX,
    Error,
    Event,
    SessionEnded,
    SessionStarted,
    SttResult,
    TtsResult,
    Turn,
)
from voicelog_sink.percentiles import percentiles

SLOW_TURN_MS = 2000
"""A turn is slow from this user_bot_latency_ms on, where the setting slow_turn_ms says nothing else."""

MAX_SPAN_MS = 100 * 365.25 * 86_400_000
"""What claims to have lasted longer than a century counts as a century."""

COMPLETE = "complete"
MISSING = "missing"
UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class StreamCount:
    """What one stream of a call should have and has: `expected` is only a lower bound until the stream has ended."""

    stream_id: str
    expected: int
    received: int
    missing: int
    ended: bool
    service: str | None = None
    host: str | None = None


Order = tuple[int, str, int]


class _Stream:
    """The counts of one stream, as far as they are known."""

    def __init__(self) -> None:
        self.seqs: set[int] = set()
        self.total: int | None = None
        self.ended = False
        self.services: set[str] = set()
        self.hosts: set[str] = set()

    def add(self, event: Event) -> None:
        self.seqs.add(event.seq)
        if event.service:
            self.services.add(event.service)
        if event.host:
            self.hosts.add(event.host)
        if isinstance(event, SessionEnded):
            self.ended = True
            self.total = max(self.total or 0, event.events_total or event.seq)

    def count(self, stream_id: str) -> StreamCount:
        expected = max(self.total or 0, max(self.seqs))
        return StreamCount(
            stream_id=stream_id,
            expected=expected,
            received=len(self.seqs),
            missing=expected - len(self.seqs - {0}),
            ended=self.ended,
            service=min(self.services, default=None),
            host=min(self.hosts, default=None),
        )


class Tally:
    """What is known of a call so far; `add` takes each event once, `fields` gives the summary's fields."""

    def __init__(self, slow_turn_ms: float = SLOW_TURN_MS) -> None:
        self.slow_turn_ms = slow_turn_ms
        self.rows_read = 0
        self.session_id = ""
        self.started_us: list[int] = []
        self.first_us = self.last_us = self.ended_us = 0
        self.first: dict[str, tuple[Order, str]] = {}
        self.reason: tuple[Order, str] | None = None
        self.attributes: list[tuple[Order, dict[str, Any]]] = []
        self.providers: set[str] = set()
        self.models: set[str] = set()
        self.counts = dict.fromkeys(("turns", "errors", "interruptions", "unpriced"), 0)
        self.latencies_ms: list[float] = []
        self.sums: dict[str, list[float]] = {}
        self.streams: dict[str, _Stream] = {}

    def add(self, event: Event) -> None:
        """Take one event in."""
        order = (event.ts, event.stream_id, event.seq)
        self.session_id = event.session_id or ""
        self._span(event)
        self._identity(event, order)
        self.streams.setdefault(event.stream_id, _Stream()).add(event)
        if event.TYPE in FINISHED_STAGES:
            self._stage(event)
        elif isinstance(event, Turn):
            self._turn(event)
        elif isinstance(event, SessionStarted):
            self._started(event, order)
        elif isinstance(event, SessionEnded):
            self._ended(event, order)
        elif isinstance(event, Error):
            self.counts["errors"] += 1
        self.rows_read += 1

    def _span(self, event: Event) -> None:
        self.first_us = min(self.first_us or event.ts, event.ts)
        self.last_us = max(self.last_us, end_us(event))

    def _identity(self, event: Event, order: Order) -> None:
        for name in ("service", "host", "user_id", "variant"):
            value = getattr(event, name)
            if value and (name not in self.first or order < self.first[name][0]):
                self.first[name] = (order, value)

    def _started(self, event: SessionStarted, order: Order) -> None:
        self.started_us.append(event.ts)
        if event.attributes:
            self.attributes.append((order, event.attributes))

    def _ended(self, event: SessionEnded, order: Order) -> None:
        self.ended_us = max(self.ended_us, end_us(event))
        if event.disconnect_reason and (self.reason is None or order > self.reason[0]):
            self.reason = (order, event.disconnect_reason)

    def _turn(self, turn: Turn) -> None:
        self.counts["turns"] += 1
        self.counts["interruptions"] += bool(turn.was_interrupted)
        if turn.user_bot_latency_ms is not None and turn.quality in (None, "ok"):
            self.latencies_ms.append(turn.user_bot_latency_ms)

    def _stage(self, event: Event) -> None:
        self.counts["errors"] += event.status == "error"
        self.counts["unpriced"] += bool(event.usage) and event.cost_usd is None
        if event.provider:
            self.providers.add(event.provider)
        if event.model:
            self.models.add(event.model)
        for name, value in _used(event).items():
            if value is not None:
                self.sums.setdefault(name, []).append(value)

    def _sum(self, name: str) -> float | None:
        return total(self.sums[name]) if name in self.sums else None

    def _count(self, name: str) -> int | None:
        value = self._sum(name)
        return None if value is None else round(max(-INT64_MAX, min(INT64_MAX, value)))

    def fields(self) -> dict[str, Any]:
        """Return every field of the summary; at least one event must have been added."""
        started_us = min(self.started_us, default=self.first_us)
        return {
            "session_id": self.session_id,
            "started_at": started_us // 1000,
            "ended_at": self.ended_us // 1000 if all(s.ended for s in self.streams.values()) else None,
            "duration_ms": max(self.last_us - started_us, 0) / 1000,
            "providers": tuple(sorted(self.providers)),
            "models": tuple(sorted(self.models)),
            "disconnect_reason": self.reason[1] if self.reason else None,
            "attributes": self._attributes(),
            "rows_read": self.rows_read,
            **self._who(),
            **self.counts,
            **self._latency(),
            **self._usage(),
            **self._completeness(),
        }

    def _who(self) -> dict[str, Any]:
        names = ("service", "host", "user_id", "variant")
        return {name: self.first[name][1] if name in self.first else None for name in names}

    def _attributes(self) -> dict[str, Any] | None:
        """Merge what the streams began with; the earliest stream's value wins."""
        merged: dict[str, Any] = {}
        for _, attributes in sorted(self.attributes, key=lambda pair: pair[0], reverse=True):
            merged |= attributes
        return merged or None

    def _latency(self) -> dict[str, Any]:
        p50, largest = percentiles(self.latencies_ms, (50, 100)) or (None, None)
        return {
            "user_bot_latency_p50_ms": p50,
            "user_bot_latency_max_ms": largest,
            "slow_turns": sum(value >= self.slow_turn_ms for value in self.latencies_ms),
            "excluded_turns": self.counts["turns"] - len(self.latencies_ms),
        }

    def _usage(self) -> dict[str, Any]:
        counts = {name: self._count(name) for name in ("input_tokens", "output_tokens", "characters")}
        return {**counts, "audio_ms": self._sum("audio_ms"), "cost_usd": self._sum("cost_usd")}

    def _completeness(self) -> dict[str, Any]:
        streams = tuple(self.streams[stream_id].count(stream_id) for stream_id in sorted(self.streams))
        missing = sum(stream.missing for stream in streams)
        ended = all(stream.ended for stream in streams)
        return {
            "streams": streams,
            "expected": min(sum(stream.expected for stream in streams), INT64_MAX),
            "received": sum(stream.received for stream in streams),
            "missing": min(missing, INT64_MAX),
            "completeness": MISSING if missing else COMPLETE if ended else UNKNOWN,
        }


def total(values: Iterable[float]) -> float:
    """Return the sum, the same for every order of the values; infinite where a double can't hold it."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.inf


def end_us(event: Event) -> int:
    """Return when the event was over, epoch microseconds; a session_ended's ts is that moment already."""
    lasted_ms = 0.0 if isinstance(event, SessionEnded) else event.duration_ms or 0.0
    return event.ts + round(min(max(lasted_ms, 0.0), MAX_SPAN_MS) * 1000)


def _used(event: Event) -> dict[str, float | None]:
    usage = event.usage or {}
    used = {"input_tokens": usage.get("input_tokens"), "output_tokens": usage.get("output_tokens")}
    used["cost_usd"] = event.cost_usd
    if isinstance(event, TtsResult):
        used["characters"] = event.characters if event.characters is not None else usage.get("characters_count")
    if isinstance(event, SttResult) and event.is_final is not False:
        seconds = usage.get("audio_seconds")
        used["audio_ms"] = event.audio_ms if event.audio_ms is not None else seconds and seconds * 1000
    return used
