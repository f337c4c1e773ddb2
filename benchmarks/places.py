"""Where the benchmark's sink reads and writes: topics of its own, tables for it, and others for the bare driver."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.raw_stores import RawCql, RawSqlite
from benchmarks.sink_process import SinkProcess
from tests.running import sink
from tests.servers.cql import cql_session, drop_keyspace, with_keyspace
from tests.servers.topics import delete_topics

from voicelog.settings import load
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Store

ROWS_PER_EVENT = 3.5


class Place:
    """One store of a run: the sink's tables and the bare driver's, and the topics."""

    def __init__(self, store: str, brokers: str, cql: str, folder: Path) -> None:
        self.store = store
        self.brokers = brokers
        self.run = f"b{secrets.token_hex(3)}"
        self.prefix = f"{self.run}-"
        self._cql = cql
        self._folder = folder
        self.window_rows = int(ROWS_PER_EVENT * load({}, {})[0].batch_max_events)
        """The bare driver gathers as many rows as the sink does before it groups them by partition."""

    @classmethod
    @contextmanager
    def made(cls, store: str, brokers: str, cql: str, folder: Path) -> Iterator[Place]:
        """Make topics and tables for the length of the block."""
        place = cls(store, brokers, cql, folder)
        try:
            for kind in ("sink", "raw"):
                ended = sink("init", **place.settings(kind))
                assert ended.returncode == 0, ended.stdout + ended.stderr
            yield place
        finally:
            place._clean()

    def settings(self, kind: str = "sink") -> dict[str, Any]:
        """Return the settings of a sink process: the benchmark's store, everything else as it is by default."""
        return {"brokers": self.brokers, "topic_prefix": self.prefix, "group": self.run, "store": self._url(kind)}

    def _url(self, kind: str) -> str:
        if self.store == "sqlite":
            return f"sqlite:///{self._path(kind)}"
        return with_keyspace(self._cql, f"{self.run}_{kind}")

    def _path(self, kind: str) -> Path:
        return self._folder / f"{self.run}-{kind}.db"

    def _clean(self) -> None:
        delete_topics(self.brokers, self.prefix)
        if self.store == "cql":
            with cql_session(self._cql) as session:
                for kind in ("sink", "raw"):
                    drop_keyspace(session, f"{self.run}_{kind}")

    @contextmanager
    def sink(self) -> Iterator[SinkProcess]:
        """Run the sink for the length of the block."""
        process = SinkProcess(self._folder / f"{secrets.token_hex(4)}.log", self.settings())
        try:
            yield process
            process.stop()
        finally:
            process.kill()

    @contextmanager
    def raw(self) -> Iterator[RawCql | RawSqlite]:
        """Give the bare driver for the length of the block."""
        raw = RawCql(self._url("raw")) if self.store == "cql" else RawSqlite(str(self._path("raw")))
        try:
            yield raw
        finally:
            raw.close()

    @contextmanager
    def reader(self) -> Iterator[Store]:
        """Give the sink's store, open for reading, for the length of the block."""
        store = make_store(load({"store": self._url("sink")}, {})[0])
        store.open(30_000)
        try:
            yield store
        finally:
            store.close()
