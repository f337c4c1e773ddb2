"""A backup of every store into every store: each row and each event comes back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.backups import brought, fill, fresh, rows_in, some_calls, taken
from tests.contracts.store_kit import NOW_MS, TTL_DAYS, opened
from tests.servers.cql import cql_session

from voicelog_sink.rows import event_of
from voicelog_sink.stores.base import Store
from voicelog_sink.stores.lifetime import DAY_MS


@pytest.fixture
def own_url(url_of: Callable[[], str]) -> str:
    return url_of()


@pytest.fixture
def target(own_url: str) -> Iterator[Store]:
    store = opened(own_url)
    store.init()
    yield store
    store.close()


def test_backup_comes_back_row_by_row_and_event_by_event_through_either_store(
    own_url: str, target: Store, tmp_path: Path
) -> None:
    calls = some_calls()
    source, back = fresh(tmp_path / "a.db"), fresh(tmp_path / "b.db")
    fill(source, calls)
    taken(source, tmp_path / "first")
    done = brought(target, tmp_path / "first")
    original = rows_in(source)
    assert {name: counts.written for name, counts in done.tables.items()} == {
        name: len(rows) for name, rows in original.items()
    }
    assert rows_in(target) == original
    expected = sorted((event for call in calls for event in call.events), key=lambda e: (e.session_id, e.ts, e.seq))
    events = [event_of(row) for row in rows_in(target)["voice_interactions"]]
    assert sorted(events, key=lambda e: (e.session_id, e.ts, e.seq)) == expected
    taken(target, tmp_path / "second", own_url)
    brought(back, tmp_path / "second")
    assert rows_in(back) == original
    again = brought(target, tmp_path / "second")
    assert {(counts.written, counts.refused) for counts in again.tables.values()} == {(0, 0)}
    if not own_url.startswith("sqlite"):
        lives_no_longer(own_url)
    source.close()
    back.close()


def lives_no_longer(url: str) -> None:
    """Compare what is left of each row's life with its own time, not with that of the restore."""
    with cql_session(url) as session:
        found = list(session.execute("SELECT toUnixTimestamp(ts) AS ts, ttl(type) AS left_s FROM voice_interactions"))
    assert found
    assert all(row.left_s <= (row.ts + TTL_DAYS * DAY_MS - NOW_MS) // 1000 + 1 for row in found)
