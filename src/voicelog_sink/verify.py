"""Comparing topics with the store: every message is stored, a dead letter, or left out for a reason that is named.

Reads the topics again and looks each message's row up by its key. Joins no group, commits nothing, writes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import attrs

from voicelog.errors import DecodeError
from voicelog.wire import read
from voicelog_sink.erasures import Erasures
from voicelog_sink.pipeline import Record
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Row, Store
from voicelog_sink.stores.lifetime import Lifetimes
from voicelog_sink.tables import SESSION_SUMMARIES, TABLES
from voicelog_sink.watermark import Place

OUTCOMES = ("stored", "dead", "expired", "erased", "waiting", "missing")
"""What becomes of a message: `dead` is among the dead letters, `waiting` the group has not read yet."""

CHUNK = 2_000
"""Messages that are looked up together."""
MOST_NAMED = 1_000
"""Missing messages that are named, at most; all are counted."""

Offset = tuple[str, int, int]
"""Topic, partition, offset."""
Partition = tuple[Any, ...]
"""A table's name, and the values of its partition key."""


@attrs.frozen
class Missing:
    """A message that is not stored though it should be; `session_id` and `event_id` are None where it is no event."""

    topic: str
    partition: int
    offset: int
    session_id: str | None
    event_id: str | None


@attrs.frozen
class Gap:
    """A call of which events never reached the broker: a stream's numbers have holes, or its end counts more."""

    session_id: str
    expected: int
    received: int
    missing: int


@attrs.frozen
class Rules:
    """By what a message is judged.

    `dead` are the places of the dead letters, `committed` the group's next offsets, both as of the beginning. Messages
    stamped `until_ms` (epoch milliseconds, the broker's clock) or later are not looked at.
    """

    lifetimes: Lifetimes
    now_ms: int
    until_ms: int | None
    erasures: Erasures
    dead: Collection[Offset]
    committed: Mapping[Place, int]


@attrs.define
class Ledger:
    """What has become of the messages, by topic; the first missing ones; and the sessions that they are of."""

    counts: defaultdict[str, Counter[str]] = attrs.Factory(lambda: defaultdict(Counter))
    missing: list[Missing] = attrs.Factory(list)
    sessions: set[str] = attrs.Factory(set)

    def total(self, outcome: str) -> int:
        """Return how many messages of all topics became this."""
        return sum(counts[outcome] for counts in self.counts.values())


@attrs.frozen
class _Wanted:
    record: Record
    row: Row
    session_id: str | None
    event_id: str


def verify(
    store: Store, records: Iterable[Record], rules: Rules, on_read: Callable[[], object] = lambda: None
) -> Ledger:
    """Look every record up and return what became of them; `on_read` is called for each.

    Blocks for broker and store, and raises as they do. Holds some thousand records and the sessions' ids in memory.
    """
    ledger = Ledger()
    waiting = iter(records)
    while chunk := list(islice(waiting, CHUNK)):
        wanted = [found for record in chunk if (found := _judged(record, rules, ledger)) is not None]
        there = _there(store, [w.row for w in wanted])
        for want, stored in zip(wanted, there, strict=True):
            if not stored:
                _not_stored(want.record, rules, ledger, want.session_id, want.event_id)
                continue
            ledger.counts[want.record.topic]["stored"] += 1
            if want.session_id:
                ledger.sessions.add(want.session_id)
        for _ in chunk:
            on_read()
    return ledger


def gaps(store: Store, sessions: Iterable[str]) -> Iterator[Gap]:
    """Yield the calls that have lost events before the broker, as their summaries count them."""
    waiting = iter(sorted(sessions))
    while chunk := [{"session_id": session_id} for session_id in islice(waiting, CHUNK)]:
        for row in store.select(SESSION_SUMMARIES.name, chunk):
            if row["missing"]:
                yield Gap(row["session_id"], row["expected"], row["received"], row["missing"])


def _judged(record: Record, rules: Rules, ledger: Ledger) -> _Wanted | None:
    """Return the row that must be stored for a record; note what needs none."""
    if rules.until_ms is not None and record.timestamp_ms is not None and record.timestamp_ms >= rules.until_ms:
        return None
    try:
        event = read(record.value)
        row = next(iter(rows_of(event)), None)
    except DecodeError:
        _not_stored(record, rules, ledger, None, None)
        return None
    if rules.erasures.covers(event):
        ledger.counts[record.topic]["erased"] += 1
    elif row is None:
        ledger.counts[record.topic]["stored"] += 1  # an event of which no table keeps anything
    elif rules.lifetimes.is_row_over(row.table, row.values, rules.now_ms):
        ledger.counts[record.topic]["expired"] += 1
    else:
        return _Wanted(record, row, event.session_id, event.event_id)
    return None


def _not_stored(record: Record, rules: Rules, ledger: Ledger, session_id: str | None, event_id: str | None) -> None:
    counts = ledger.counts[record.topic]
    if (record.topic, record.partition, record.offset) in rules.dead:
        counts["dead"] += 1
    elif record.offset >= rules.committed.get((record.topic, record.partition), 0):
        counts["waiting"] += 1
    else:
        counts["missing"] += 1
        if len(ledger.missing) < MOST_NAMED:
            ledger.missing.append(Missing(record.topic, record.partition, record.offset, session_id, event_id))


def _there(store: Store, rows: Sequence[Row]) -> list[bool]:
    """Return for each row whether the store has one of its key."""
    partitions: defaultdict[Partition, list[Row]] = defaultdict(list)
    for row in rows:
        partitions[_partition(row)].append(row)
    found = {(partition, name) for partition, asked in partitions.items() for name in _stored(store, partition, asked)}
    return [(_partition(row), (row.values["stream_id"], row.values["seq"])) in found for row in rows]


def _stored(store: Store, partition: Partition, rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """Yield the stream_id and seq of what a partition has in the time of these rows."""
    table, *values = partition
    key = dict(zip(TABLES[table].partition_key, values, strict=True))
    times_ms = [row.values["ts"] for row in rows]
    return store.tuples(table, ("stream_id", "seq"), [key], since_ms=min(times_ms), until_ms=max(times_ms) + 1)


def _partition(row: Row) -> Partition:
    return (row.table, *(row.values[name] for name in TABLES[row.table].partition_key))
