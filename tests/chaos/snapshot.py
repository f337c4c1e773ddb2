"""Every row of every table, read past the sink's own code by each database's driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cassandra.cluster import EXEC_PROFILE_DEFAULT
from cassandra.query import dict_factory
from tests.servers.cql import cql_session

EPOCH = datetime(1970, 1, 1)
TABLES = (
    "voice_interactions", "performance_metrics", "error_logs", "system_health", "session_summaries", "sessions_by_day",
    "metric_rollups",
)  # fmt: skip
VIEW = "interactions_by_stage"

Rows = list[dict[str, Any]]
Snapshot = dict[str, Rows]


def snapshot(store: str, tables: Iterable[str] = (*TABLES, VIEW)) -> Snapshot:
    """Return the rows of these tables, sorted; a moment is epoch milliseconds as in the rows that the sink writes."""
    read = _read_sqlite if store.startswith("sqlite:") else _read_cql
    return {table: sorted(rows, key=repr) for table, rows in read(store, tables).items()}


def _read_sqlite(store: str, tables: Iterable[str]) -> Snapshot:
    with closing(sqlite3.connect(f"file:{store.removeprefix('sqlite:///')}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return {table: [dict(row) for row in db.execute(f"SELECT * FROM {table}")] for table in tables}


def _read_cql(store: str, tables: Iterable[str]) -> Snapshot:
    with cql_session(store) as session:
        session.default_fetch_size = 1000
        profile = session.execution_profile_clone_update(EXEC_PROFILE_DEFAULT, row_factory=dict_factory)
        keyspace = urlsplit(store).path.strip("/")
        found = {
            table: session.execute(f'SELECT * FROM "{keyspace}".{table}', execution_profile=profile) for table in tables
        }
        return {table: [_plain(row) for row in rows] for table, rows in found.items()}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (value - EPOCH) // timedelta(milliseconds=1) if isinstance(value, datetime) else value
        for name, value in row.items()
    }
