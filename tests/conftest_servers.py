"""Fixtures that give tests a real Kafka broker and a real CQL database, or skip where none can run.

Servers start when the first test needs them and end with the run. VOICELOG_TEST_BROKERS (host:port, …) and
VOICELOG_TEST_CQL (scylla://host:port?local_dc=dc) point the tests at servers that are there already.
"""

import os
import secrets
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import pytest

from tests.servers import CassandraServer, JavaServer, KafkaServer
from tests.servers.cql import cql_session, drop_keyspace, server_url, with_keyspace
from tests.servers.topics import delete_topics

SKIPPED = "no real server"
TOGETHER = ("example", "packaging")
"""Markers whose tests share an installation that a second process would make again."""
ServerT = TypeVar("ServerT", bound=JavaServer)
OWN = ("own_kafka", "own_cassandra")
OF_KAFKA = frozenset({"kafka_server", "brokers", "topic_prefix"})
OF_CASSANDRA = frozenset({"cassandra_server", "cql_base_url", "cql_admin", "cql_url"})
ASK_FOR_CASSANDRA = frozenset({"cql", "cassandra", "scylla"})
"""Values of a parameter with which a test's fixtures ask for the database."""


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """The run's Kafka; a test that harms one takes own_kafka."""
    yield from _served(KafkaServer, "VOICELOG_TEST_BROKERS")


@pytest.fixture(scope="session")
def _harmed_kafka() -> Iterator[KafkaServer]:
    yield from _served(KafkaServer)


@pytest.fixture
def own_kafka(_harmed_kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A Kafka to stop, kill and pause, on which no other test relies; it runs again after each."""
    yield _harmed_kafka
    _harmed_kafka.mend()


@pytest.fixture(scope="session")
def brokers(request: pytest.FixtureRequest) -> str:
    """The address of a real broker for `bootstrap.servers`."""
    given = os.environ.get("VOICELOG_TEST_BROKERS")
    return given or str(request.getfixturevalue("kafka_server").bootstrap)


@pytest.fixture
def topic_prefix(brokers: str) -> Iterator[str]:
    """A fresh prefix for the names of topics; they are deleted after the test."""
    prefix = f"t{secrets.token_hex(4)}-"
    yield prefix
    delete_topics(brokers, prefix)


@pytest.fixture(scope="session")
def cassandra_server() -> Iterator[CassandraServer]:
    """The run's Cassandra, which forgets when it is killed: a test that harms one takes own_cassandra."""
    yield from _served(CassandraServer, "VOICELOG_TEST_CQL", durable=False)


@pytest.fixture(scope="session")
def _harmed_cassandra() -> Iterator[CassandraServer]:
    yield from _served(CassandraServer)


@pytest.fixture
def own_cassandra(_harmed_cassandra: CassandraServer) -> Iterator[CassandraServer]:
    """A Cassandra to stop, kill and pause, on which no other test relies; it runs again after each."""
    yield _harmed_cassandra
    _harmed_cassandra.mend()


@pytest.fixture(scope="session")
def cql_base_url(request: pytest.FixtureRequest) -> str:
    """The URL of a real CQL server, without a keyspace."""
    given = os.environ.get("VOICELOG_TEST_CQL")
    if given:
        return server_url(given, "VOICELOG_TEST_CQL")
    return str(request.getfixturevalue("cassandra_server").url())


@pytest.fixture(scope="session")
def cql_admin(cql_base_url: str) -> Iterator[Any]:
    """A driver session on the CQL server, in no keyspace, for looking from outside."""
    with cql_session(cql_base_url) as session:
        yield session


@pytest.fixture
def cql_url(cql_base_url: str, cql_admin: Any) -> Iterator[str]:
    """The URL of a fresh keyspace that is yet to be created; it is dropped after the test."""
    keyspace = f"t{secrets.token_hex(4)}"
    yield with_keyspace(cql_base_url, keyspace)
    drop_keyspace(cql_admin, keyspace)


def pytest_configure(config: pytest.Config) -> None:
    """Counts the skipped tests, in the one process that reports."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_SkippedTests(config), "voicelog-skipped-real-tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs a server, before -m selects, and keeps together what shares one when several processes test."""
    for item in items:
        if OF_KAFKA.union(OF_CASSANDRA, OWN).intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)
        group = None if item.get_closest_marker("chaos") else _group(item)  # those are long: each process has servers
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str | None:
    """Name the group that one process tests; none for a test that shares nothing.

    Kafka starts soon: the tests that need no database have one of their own, in another process perhaps.
    """
    if item.get_closest_marker("real"):
        fixtures = frozenset(getattr(item, "fixturenames", ()))
        if OF_CASSANDRA & fixtures or _asks_for_cassandra(item):
            return "cassandra"
        return next((name for name in OWN if name in fixtures), "kafka")
    return next((name for name in TOGETHER if item.get_closest_marker(name)), None)


def _asks_for_cassandra(item: pytest.Item) -> bool:
    given = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    return any(isinstance(value, str) and value in ASK_FOR_CASSANDRA for value in given)


class _SkippedTests:
    """Says at the very end which tests had no server, and fails the run for it in CI."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reasons: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            _, found, reason = report.longrepr[2].partition(f"{SKIPPED}: ")
            if found:
                self._reasons.setdefault(reason, []).append(report.nodeid)

    # Around the terminal's own hook, so that these are the last lines.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        yield
        if not self._reasons:
            return
        if _in_ci():
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        self._say()

    def _say(self) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            for line in self._lines():
                terminal.write_line(line, yellow=not _in_ci(), red=_in_ci())

    def _lines(self) -> Iterator[str]:
        for names in self._reasons.values():
            yield from (f"skipped: {name}" for name in names)
        for reason, names in self._reasons.items():
            yield f"{len(names)} real-server {'test' if len(names) == 1 else 'tests'} skipped: {reason}"
        if _in_ci():
            yield "CI is set, and there a skipped real-server test is a failure: this run has failed."


def _served(server: type[ServerT], or_set: str = "", **given: Any) -> Iterator[ServerT]:
    missing = server.missing()
    if missing:
        pytest.skip(f"{SKIPPED}: {server.__name__}: {missing}" + (f", or set {or_set}" if or_set else ""))
    with server(**given) as running:
        yield running


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"true", "1", "yes"}
