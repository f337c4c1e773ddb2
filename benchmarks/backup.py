"""A backup of many events, restored into the other kind of store and compared event by event and row by row.

    python benchmarks/backup.py [--events 1000000] [--store scylla://HOST:PORT/KEYSPACE?local_dc=DC] [--turn]

Makes calls as the sink would have stored them (rows, metric parts, rollups, summaries), backs SQLite up and restores
into a CQL database; with --turn the other way round. Without --store it starts a Cassandra. Both commands run in
processes of their own, whose peak of memory is measured. Beside them: how fast the rows are read and written barely.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from benchmarks.raw_stores import RawCql, RawSqlite, timed
from benchmarks.traffic import call
from tests.servers import CassandraServer

from voicelog.events import Event
from voicelog.settings import load
from voicelog_sink.rollup_work import RollupWork
from voicelog_sink.rollups import Rollups
from voicelog_sink.rows import event_of, rows_of
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.stores.url import sqlite_path
from voicelog_sink.summary import summarise, summary_rows
from voicelog_sink.tables import DERIVED_PENDING, TABLES, VOICE_INTERACTIONS, Life

HOURS = 24
"""The calls are spread over so many hours."""
CALLS_AT_ONCE = 100
PARTITIONS_AT_ONCE = 64
WINDOW = 4_000


def opened(url: str) -> Store:
    store = make_store(load({"store": url}, {})[0])
    store.open(60_000)
    store.init()
    return store


def calls(count: int, now_us: int) -> Iterator[list[Event]]:
    """Yield whole calls of `count` events together, hour by hour."""
    made, hour = 0, -1
    while made < count:
        at = made * HOURS // count
        if at != hour:
            hour, number = at, 0
        number += 1
        events = call(f"bench-{hour:02d}-{number:06d}", now_us - (HOURS - hour + 1) * 3_600_000_000)
        yield events
        made += len(events)


def fill(store: Store, count: int) -> int:
    """Store so many events as the sink would have; return how many there are."""
    now_ms = time.time_ns() // 1_000_000
    work, made = RollupWork("bench", 10_000), 0
    waiting = calls(count, now_ms * 1000)
    while some := list(islice(waiting, CALLS_AT_ONCE)):
        events = [event for one in some for event in one]
        rows = [row for event in events for row in rows_of(event)] + work.note(events, now_ms)
        summaries = [summary for summary in map(summarise, some) if summary]
        assert store.write([*rows, *(row for summary in summaries for row in summary_rows(summary))]) == []
        made += len(events)
    work.hurry()
    rollups = Rollups(store, work)
    while rollups.step(now_ms, 0) is not None:
        pass
    return made


def command(*arguments: str) -> tuple[float, float, float]:
    """Run a command; return seconds, seconds of processor, and the peak of its memory in MB."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "voicelog_sink", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{arguments[0]} ended with status {process.returncode}"
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def partitions(store: Store, table: str) -> Iterator[list[Values]]:
    waiting = store.partitions(table)
    while some := list(islice(waiting, PARTITIONS_AT_ONCE)):
        yield some


def compare(source: Store, target: Store) -> None:
    """Read every table of both; every row must be the same, and every event of a call."""
    for table in TABLES:
        if table == DERIVED_PENDING.name:
            continue
        begin, rows = time.perf_counter(), 0
        for keys in partitions(source, table):
            for one, other in zip(source.select(table, keys), target.select(table, keys), strict=True):
                assert one == other, f"{table}: {one} became {other}"
                if table == VOICE_INTERACTIONS.name:
                    assert event_of(one) == event_of(other)
                rows += 1
        assert count(source, table) == count(target, table), f"{table} has other partitions"
        print(f"  {table}: {rows:,} rows are equal ({time.perf_counter() - begin:.0f} s)", flush=True)


def count(store: Store, table: str) -> int:
    return sum(1 for _ in store.partitions(table))


def bare_rows(source: Store, most: int) -> list[Row]:
    """Return rows of the appended tables as restore writes them, up to so many of each."""
    found: list[Row] = []
    for name, table in TABLES.items():
        if table.life is Life.APPENDED:
            rows = (row for keys in partitions(source, name) for row in source.select(name, keys))
            found += [
                Row(name, {key: value for key, value in row.items() if value is not None}) for row in islice(rows, most)
            ]
    return found


def bare_write(url: str, source: Store, most: int) -> float:
    """Return how many rows a second the driver alone writes."""
    rows = bare_rows(source, most)
    raw = RawCql(url) if not url.startswith("sqlite") else RawSqlite(sqlite_path(url))
    seconds = sum(timed(raw, raw.ready(rows[first : first + WINDOW], WINDOW)) for first in range(0, len(rows), WINDOW))
    raw.close()
    return len(rows) / seconds


def bare_read(source: Store) -> tuple[int, float]:
    """Read every row of every table and do nothing with it; return how many there are, and a second."""
    begin, rows = time.perf_counter(), 0
    for table in TABLES:
        for keys in partitions(source, table):
            rows += sum(1 for _ in source.select(table, keys))
    return rows, rows / (time.perf_counter() - begin)


def measure(source_url: str, target_url: str, bare_url: str, folder: Path, given: argparse.Namespace) -> None:
    source, target = opened(source_url), opened(target_url)
    begin = time.perf_counter()
    events = fill(source, given.events)
    print(f"{events:,} events made and stored in {time.perf_counter() - begin:.0f} s", flush=True)
    rows, read = bare_read(source)
    print(f"bare read: {rows:,} rows, {read:,.0f} rows/s", flush=True)
    seconds, cpu, peak = command("backup", str(folder), "--store", source_url)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    rate = f"{rows / seconds:,.0f} rows/s ({rows / seconds / read:.2f} of the bare read)"
    files = f"{size:,.0f} MB in {len(list(folder.iterdir()))} files"
    print(f"backup: {seconds:.0f} s, {events / seconds:,.0f} events/s, {rate}, {cpu / rows * 1e6:.0f} us of CPU a row, "
          f"peak {peak:.0f} MB; {files}", flush=True)  # fmt: skip
    opened(bare_url).close()
    write = bare_write(bare_url, source, given.bare)
    print(f"bare write: {write:,.0f} rows/s", flush=True)
    for which in ("restore", "restore again")[: 1 if given.once else 2]:
        seconds, cpu, peak = command("restore", str(folder), "--store", target_url, "--no-wait")
        print(f"{which}: {seconds:.0f} s, {events / seconds:,.0f} events/s, {rows / seconds:,.0f} rows/s "
              f"({rows / seconds / write:.2f} of the bare write), {cpu / rows * 1e6:.0f} us of CPU a row, peak "
              f"{peak:.0f} MB", flush=True)  # fmt: skip
    compare(source, target)
    source.close()
    target.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--store", default="", help="a CQL database, in whose keyspaces *_a and *_b rows are written")
    parser.add_argument("--turn", action="store_true", help="from CQL into SQLite")
    parser.add_argument("--bare", type=int, default=100_000, help="rows of each table that are written barely")
    parser.add_argument("--once", action="store_true", help="restore once, and not a second time")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cql = given.store or stack.enter_context(CassandraServer(durable=False)).url("bench")
        base, _, options = cql.partition("?")
        cql_urls = [f"{base}_{name}?{options}" for name in "ab"]
        sqlite_urls = [f"sqlite:///{folder}/{name}.db" for name in "ab"]
        source, (target, bare) = (cql_urls[0], sqlite_urls) if given.turn else (sqlite_urls[0], cql_urls)
        measure(source, target, bare, folder / "backup", given)


if __name__ == "__main__":
    main()
