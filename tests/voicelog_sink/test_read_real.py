"""The same calls in the real CQL database and in SQLite: summaries, rollups and all that is read are the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from tests.builders import realistic_call, sqlite_store, troubled_call

from voicelog.settings import load
from voicelog_sink.compare import Side, compared, pairs
from voicelog_sink.derived import Deriver
from voicelog_sink.pending import BUCKETS
from voicelog_sink.queries import call, find, sessions
from voicelog_sink.rows import DAY_MS, rows_of
from voicelog_sink.stats import stats
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.tables import TABLES

pytestmark = pytest.mark.real


@pytest.fixture
def stores(tmp_path: Path, cql_url: str) -> Iterator[tuple[Store, Store]]:
    sqlite = sqlite_store(tmp_path / "calls.db", lambda: int(time.time() * 1000))
    cql = make_store(load({"store": cql_url}, {})[0])
    cql.open(60_000)
    cql.init()
    yield sqlite, cql
    cql.close(), sqlite.close()


def derived(store: Store, table: str) -> list[Values]:
    key = TABLES[table].key
    rows = [row for partition in store.partitions(table) for row in store.select(table, [partition])]
    assert rows
    return sorted(rows, key=lambda row: [str(row[name]) for name in key])


def test_both_stores_give_the_same_calls_back(stores: tuple[Store, Store]) -> None:
    now_ms = int(time.time() * 1000)
    calls = [realistic_call(f"call-{n}", seed=n, start_us=(now_ms - n * 3_600_000) * 1000) for n in range(1, 40)]
    calls.append(troubled_call("call-trouble", start_us=now_ms * 1000))
    events = [event for built in calls for event in built.events]
    answers = []
    for store in stores:
        deriver = Deriver(store, "sink-1")
        rows = [row for event in events for row in rows_of(event)]
        assert store.write([*rows, *deriver.pending(events, now_ms)]) == []
        assert Deriver(store, "sink-2").adopt(now_ms) == 0
        assert deriver.run_all(now_ms) > len(calls)
        assert list(store.select("derived_pending", [{"bucket": bucket} for bucket in range(BUCKETS)])) == []
        listed = sessions(store, now_ms - 3 * DAY_MS, now_ms + DAY_MS, 100)
        found = [find(store, given, now_ms) for given in ("last", "call-tr", "call-39")]
        figures: list[object] = [*stats(store, now_ms - DAY_MS, now_ms + DAY_MS, ("provider", "variant"))]
        whole = Side(now_ms - DAY_MS, now_ms + DAY_MS, {"provider": "deepgram"})
        figures += compared(pairs(store, whole, attrs.evolve(whole, since_ms=now_ms - 3 * DAY_MS), now_ms=now_ms))
        rolled_up = [derived(store, "metric_rollups"), derived(store, "metric_names")]
        answers.append((listed, found, [call(store, built.session_id) for built in calls], figures, rolled_up))
    assert answers[0] == answers[1]
    assert [len(part) for part in answers[0][:3]] == [40, 3, 40]
