"""The real servers serve, keep what they acknowledged, and are missed by name where they cannot run."""

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tests.servers import CassandraServer, KafkaServer, ServerError
from tests.servers.cql import cql_session, server_url, with_keyspace
from tests.servers.fetch import Distribution, FetchError, fetch
from tests.servers.ports import CANDIDATES, free_ports

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60
SOME_SERVER = Distribution("some", "1.0", ("org.example:some:1.0",))
SCHEMA = (
    "CREATE KEYSPACE {ks} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
    "CREATE TABLE {ks}.calls (id text, seq int, stage text, PRIMARY KEY (id, seq))",
    "CREATE MATERIALIZED VIEW {ks}.by_stage AS SELECT * FROM {ks}.calls"
    " WHERE stage IS NOT NULL AND id IS NOT NULL AND seq IS NOT NULL PRIMARY KEY (stage, id, seq)",
)


def test_kafka_keeps_acknowledged_messages_through_a_restart(own_kafka: KafkaServer) -> None:
    """A message acknowledged before a stop is read after the start, at the same address."""
    address = own_kafka.bootstrap
    _create_topic(address, "kept-through-restart")
    _produce(address, "kept-through-restart", b"before")
    own_kafka.restart()
    assert own_kafka.bootstrap == address
    assert _consume(address, "kept-through-restart") == b"before"


def test_kafka_keeps_acknowledged_messages_through_a_kill(own_kafka: KafkaServer) -> None:
    """A message acknowledged just before kill -9 is read after the start."""
    _create_topic(own_kafka.bootstrap, "kept-through-kill")
    _produce(own_kafka.bootstrap, "kept-through-kill", b"before")
    own_kafka.kill()
    own_kafka.start()
    assert _consume(own_kafka.bootstrap, "kept-through-kill") == b"before"


