"""What `export` takes out of a store: the rows of a period or of a call, as a stream. Needs no broker, writes nothing.

Every function blocks while its rows are read, holds some at a time, and raises StoreError as the store does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import attrs

from voicelog import wire
from voicelog.events import SessionStarted
from voicelog_sink import shapes
from voicelog_sink.pending import ROLLUP_BUCKETS
from voicelog_sink.queries import sessions_between
from voicelog_sink.rows import day_of, event_of, hour_of, rows_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.summary import summarise, summary_of, summary_rows
from voicelog_sink.tables import (
    DERIVED_PENDING,
    ERROR_LOGS,
    PERFORMANCE_METRICS,
    SESSION_SUMMARIES,
    SYSTEM_HEALTH,
    VOICE_INTERACTIONS,
    Table,
)
from voicelog_sink.tally import SLOW_TURN_MS

CALLS_AT_ONCE = 32
PARTITIONS_AT_ONCE = 256

Rows = Iterator[Values]


@attrs.frozen(kw_only=True)
class Export:
    """One thing that can be exported, in rows of `table`.

    `between(store, since_ms, until_ms)` gives those from `since_ms` (inclusive) to `until_ms` (exclusive),
    `of_call(store, session_id, slow_turn_ms)` those of one call, and `json` a row's line. Where those of a period come
    newest first, `newest_first_by` is the column that tells how far back they are, about.
    """

    name: str
    table: Table
    between: Callable[[Store, int, int], Rows]
    of_call: Callable[[Store, str, float], Rows]
    json: Callable[[Values], bytes]
    newest_first_by: str | None = None


def events_between(store: Store, since_ms: int, until_ms: int) -> Rows:
    """Yield every event of the calls that began in that time, call by call, each call's in order.

    Listed calls come newest first, then those whose summary is not up to date yet. A call is read whole, also what
    came after `until_ms`, so that two periods side by side hold every event once.
    """
    pending = _pending_calls(store)  # before the list: a call that is settled meanwhile is in one of both, not in none
    listed = (call.session_id for call in sessions_between(store, since_ms, until_ms))
    yield from _events(store, (session_id for session_id in listed if session_id not in pending))
    yield from _events(store, (each for each in pending if _began(store, each, since_ms, until_ms)))


def events_of_call(store: Store, session_id: str, _slow_turn_ms: float = SLOW_TURN_MS) -> Rows:
    """Yield a call's events, in order."""
    return store.select(VOICE_INTERACTIONS.name, [{"session_id": session_id}])


def _events(store: Store, session_ids: Iterable[str]) -> Rows:
    waiting = iter(session_ids)
    while some := [{"session_id": session_id} for session_id in islice(waiting, CALLS_AT_ONCE)]:
        yield from store.select(VOICE_INTERACTIONS.name, some)


def _pending_calls(store: Store) -> set[str]:
    """Return the calls that may have events which no summary knows of: those that go on, mostly."""
    buckets = [{"bucket": bucket} for bucket in range(ROLLUP_BUCKETS)]
    return {row["key"] for row in store.select(DERIVED_PENDING.name, buckets)}


def _began(store: Store, session_id: str, since_ms: int, until_ms: int) -> bool:
    """Say whether the call began in that time, by its events, as a summary would have it."""
    first_us: dict[bool, int] = {}
    for kind, ts_us in store.tuples(VOICE_INTERACTIONS.name, ("type", "ts_us"), [{"session_id": session_id}]):
        is_start = kind == SessionStarted.TYPE
        first_us[is_start] = min(ts_us, first_us.get(is_start, ts_us))
    began_us = first_us.get(True, first_us.get(False))
    return began_us is not None and since_ms <= began_us // 1000 < until_ms


def calls_between(store: Store, since_ms: int, until_ms: int) -> Rows:
    """Yield the summaries of the calls that began in that time, newest first."""
    for summary in sessions_between(store, since_ms, until_ms):
        yield summary_rows(summary)[0].values


def summary_of_call(store: Store, session_id: str, slow_turn_ms: float = SLOW_TURN_MS) -> Rows:
    """Yield a call's summary, made from its events while there are any: a turn of `slow_turn_ms` or more is slow."""
    summary = summarise((event_of(row) for row in events_of_call(store, session_id)), slow_turn_ms)
    if summary:
        yield summary_rows(summary)[0].values
    else:
        yield from store.select(SESSION_SUMMARIES.name, [{"session_id": session_id}])


def _by_time(table: Table, period: str, period_of: Callable[[int], str]) -> Callable[[Store, int, int], Rows]:
    """Return what yields the rows of that time of a table whose partitions are hours or days, in no order."""

    def between(store: Store, since_ms: int, until_ms: int) -> Rows:
        first, last = period_of(since_ms * 1000), period_of((until_ms - 1) * 1000)
        wanted = (each for each in store.partitions(table.name) if first <= each[period] <= last)
        while some := list(islice(wanted, PARTITIONS_AT_ONCE)):
            yield from store.select(table.name, some, since_ms=since_ms, until_ms=until_ms)

    return between


def _of_call(table: Table) -> Callable[[Store, str, float], Rows]:
    """Return what yields a call's rows of a table that is not ordered by call: they are made anew from its events."""

    def of_call(store: Store, session_id: str, _slow_turn_ms: float = SLOW_TURN_MS) -> Rows:
        blank = dict.fromkeys(table.columns)
        for row in events_of_call(store, session_id):
            yield from ({**blank, **made.values} for made in rows_of(event_of(row)) if made.table == table.name)

    return of_call


def _event_json(row: Values) -> bytes:
    return wire.encode(event_of(row)).value


def _summary_json(row: Values) -> bytes:
    return shapes.line(shapes.session_shape(summary_of(row))).encode()


def _row_json(row: Values) -> bytes:
    return shapes.line(shapes.row_shape(row)).encode()


def _parts(name: str, table: Table, period: str, period_of: Callable[[int], str]) -> Export:
    between, of_call = _by_time(table, period, period_of), _of_call(table)
    return Export(name=name, table=table, between=between, of_call=of_call, json=_row_json)


EXPORTS: dict[str, Export] = {
    export.name: export
    for export in (
        Export(name="events", table=VOICE_INTERACTIONS, between=events_between, of_call=events_of_call,
               json=_event_json, newest_first_by="ts"),
        Export(name="sessions", table=SESSION_SUMMARIES, between=calls_between, of_call=summary_of_call,
               json=_summary_json, newest_first_by="started_at"),
        _parts("metrics", PERFORMANCE_METRICS, "hour", hour_of),
        _parts("errors", ERROR_LOGS, "hour", hour_of),
        _parts("health", SYSTEM_HEALTH, "day", day_of),
    )
}  # fmt: skip
"""What can be exported, by its name. Events of no call are in metrics, errors and health alone."""
