"""A CQL server that is gone, silent, or wants another login."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest_servers import _served
from tests.running import wait_until
from tests.servers import CassandraServer
from tests.voicelog_sink.stores.cql_kit import row, sessions

from voicelog.settings import load
from voicelog_sink.stores import cql
from voicelog_sink.stores.base import StoreMisconfigured, StoreUnavailable
from voicelog_sink.stores.cql_store import CqlStore


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

    def main(self) -> list[str]:
        return ["-Dcassandra.superuser_setup_delay_ms=0", *super().main()]  # the first login would wait for 10 s

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
@pytest.mark.xdist_group("strict server")
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
@pytest.mark.xdist_group("strict server")
def test_server_with_views_disabled_says_which_setting_to_change(strict_server: StrictServer) -> None:
    store = with_login(strict_server, "cassandra", "cassandra")
    with pytest.raises(StoreMisconfigured, match=r"set materialized_views_enabled: true in cassandra\.yaml"):
        store.init()
    store.close()


def test_killed_server_is_unavailable_and_the_same_store_goes_on_when_it_is_back(
    own_cassandra: CassandraServer,
) -> None:
    store = CqlStore(load({"store": own_cassandra.url("killed")}, {})[0])
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


def test_hanging_server_is_unavailable_after_one_request_timeout(
    own_cassandra: CassandraServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cql, "REQUEST_TIMEOUT_S", 2.0)
    store = CqlStore(load({"store": own_cassandra.url("hanging")}, {})[0])
    store.open(10_000)
    store.init()
    assert store.write([row("a")]) == []
    own_cassandra.pause()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="OperationTimedOut"):
        store.write([row(f"b{number}") for number in range(1000)])
    assert time.monotonic() - started < 5
    own_cassandra.resume()
    assert store.write([row("b0")]) == []
    store.close()
