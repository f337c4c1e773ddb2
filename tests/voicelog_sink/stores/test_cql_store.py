"""What CQL alone does: the schema as the server sees it, lifetimes, a server that is gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest_servers import _served
from tests.running import wait_until
from tests.servers import CassandraServer

from voicelog.settings import load
from voicelog_sink.stores import cql_ddl, cql_schema
from voicelog_sink.stores.base import Difference, Row, Store, StoreMisconfigured, StoreUnavailable
from voicelog_sink.stores.cql_files import Migration, migrations
from voicelog_sink.stores.cql_store import CqlStore
from voicelog_sink.stores.lifetime import DAY_MS, wall_ms

Make = Callable[..., CqlStore]


@pytest.fixture
def make(cql_url: str) -> Iterator[Make]:
    made: list[CqlStore] = []

    def one(url: str = cql_url, **settings: Any) -> CqlStore:
        made.append(CqlStore(load({"store": url, **settings}, {})[0]))
        made[-1].open(10_000)
        return made[-1]

    yield one
    for store in made:
        store.close()


def keyspace_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


def row(session: str, number: int = 1, at_ms: int = 0, **values: Any) -> Row:
    key = {"session_id": session, "ts": wall_ms() + at_ms, "stream_id": "s", "seq": number}
    return Row("voice_interactions", {**key, **values})


def sessions(store: Store, *names: str) -> list[str]:
    return [r["session_id"] for r in store.select("voice_interactions", [{"session_id": name} for name in names])]


# --- the schema


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
        Difference("cql/012_more.cql is not applied", "voicelog-sink init"),
    ]
    assert store.init() == ["applied cql/012_more.cql"]


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
        (f"{what}: {difference}", "voicelog-sink init")
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


# --- rows


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


# --- a server that is gone


def test_server_that_is_not_there_is_unavailable_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = CqlStore(load({"store": f"scylla://127.0.0.1:{port}/ks"}, {})[0])
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"no node answers .*refused.*check that it runs") as caught:
        store.open(2000)
    assert time.monotonic() - started < 4
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    store.close()


def test_server_that_accepts_and_says_nothing_is_unavailable_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = CqlStore(load({"store": f"scylla://127.0.0.1:{silent.getsockname()[1]}/ks"}, {})[0])
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no node answers"):
            store.open(2000)
        assert time.monotonic() - started < 5


def test_host_whose_name_means_nothing_is_unavailable() -> None:
    store = CqlStore(load({"store": "scylla://no-such-host.invalid/ks"}, {})[0])
    with pytest.raises(StoreUnavailable, match=r"no-such-host\.invalid"):
        store.open(2000)


def test_certificate_file_that_is_missing_is_named() -> None:
    store = CqlStore(load({"store": "scylla://127.0.0.1:1/ks", "cql_ca_file": "/none/ca.pem"}, {})[0])
    with pytest.raises(StoreMisconfigured, match=r"TLS files can't be used .*/none/ca.pem.*VOICELOG_CQL_CA_FILE"):
        store.open(2000)


class StrictServer(CassandraServer):
    """A Cassandra that asks for a password, and has views off as they are by default."""

    def prepare(self, jars: Path) -> None:
        super().prepare(jars)
        given = self._yaml.read_text().replace("materialized_views_enabled: true", "")
        self._yaml.write_text(given + "authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer\n")

    def answers(self) -> bool:
        try:
            with_login(self, "cassandra", "cassandra").close()
        except (StoreMisconfigured, StoreUnavailable):
            return False
        return True


def with_login(server: CassandraServer, user: str, password: str) -> CqlStore:
    given = {"store": server.url("calls"), "cql_username": user, "cql_password": password}
    store = CqlStore(load(given, {})[0])
    store.open(10_000)
    return store


@pytest.fixture(scope="module")
def strict_server() -> Iterator[StrictServer]:
    yield from _served(StrictServer)


@pytest.mark.real
def test_refused_login_and_refused_permission_are_misconfigurations(strict_server: StrictServer) -> None:
    with pytest.raises(StoreMisconfigured, match="check VOICELOG_CQL_USERNAME and VOICELOG_CQL_PASSWORD") as caught:
        with_login(strict_server, "cassandra", "wrong-secret")
    assert "wrong-secret" not in str(caught.value)
    admin = with_login(strict_server, "cassandra", "cassandra")
    admin._connection().run("CREATE ROLE bot WITH PASSWORD = 'bot' AND LOGIN = true")
    store = with_login(strict_server, "bot", "bot")
    with pytest.raises(StoreMisconfigured, match=r"Unauthorized: .*; grant the user SELECT and MODIFY"):
        store.init()
    store.close()
    admin.close()


@pytest.mark.real
def test_server_with_views_disabled_says_which_setting_to_change(strict_server: StrictServer) -> None:
    store = with_login(strict_server, "cassandra", "cassandra")
    with pytest.raises(StoreMisconfigured, match=r"set materialized_views_enabled: true in cassandra\.yaml"):
        store.init()
    store.close()


def test_killed_server_is_unavailable_and_the_same_store_goes_on_when_it_is_back(
    own_cassandra: CassandraServer,
) -> None:
    store = CqlStore(load({"store": own_cassandra.url("calls")}, {})[0])
    store.open(10_000)
    store.init()
    assert store.write([row("a")]) == []
    own_cassandra.kill()
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            store.write([row("b", number) for number in range(200)])
    with pytest.raises(StoreUnavailable):
        store.ping()
    with pytest.raises(StoreUnavailable):
        sessions(store, "a")
    assert time.monotonic() - started < 60
    own_cassandra.start()

    def written() -> bool:
        try:
            return store.write([row("b", 1)]) == []
        except StoreUnavailable:
            return False

    wait_until(written, "the store takes rows again")
    assert sessions(store, "a", "b") == ["a", "b"]
    store.close()
