"""What CQL alone does with rows: lifetimes, rows that the server refuses."""

from __future__ import annotations

from typing import Any

import pytest
from tests.running import wait_until
from tests.voicelog_sink.stores.cql_kit import Make, keyspace_of, row, sessions

from voicelog_sink.retention import Rule, lifetimes
from voicelog_sink.stores.base import Row, StoreMisconfigured
from voicelog_sink.stores.lifetime import DAY_MS, wall_ms


def test_row_expires_its_lifetime_after_its_ts_and_not_after_the_write(
    make: Make, cql_url: str, cql_admin: Any
) -> None:
    store = make()
    store.init()
    assert store.write([row("a", 1, -80 * DAY_MS, items=1), row("a", 2, 50 * DAY_MS, items=2)]) == []
    summary = {"session_id": "a", "started_at": wall_ms() - 100 * DAY_MS, "rows_read": 3, "turns": 1}
    assert store.write([Row("session_summaries", summary)]) == []
    keyspace = keyspace_of(cql_url)
    left = [r.ttl for r in cql_admin.execute(f"SELECT TTL(items) AS ttl FROM {keyspace}.voice_interactions")]
    left += [r.ttl for r in cql_admin.execute(f"SELECT TTL(turns) AS ttl FROM {keyspace}.session_summaries")]
    assert [days * 86_400 - seconds < 60 for days, seconds in zip((10, 90, 300), left, strict=True)] == [True] * 3
    assert [days * 86_400 >= seconds for days, seconds in zip((10, 90, 300), left, strict=True)] == [True] * 3


def test_replayed_row_keeps_its_expiry(make: Make, cql_url: str, cql_admin: Any) -> None:
    store = make()
    store.init()
    short = row("a", 1, -90 * DAY_MS + 2000, items=1)
    assert store.write([short]) == []
    assert store.write([short]) == []
    wait_until(lambda: sessions(store, "a") == [], "the row expires")


def test_texts_expire_before_their_row_and_its_figures_stay(make: Make, cql_url: str, cql_admin: Any) -> None:
    store = make()
    store.init()
    store.keep_for(lifetimes({"text": Rule("kind", "text", 7)}, 90))
    soon = row("soon", 1, -7 * DAY_MS + 3000, items=1, transcript="my card", stage_hour="llm#h")
    later = row("later", 1, -DAY_MS, items=1, transcript="my card")
    summary = {"session_id": "later", "started_at": wall_ms() - DAY_MS, "rows_read": 3, "turns": 1, "attributes": "{}"}
    assert store.write([soon, later, Row("session_summaries", summary)]) == []
    keyspace = keyspace_of(cql_url)
    asked = "SELECT TTL({}) AS text, TTL({}) AS figure FROM {}.{} WHERE session_id = 'later'"
    for names in (("transcript", "items"), ("attributes", "turns")):
        table = "voice_interactions" if "items" in names else "session_summaries"
        [left] = cql_admin.execute(asked.format(*names, keyspace, table))
        days = 89 if "items" in names else 399
        assert 0 <= 6 * 86_400 - left.text < 60
        assert 0 <= days * 86_400 - left.figure < 60
    found = [dict(r) for r in store.select("voice_interactions", [{"session_id": "soon"}])]
    assert found[0]["transcript"] == "my card"

    def text() -> Any:
        [left] = store.select("voice_interactions", [{"session_id": "soon"}])
        return left["transcript"]

    wait_until(lambda: text() is None, "the text expires")
    assert list(store.select("voice_interactions", [{"session_id": "soon"}])) == [{**found[0], "transcript": None}]
    assert len(list(store.select("interactions_by_stage", [{"stage_hour": "llm#h"}]))) == 1


def test_row_that_the_server_refuses_is_named_and_the_others_are_stored(make: Make) -> None:
    store = make()
    store.init()
    rows = [row("a", 1), row("a", 2), row("a", 3), row("b"), row("c" * 70_000)]
    rows[1].values["stream_id"] = "s" * 70_000
    rejected = store.write(rows)
    assert [r[0] for r in rejected] == [1, 4]
    assert {r.error for r in rejected} == {"InvalidRequest"}
    assert all(r.message.startswith("table voice_interactions: ") for r in rejected)
    assert sessions(store, "a", "b") == ["a", "a", "b"]


def test_write_of_nothing_but_one_refused_row_is_a_rejection(make: Make) -> None:
    store = make()
    store.init()
    assert [r[0] for r in store.write([row("")])] == [0]


def test_table_that_disappears_between_two_writes_is_a_misconfiguration(
    make: Make, cql_url: str, cql_admin: Any
) -> None:
    store = make()
    store.init()
    health = {"component": "sink", "host": "h", "day": "d", "ts": wall_ms(), "stream_id": "s", "seq": 1}
    assert store.write([Row("system_health", health)]) == []
    cql_admin.execute(f"DROP TABLE {keyspace_of(cql_url)}.system_health")
    with pytest.raises(StoreMisconfigured, match="system_health"):
        store.write([row("a"), Row("system_health", health)])
    store.init()
    assert store.write([row("a"), Row("system_health", health)]) == []
