"""Stores to back up, and what is in a store, for the tests of backup and restore."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.builders import CallBuilder, health, realistic_call, sqlite_store, store_calls, troubled_call
from voicelog.events import Error, ErrorInfo, Event, Metric
from voicelog_sink.backup import backup, begin, chosen, only_run
from voicelog_sink.backup_manifest import Asked, Manifest, complete
from voicelog_sink.erasures import Erasure
from voicelog_sink.restore import restore
from voicelog_sink.restored import Restored
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.tables import DERIVED_PENDING, TABLES

START_US = (time.time_ns() // 3_600_000_000_000 - 30) * 3_600_000_000
"""Some hours ago, at a full hour."""
TTL_DAYS = 90


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def fresh(path: Path) -> SqliteStore:
    return sqlite_store(path, now_ms)


def some_calls(count: int = 4, first: int = 1) -> list[CallBuilder]:
    """Return calls of three persons over some hours; the last one had trouble."""
    calls = [
        realistic_call(
            f"call-{n:02d}", seed=n, start_us=START_US + n * 1_700_000_000, user_id=f"user-{n % 3}", variant="ab"[n % 2]
        )
        for n in range(first, first + count - 1)
    ]
    last = first + count - 1
    return [*calls, troubled_call(f"call-{last:02d}", seed=last, start_us=START_US + last * 1_700_000_000)]


def outside() -> list[Event]:
    """Return events of no call."""
    error = ErrorInfo(type="OSError", message="no space left", stack="Traceback ...")
    return [
        health(START_US + 7, attributes={"queue": 3}),
        Error(stream_id="process-1", seq=1, ts=START_US + 1_999, service="door", status="error", error=error),
        Metric(stream_id="process-1", seq=2, ts=START_US + 2_001, name="doors", value=2.5, unit="1"),
    ]


def fill(store: Store, calls: list[CallBuilder]) -> None:
    """Store the calls as the sink would have, events of no call, and what was erased once."""
    store_calls(store, calls)
    rows = [row for event in outside() for row in rows_of(event)]
    erased = Erasure("session", "call-long-gone", START_US // 1000, "ticket 1").row
    assert store.write([*rows, erased]) == []


def taken(store: Store, folder: Path, url: str = "sqlite:///a", **asked: Any) -> Manifest:
    """Take a backup, or go on with one."""
    tables = chosen(asked.get("tables", ()))
    period = (asked.get("since"), asked.get("until"))
    texts = [None if moment is None else str(moment) for moment in period]
    with only_run(folder):
        manifest = begin(folder, url, Asked(since=texts[0], until=texts[1], tables=tables), period)
        return backup(store, folder, manifest)


def brought(store: Store, folder: Path, **options: Any) -> Restored:
    """Restore a backup."""
    return restore(store, folder, complete(folder), ttl_days=TTL_DAYS, **options)


def rows_in(store: Store, but: tuple[str, ...] = (DERIVED_PENDING.name,)) -> dict[str, list[Values]]:
    """Return every row of every table, in the order of their keys."""
    found = {}
    for name, table in TABLES.items():
        if name not in but:
            rows = store.select(name, list(store.partitions(name)))
            found[name] = sorted(rows, key=lambda row: [row[column] for column in table.key])
    return found


def pending_keys(store: Store) -> set[str]:
    rows = store.select(DERIVED_PENDING.name, list(store.partitions(DERIVED_PENDING.name)))
    return {row["key"] for row in rows}