def test_a_paused_kafka_acknowledges_only_after_resume(own_kafka: KafkaServer) -> None:
    """While the broker is frozen nothing is acknowledged; afterwards what was sent meanwhile is."""
    _create_topic(own_kafka.bootstrap, "paused")
    producer = _producer(own_kafka.bootstrap)
    errors: list[object] = []
    producer.produce("paused", b"first", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(DEADLINE_S) == 0
    own_kafka.pause()
    producer.produce("paused", b"second", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(1) == 1
    assert errors == [None]
    own_kafka.resume()
    assert producer.flush(DEADLINE_S) == 0
    assert errors == [None, None]


def test_topics_with_the_prefix_can_be_created_and_used(brokers: str, topic_prefix: str) -> None:
    """The shared broker serves a topic under the test's own prefix."""
    _create_topic(brokers, f"{topic_prefix}calls")
    _produce(brokers, f"{topic_prefix}calls", b"hello")
    assert _consume(brokers, f"{topic_prefix}calls") == b"hello"


def test_cassandra_reads_back_through_a_materialized_view(cql_url: str, cql_admin: Any) -> None:
    """A row written to the table is found in its view."""
    _create_schema(cql_admin, urlsplit(cql_url).path.strip("/"))
    with cql_session(cql_url) as session:
        session.execute("INSERT INTO calls (id, seq, stage) VALUES ('call-1', 1, 'stt')")
        query = "SELECT id, seq FROM by_stage WHERE stage = 'stt'"
        assert _until(lambda: [tuple(row) for row in session.execute(query)]) == [("call-1", 1)]


def test_cassandra_keeps_acknowledged_rows_through_a_kill(own_cassandra: CassandraServer) -> None:
    """Every row acknowledged before kill -9 is there after the start, the very last ones too."""
    with cql_session(own_cassandra.url()) as session:
        _create_schema(session, "kept")
        insert = session.prepare("INSERT INTO kept.calls (id, seq, stage) VALUES ('call-1', ?, 'llm')")
        for seq in range(200):
            session.execute(insert, (seq,))
        own_cassandra.kill()
    own_cassandra.start()
    with cql_session(own_cassandra.url("kept")) as session:
        rows = session.execute("SELECT seq FROM calls WHERE id = 'call-1'")
        assert [row.seq for row in rows] == list(range(200))


def test_free_ports_are_not_those_of_outgoing_connections() -> None:
    """Picked ports differ and lie where no system puts a client's end."""
    ports = free_ports(4)
    assert len(set(ports)) == 4
    assert set(ports) <= set(CANDIDATES)


def test_a_url_names_its_hosts_keyspace_and_data_centre() -> None:
    """A URL's keyspace is left out and put in; what is no such URL is refused by its source's name."""
    base = server_url("scylla://a,b:9042/any?local_dc=dc1", "VOICELOG_TEST_CQL")
    assert base == "scylla://a,b:9042?local_dc=dc1"
    assert with_keyspace(base, "ks") == "scylla://a,b:9042/ks?local_dc=dc1"
    with pytest.raises(ValueError, match="VOICELOG_TEST_CQL is 'localhost:9042', expected is a URL such as"):
        server_url("localhost:9042", "VOICELOG_TEST_CQL")


def test_starts_at_the_same_time_fetch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that need the same jars wait for one Maven, and later ones find them in the cache."""
    runs = _fake_maven(tmp_path, monkeypatch, 'mkdir -p "$lib" && : > "$lib/server.jar"')
    with ThreadPoolExecutor(2) as pool:
        libs = set(pool.map(fetch, [SOME_SERVER] * 4))
    assert libs == {tmp_path / "cache" / "some-1.0" / "lib"}
    assert [jar.name for jar in libs.pop().iterdir()] == ["server.jar"]
    assert runs.read_text() == "run\n"


def test_a_failed_fetch_quotes_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-filled directory is never taken for a server."""
    _fake_maven(tmp_path, monkeypatch, 'mkdir -p "$lib" && : > "$lib/half.jar"; echo no such artifact; exit 3')
    with pytest.raises(FetchError, match=r"fetching some 1\.0 .* failed with status 3.*\s+no such artifact"):
        fetch(SOME_SERVER)
    assert not SOME_SERVER.is_fetched
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".some-1.0.lock"]


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv (util-linux)")
@pytest.mark.parametrize("late", [False, True], ids=["at-once", "late"])
def test_a_server_dies_with_a_killed_test_run(tmp_path: Path, late: bool) -> None:
    """SIGKILL, which no atexit sees, leaves no server, not even where it comes before setpriv has asked for that."""
    code = (
        "import os, signal, pathlib; from tests.servers.process import spawn; here = pathlib.Path.cwd();"
        "process = spawn(['sleep', '600'], here / 'log', here);"
        "print(process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (_late_setpriv(tmp_path) if late else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert _ends_in_time(int(run.stdout))


def _late_setpriv(directory: Path) -> dict[str, str]:
    late = directory / "setpriv"
    late.write_text(f'#!/bin/sh\nsleep 0.3\nexec {shutil.which("setpriv")} "$@"\n')
    late.chmod(0o755)
    return {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}


def test_a_server_that_cannot_start_says_why(cassandra_server: CassandraServer) -> None:
    """The error has the end of the log, where the server says what is wrong."""
    server = type(cassandra_server)(jvm_options=["-Xmx1m"])
    with pytest.raises(
        ServerError, match=r"ended with status 1 instead of answering; the end of its log .*\s.*\s.*heap"
    ):
        server.start()
    server.close()
    assert not server.home.exists()


@pytest.mark.parametrize(("ci", "status"), [("", pytest.ExitCode.OK), ("true", pytest.ExitCode.TESTS_FAILED)])
def test_without_java_real_tests_are_skipped_by_name(tmp_path: Path, ci: str, status: int) -> None:
    """The last lines name each skipped test, what is missing and how to get it; in CI the run has failed."""
    run = _run_pytest_without_java(tmp_path, ci)
    last_lines = run.stdout.splitlines()[-6:]
    assert run.returncode == status, run.stdout + run.stderr
    assert any(line.startswith("skipped: ") and "::test_needs_kafka" in line for line in last_lines)
    assert any(
        line.startswith("2 real-server tests skipped: KafkaServer: java is missing: install OpenJDK 17")
        and line.endswith("or set VOICELOG_TEST_BROKERS")
        for line in last_lines
    )
    assert any(line.startswith("1 real-server test skipped: CassandraServer: java is") for line in last_lines)
    assert ("this run has failed" in last_lines[-1]) == bool(ci)


def _run_pytest_without_java(directory: Path, ci: str) -> "subprocess.CompletedProcess[str]":
    (directory / "bin").mkdir()
    (directory / "test_it.py").write_text(
        "def test_needs_kafka(brokers): ...\n"
        "def test_needs_a_topic(topic_prefix): ...\n"
        "def test_needs_cassandra(cql_url): ...\n"
        "def test_needs_nothing(): ...\n"
    )
    left_out = {"CI", "JAVA_HOME", "VOICELOG_TEST_BROKERS", "VOICELOG_TEST_CQL"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"PATH": str(directory / "bin"), "CI": ci, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.conftest_servers",
        "--rootdir",
        str(directory),
        "--import-mode=importlib",
        str(directory),
    ]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def _fake_maven(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    (directory / "bin").mkdir()
    runs = directory / "runs"
    maven = directory / "bin" / "mvn"
    maven.write_text(f"""#!/bin/sh
for argument; do case $argument in -DoutputDirectory=*) lib=${{argument#*=}};; esac; done
echo run >> "{runs}"
{script}
""")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", str(maven.parent), prepend=os.pathsep)
    monkeypatch.setenv("VOICELOG_TEST_CACHE", str(directory / "cache"))
    return runs


def _ends_in_time(pid: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], DEADLINE_S)[0])
    finally:
        os.close(process)


def _until(look: Callable[[], list[object]]) -> list[object]:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := look()) and time.monotonic() < deadline:
        pass
    return found


def _create_schema(session: Any, keyspace: str) -> None:
    for statement in SCHEMA:
        session.execute(statement.format(ks=keyspace))


def _create_topic(brokers: str, name: str) -> None:
    client = AdminClient({"bootstrap.servers": brokers})
    client.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])[name].result(DEADLINE_S)


def _producer(brokers: str) -> Producer:
    return Producer({"bootstrap.servers": brokers, "acks": "all", "linger.ms": 0})


def _produce(brokers: str, topic: str, value: bytes) -> None:
    errors: list[object] = []
    producer = _producer(brokers)
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(DEADLINE_S) == 0
    assert errors == [None]


def _consume(brokers: str, topic: str) -> bytes | None:
    group = {"group.id": f"{topic}-reader", "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": brokers, **group})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(DEADLINE_S)
        assert message is not None, f"nothing came from {topic} in {DEADLINE_S} s"
        assert message.error() is None
        return message.value()
    finally:
        consumer.close()
