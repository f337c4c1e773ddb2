"""The daemon's heart: raw records become rows to store, dead letters with their reason, or nothing. Pure.

No Kafka, no store, no clock of its own. Every record that goes in comes out as exactly one of these, or is counted as
expired or erased, so that whoever has stored the rows and delivered the dead letters may release every record's offset.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import attrs

from voicelog.errors import DecodeError
from voicelog.events import Event
from voicelog.wire import read
from voicelog_sink.erasures import Erasures
from voicelog_sink.retention import Retention
from voicelog_sink.rows import is_expired, rows_of
from voicelog_sink.stores.base import Rejected, Row, Store

Headers = Sequence[tuple[str, bytes | None]]


class Record(NamedTuple):
    """A message as the broker gave it; `timestamp_ms` is None where the broker has none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None


class DeadLetter(NamedTuple):
    """A record that can't be stored: `reason` is a key of REASONS, the rest says where and why."""

    record: Record
    reason: str
    stage: str
    error: str
    message: str
    stack: str | None = None


@attrs.frozen
class Batch:
    """What a batch of records became. `origin[i]` is the index in `records` of what `rows[i]` was made from.

    `expired` of them are too old to be stored, `erased` are of a call or person that was erased.
    """

    records: Sequence[Record]
    events: list[Event]
    rows: list[Row]
    origin: list[int]
    dead: list[DeadLetter]
    expired: int
    erased: int = 0

    def refused(self, rejected: Sequence[Rejected]) -> list[DeadLetter]:
        """Return a dead letter for each record that lost a row to the store's refusal, once a record."""
        first = {self.origin[r.index]: r for r in reversed(rejected) if r.index < len(self.origin)}
        return [
            DeadLetter(self.records[index], "store_rejected", "store", r.error, r.message)
            for index, r in sorted(first.items())
        ]


@attrs.frozen
class Pipeline:
    """The rules by which records are sorted."""

    max_message_bytes: int
    ttl_days: int
    erasures: Erasures = attrs.Factory(Erasures)
    retention: Retention = attrs.Factory(lambda self: Retention(self.ttl_days), takes_self=True)

    def load(self, store: Store) -> None:
        """Read anew what was erased, and how long things are kept. Blocks while the store works; raises StoreError."""
        self.erasures.load(store)
        self.retention.load(store)

    def sort(self, records: Sequence[Record], now_ms: int) -> Batch:
        """Return what each record becomes at the time `now_ms` (epoch milliseconds). Never raises."""
        batch = Batch(records, [], [], [], [], 0)
        expired = erased = 0
        covers = self.erasures.covers if self.erasures else None
        lifetimes = self.retention.lifetimes
        events_ms, is_uneven = lifetimes.events_ms, lifetimes.is_uneven
        for index, record in enumerate(records):
            try:
                event = self._event(record)
                if is_expired(event, now_ms, events_ms):
                    expired += 1
                    continue
                if covers is not None and covers(event):
                    erased += 1
                    continue
                rows = rows_of(event)
                if is_uneven and rows and all(lifetimes.is_row_over(row.table, row.values, now_ms) for row in rows):
                    expired += 1
                    continue
            except DecodeError as exc:
                batch.dead.append(_undecodable(record, exc))
            except Exception as exc:  # one record that trips a bug must not hold up all that come after it
                batch.dead.append(_tripped(record, exc))
            else:
                batch.events.append(event)
                batch.rows.extend(rows)
                batch.origin.extend([index] * len(rows))
        return attrs.evolve(batch, expired=expired, erased=erased)

    def again(self, batch: Batch, now_ms: int) -> Batch:
        """Return the batch without what was erased since it was sorted: itself where nothing was. Never raises."""
        if not self.erasures or not any(map(self.erasures.covers, batch.events)):
            return batch
        return self.sort(batch.records, now_ms)

    def _event(self, record: Record) -> Event:
        size_bytes = len(record.value or b"")
        if size_bytes > self.max_message_bytes:
            message = f"{size_bytes} bytes: expected at most {self.max_message_bytes} (VOICELOG_MAX_MESSAGE_BYTES)"
            raise DecodeError("too_large", message)
        return read(record.value)


def count_tables(rows: Sequence[Row]) -> Counter[str]:
    """Return how many rows there are for each table."""
    return Counter(row.table for row in rows)


def _undecodable(record: Record, exc: DecodeError) -> DeadLetter:
    return DeadLetter(record, exc.reason, "decode", "voicelog.errors.DecodeError", str(exc))


def _tripped(record: Record, exc: Exception) -> DeadLetter:
    kind = f"{type(exc).__module__}.{type(exc).__qualname__}"
    return DeadLetter(record, "sink_failed", "decode", kind, str(exc), "".join(traceback.format_exception(exc)))
