"""The CQL schema as the server sees it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.voicelog_sink.stores.cql_kit import Make, keyspace_of, row, sessions

from voicelog_sink.stores import cql_ddl, cql_schema
from voicelog_sink.stores.base import Difference, StoreMisconfigured, StoreUnavailable
from voicelog_sink.stores.cql_files import Migration, migrations


def test_files_make_exactly_the_tables_of_tables_py(make: Make, cql_url: str, cql_admin: Any) -> None:
    make().init()
    live = cql_schema.live(lambda *args: list(cql_admin.execute(*args)), keyspace_of(cql_url))
    del live[cql_ddl.SCHEMA_MIGRATIONS]
    assert live == {shape.name: shape for shape in cql_ddl.expected(90)}


def test_half_applied_schema_is_completed(make: Make, cql_url: str, cql_admin: Any) -> None:
    store = make()
    keyspace = keyspace_of(cql_url)
    values = cql_ddl.placeholders(keyspace, 90)
    cql_admin.execute(cql_ddl.create_keyspace(keyspace, {"datacenter1": 1}, scylla=False))
    for migration in migrations()[:3]:
        for statement in migration.statements(values):
            cql_admin.execute(statement)
    done = store.init()
    assert done == [f"applied cql/{migration.title}.cql" for migration in migrations()]
    assert store.check() == []


def test_file_that_changed_after_it_was_applied_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()
    store.init()
    changed = [Migration(m.version, m.name, m.text + "\n" * (m.version == 4)) for m in migrations()]
    changed.append(Migration(len(changed) + 1, "more", ""))
    monkeypatch.setattr(cql_schema, "migrations", lambda: changed)
    remedy = "put the file back as it was, and say the change in a file of its own"
    assert store.check() == [
        Difference("cql/004_session_summaries.cql was changed after it was applied", remedy),
        Difference(f"cql/{len(changed):03d}_more.cql is not applied", "voicelog-sink init --only store"),
    ]
    assert store.init() == [f"applied cql/{len(changed):03d}_more.cql"]


def test_compaction_and_grace_that_were_changed_are_named_and_set_back(
    make: Make, cql_url: str, cql_admin: Any
) -> None:
    store = make()
    store.init()
    change = "WITH compaction = {'class': 'SizeTieredCompactionStrategy'} AND gc_grace_seconds = 60"
    cql_admin.execute(f"ALTER TABLE {keyspace_of(cql_url)}.error_logs {change}")
    cql_admin.execute(f"ALTER MATERIALIZED VIEW {keyspace_of(cql_url)}.interactions_by_stage {change}")
    windows = "TimeWindowCompactionStrategy, 3 DAYS"
    assert {(d.what, d.remedy) for d in store.check()} == {
        (f"{what}: {difference}", "voicelog-sink init --only store")
        for what in ("table error_logs", "materialized view interactions_by_stage")
        for difference in (
            f"compaction is SizeTieredCompactionStrategy instead of {windows}",
            "gc_grace_seconds is 60 instead of 864000",
        )
    }
    assert len(store.init()) == 2
    assert store.check() == []


def test_wrong_key_and_order_are_named(make: Make, cql_url: str, cql_admin: Any) -> None:
    store = make()
    store.init()
    keyspace = keyspace_of(cql_url)
    options = "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 3600"
    cql_admin.execute(f"DROP TABLE {keyspace}.derived_pending")
    cql_admin.execute(
        f"CREATE TABLE {keyspace}.derived_pending (bucket int, key text, sink_id text, added_at timestamp, "
        f"PRIMARY KEY ((bucket), key, sink_id)) WITH CLUSTERING ORDER BY (key DESC, sink_id ASC) AND {options}"
    )
    cql_admin.execute(f"DROP TABLE {keyspace}.erasures")
    cql_admin.execute(
        f"CREATE TABLE {keyspace}.erasures (subject text, kind text, erased_at timestamp, reason text, "
        f"PRIMARY KEY (subject, kind)) WITH {options.replace('3600', '864000')}"
    )
    assert [d.what for d in store.check()] == [
        "table erasures: its key is ((subject), kind) instead of ((subject))",
        "table derived_pending: its rows are ordered descending by key instead of ascending",
    ]


def test_replication_is_what_init_was_told(make: Make, cql_url: str, cql_admin: Any) -> None:
    with pytest.raises(StoreUnavailable, match=r"LOCAL_QUORUM.*'required_replicas': 2"):
        make(cql_replication="datacenter1:2").init()
    query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s"
    [found] = cql_admin.execute(query, (keyspace_of(cql_url),))
    assert dict(found.replication)["datacenter1"] == "2"


def test_datacenter_that_is_not_there_is_named(make: Make, cql_url: str) -> None:
    with pytest.raises(StoreMisconfigured, match="names the datacenter 'mars': expected one of datacenter1"):
        make(cql_replication="mars:3").init()
    with pytest.raises(StoreMisconfigured, match="local_dc is 'mars': expected one of datacenter1"):
        make(cql_url.replace("datacenter1", "mars"))


def test_datacenter_may_be_left_out_of_the_url(make: Make, cql_url: str) -> None:
    store = make(cql_url.partition("?")[0])
    store.init()
    assert store.write([row("a")]) == []
    assert sessions(store, "a") == ["a"]
