"""The measurements of a batch, as rows of metric_parts: what rollups are computed from. Pure.

They are those of performance_metrics, many in one value: to read a minute's rows one by one costs the database about
as much as to write them. A measurement that was delivered twice is in two parts, and counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from voicelog.events import FINISHED_STAGES, STAGE_TYPES, Event, Metric, Turn, shard_of
from voicelog_sink.rows import hour_of
from voicelog_sink.stores.base import Row
from voicelog_sink.tables import METRIC_PARTS

MINUTE_MS = 60_000
MINUTE_US = 60_000_000
STAGE, TURN, METRIC = "stage", "turn", "metric"
_OK = (None, "ok")

EXCLUDED = 1
FAILED = 2
"""Bits of a measurement's flags: it is in no percentile, as a stage that did not end ok, or a figure whose quality is
not ok; it failed.
"""


Group = tuple[str, str, str, str, str, str, str]
"""What measurements have in common: their name in performance_metrics, what they are of, service, provider, model,
variant, and the unit. Absent is ''.
"""

Measurement = tuple[str, int, int, float | None, float | None, float | None]
"""stream_id, seq, flags, the value (a stage's duration, ms), first_item_ms, cost_usd."""

Grouped = defaultdict[Group, list[Measurement]]

_Stored = list[tuple[str, str, str, str, str, str, list[Measurement]]]
"""One name's groups: kind, service, provider, model, variant, unit, measurements."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_decode_groups = msgspec.msgpack.Decoder(_Stored).decode

_who = attrgetter("service", "provider", "model", "variant")
_measured = attrgetter("stream_id", "seq", "status", "duration_ms", "first_item_ms", "cost_usd")
_shard_of = lru_cache(maxsize=8192)(shard_of)
_STAGE_OF = {cls.TYPE: stage for stage, cls in STAGE_TYPES.items()}


class Place(NamedTuple):
    """A partition of metric_parts: the minute since the epoch, and the shard of the messages' keys."""

    minute: int
    shard: int


def measurements(events: Iterable[Event]) -> dict[Place, Grouped]:
    """Return what the events measured, by the partition it belongs to."""
    places: dict[Place, Grouped] = {}
    for event in events:
        add = _ADDERS.get(event.TYPE)
        if add is not None:
            place = Place(event.ts // MINUTE_US, _shard_of(event.session_id or event.key))
            grouped = places.get(place)
            if grouped is None:
                grouped = places[place] = defaultdict(list)
            add(grouped, event)
    return {place: grouped for place, grouped in places.items() if grouped}


def _add_stage(grouped: Grouped, event: Any) -> None:
    stream_id, seq, status, duration_ms, first_item_ms, cost_usd = _measured(event)
    service, provider, model, variant = _who(event)
    source = event.stage or _STAGE_OF.get(event.TYPE, "")
    group = (source, STAGE, service or "", provider or "", model or "", variant or "", "ms")
    flags = 0 if status in _OK else EXCLUDED | FAILED if status == "error" else EXCLUDED
    grouped[group].append((stream_id, seq, flags, duration_ms, first_item_ms, cost_usd))


def _add_turn(grouped: Grouped, event: Any) -> None:
    stream_id, seq = event.stream_id, event.seq
    service, provider, model, variant = [value or "" for value in _who(event)]
    failed = FAILED if event.status == "error" else 0
    for name, figure in (event.figures or {}).items():
        flags = failed if figure.quality in _OK else failed | EXCLUDED
        measurement = (stream_id, seq, flags, figure.value_ms, None, None)
        grouped[_turn_source(name), TURN, service, provider, model, variant, "ms"].append(measurement)


@lru_cache(maxsize=1024)
def _turn_source(figure: str) -> str:
    return f"turn.{figure}"


def _add_metric(grouped: Grouped, event: Any) -> None:
    service, provider, model, variant = [value or "" for value in _who(event)]
    group = (event.name, METRIC, service, provider, model, variant, event.unit or "")
    flags = 0 if event.status in _OK else EXCLUDED | FAILED if event.status == "error" else EXCLUDED
    grouped[group].append((event.stream_id, event.seq, flags, event.value, None, None))


_ADDERS = {**dict.fromkeys(FINISHED_STAGES, _add_stage), Turn.TYPE: _add_turn, Metric.TYPE: _add_metric}


def part_row(place: Place, part: str, grouped: Grouped) -> Row:
    """Return the row that holds them; `part` is a name that no other batch has."""
    by_source: defaultdict[str, list[Any]] = defaultdict(list)
    for (source, *group), rows in grouped.items():
        by_source[source].append((*group, rows))
    key = {"minute": minute_text(place.minute), "shard": place.shard, "start": place.minute * MINUTE_MS, "part": part}
    return Row(METRIC_PARTS.name, {**key, "data": _encode(by_source)})


def minute_text(minute: int) -> str:
    """Return a minute since the epoch like `2026-11-22T10:05`."""
    return f"{hour_of(minute * MINUTE_US)}:{minute % 60:02d}"


class Parts:
    """Some parts of one minute; what is in several of them counts once."""

    def __init__(self, blobs: Iterable[bytes]) -> None:
        """Read which names they have."""
        self._by_source: defaultdict[str, list[msgspec.Raw]] = defaultdict(list)
        self.unreadable: str | None = None
        """Why a part, the last of those, could not be read; None where all could be."""
        for blob in blobs:
            try:
                for source, raw in _decode(blob).items():
                    self._by_source[source].append(raw)
            except msgspec.DecodeError as exc:
                self._note(exc)

    @property
    def sources(self) -> Sequence[str]:
        """The names that performance_metrics has for them."""
        return list(self._by_source)

    def of(self, source: str) -> Mapping[Group, set[Measurement]]:
        """Return one name's measurements."""
        found: defaultdict[Group, set[Measurement]] = defaultdict(set)
        for raw in self._by_source[source]:
            try:
                for kind, service, provider, model, variant, unit, rows in _decode_groups(raw):
                    found[source, kind, service, provider, model, variant, unit].update(rows)
            except msgspec.DecodeError as exc:
                self._note(exc)
        return found

    def _note(self, exc: Exception) -> None:
        self.unreadable = f"a row of metric_parts: {exc}; a newer voicelog-sink may have written it"
