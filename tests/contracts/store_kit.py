"""What the suites for all stores share: stores opened, touched by hand, and rows to write."""

from __future__ import annotations

import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.servers.cql import cql_session

from voicelog.settings import load
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.stores.lifetime import DAY_MS, born_column
from voicelog_sink.tables import BLOB, BOOL, INT, REAL, SMALL, TABLES, TEXT, TIME, Table

NOW_MS = time.time_ns() // 1_000_000
TTL_DAYS = 90


def opened(url: str) -> Store:
    store = make_store(load({"store": url, "ttl_days": TTL_DAYS}, {})[0])
    store.open(10_000)
    return store


def by_hand(url: str, statement: str) -> None:
    """Do something to the store that voicelog does not do."""
    if url.startswith("sqlite"):
        db = sqlite3.connect(Path(url.removeprefix("sqlite:///")))
        db.execute(statement)
        db.commit()
        db.close()
        return
    with cql_session(url) as session:
        session.execute(statement)


def unique() -> str:
    return secrets.token_hex(8)


def whole(table: str, **values: Any) -> Values:
    """Return the row as a store gives it back."""
    return {**dict.fromkeys(TABLES[table].columns), **values}


def read(store: Store, table: str, *partitions: Values, **bounds: Any) -> list[Values]:
    key = TABLES[table].partition_key
    return list(store.select(table, [{name: p[name] for name in key} for p in partitions], **bounds))


def interaction(session: str, at_ms: int = 0, **values: Any) -> Values:
    given = {"session_id": session, "ts": NOW_MS + at_ms, "stream_id": "s1", "seq": 1, "type": "llm_request", "v": 1}
    return {**given, **values}


def summary(session: str, rows_read: int, **values: Any) -> Values:
    return {"session_id": session, "started_at": NOW_MS, "rows_read": rows_read, **values}


def error(service: str, at_ms: int, **values: Any) -> Values:
    key = {"service": service, "hour": "2026-11-22T10", "shard": 3, "ts": NOW_MS + at_ms, "stream_id": "s1", "seq": 1}
    return {**key, **values}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    TEXT: texts,
    INT: st.integers(-(2**63), 2**63 - 1),
    SMALL: st.integers(-(2**31), 2**31 - 1),
    REAL: st.floats(allow_nan=False),
    BOOL: st.booleans(),
    TIME: st.integers(0, 4_102_444_800_000),
    BLOB: st.binary(max_size=30),
}


def values_of(table: Table) -> st.SearchStrategy[Values]:
    """Return rows of a table: any value of each column's type, absent and null ones too; alive, of any version."""
    fixed = {born_column(table): st.integers(NOW_MS - 89 * DAY_MS, NOW_MS + DAY_MS)}
    if table.version:
        fixed[table.version] = st.integers(0, 2**50)
    if len(table.partition_key) == 1 and table.columns[table.partition_key[0]] == TEXT:
        fixed[table.partition_key[0]] = texts.filter(bool)
    needed = {name: fixed.get(name, OF_TYPE[table.columns[name]]) for name in {*table.key, *fixed}}
    others = {name: st.none() | OF_TYPE[kind] for name, kind in table.columns.items() if name not in needed}
    return st.fixed_dictionaries(needed, optional=others)
