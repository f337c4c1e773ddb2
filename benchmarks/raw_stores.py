"""What the bare drivers write of the same rows, made ready beforehand: the limit that the sink is measured beside."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType

from voicelog_sink.stores import ddl
from voicelog_sink.stores.base import Row
from voicelog_sink.stores.url import cql_url
from voicelog_sink.tables import TABLES, TIME

BATCH_ROWS = 32
IN_FLIGHT = 128
TTL_S = 90 * 24 * 3600


class RawCql:
    """The CQL driver alone: prepared statements, single-partition unlogged batches, many in flight."""

    def __init__(self, url: str) -> None:
        place = cql_url(url)
        policy = TokenAwarePolicy(DCAwareRoundRobinPolicy(place.local_dc or ""))
        profile = ExecutionProfile(
            load_balancing_policy=policy, consistency_level=ConsistencyLevel.LOCAL_QUORUM, request_timeout=30
        )
        self._cluster = Cluster(
            [host for host, _ in place.hosts], port=place.hosts[0][1], protocol_version=4,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        )  # fmt: skip
        self._session = self._cluster.connect(place.keyspace)
        self._prepared: dict[tuple[str, tuple[str, ...]], Any] = {}

    def close(self) -> None:
        """Let go of it."""
        self._cluster.shutdown()

    def ready(self, rows: Sequence[Row], window: int) -> list[Any]:
        """Return the batches of these rows, grouped by partition within windows of `window` rows."""
        return [batch for part in _windows(rows, window) for batch in self._batches(part)]

    def _batches(self, rows: Sequence[Row]) -> Iterator[Any]:
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            partition = tuple(row.values[name] for name in TABLES[row.table].partition_key)
            groups.setdefault((row.table, *partition), []).append(row)
        for group in groups.values():
            for first in range(0, len(group), BATCH_ROWS):
                batch = BatchStatement(BatchType.UNLOGGED)
                for row in group[first : first + BATCH_ROWS]:
                    batch.add(self._bound(row))
                yield batch

    def _bound(self, row: Row) -> Any:
        names = tuple(row.values)
        prepared = self._prepared.get((row.table, names))
        if prepared is None:
            places = ", ".join("?" * len(names))
            text = f"INSERT INTO {row.table} ({', '.join(names)}) VALUES ({places}) USING TTL {TTL_S}"
            prepared = self._prepared[row.table, names] = self._session.prepare(text)
        kinds = TABLES[row.table].columns
        return prepared.bind([v / 1000 if kinds[n] == TIME else v for n, v in row.values.items()])

    def write(self, batches: Sequence[Any]) -> None:
        """Send everything and wait for every acknowledgement."""
        free, failures = threading.Semaphore(IN_FLIGHT), []

        def failed(exc: Exception) -> None:
            failures.append(exc)
            free.release()

        for batch in batches:
            free.acquire()
            self._session.execute_async(batch).add_callbacks(lambda _: free.release(), failed)
        for _ in range(IN_FLIGHT):
            free.acquire()
        if failures:
            raise failures[0]


class RawSqlite:
    """sqlite3 alone: executemany on rows of the same columns, a transaction a window, synchronous=FULL."""

    def __init__(self, path: str) -> None:
        self._path = path

    def close(self) -> None:
        """Nothing is held."""

    def ready(self, rows: Sequence[Row], window: int) -> list[Any]:
        """Return the statements and values of these rows, by windows of `window` rows."""
        return [self._groups(part) for part in _windows(rows, window)]

    def _groups(self, rows: Sequence[Row]) -> list[tuple[str, list[tuple[Any, ...]]]]:
        groups: dict[tuple[str, tuple[str, ...]], list[tuple[Any, ...]]] = {}
        for table, values in rows:
            groups.setdefault((table, tuple(values)), []).append(tuple(values.values()))
        return [(ddl.insert(TABLES[table], names), values) for (table, names), values in groups.items()]

    def write(self, windows: Sequence[Any]) -> None:
        """Write everything."""
        with closing(sqlite3.connect(self._path, isolation_level=None, cached_statements=512)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            for groups in windows:
                db.execute("BEGIN IMMEDIATE")
                for statement, values in groups:
                    db.executemany(statement, values)
                db.execute("COMMIT")


def timed(store: RawCql | RawSqlite, ready: list[Any]) -> float:
    """Write what is ready and return the seconds it took."""
    start_s = time.perf_counter()
    store.write(ready)
    return time.perf_counter() - start_s


def _windows(rows: Sequence[Row], window: int) -> Iterator[list[Row]]:
    left = iter(rows)
    while part := list(islice(left, window)):
        yield part
