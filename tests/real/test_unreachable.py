"""What is not there, or not as it should be, ends a command with its status and one sentence."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.calls import calls, messages
from tests.real.sinks import Place, by_call, stored
from tests.running import committed, ends, produce, running_sink, sink, wait_until
from tests.servers.ports import free_ports

pytestmark = pytest.mark.real


def sentence(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence on stderr; log lines come before it, a traceback never."""
    assert "Traceback" not in ended.stderr
    (said,) = (line for line in ended.stderr.splitlines() if line.startswith("voicelog-sink: "))
    return said


@pytest.mark.parametrize("command", ["run", "init"])
def test_broker_that_stays_away_is_waited_for_and_named(command: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    given = {"brokers": f"127.0.0.1:{port}", "store": f"sqlite:///{tmp_path}/x.db", "start_timeout_ms": 2_000}
    start_s = time.monotonic()
    ended = sink(command, **given, http="off")
    assert time.monotonic() - start_s >= 2.0
    assert ended.returncode == 1
    assert sentence(ended).startswith(f"voicelog-sink: no Kafka broker answers at 127.0.0.1:{port} (waited 2 s; ")
    assert sentence(ended).endswith(
        "start it, set VOICELOG_BROKERS or --brokers to where it is, or wait for longer with --start-timeout-ms"
    )


@pytest.mark.parametrize("command", ["run", "init"])
def test_store_that_stays_away_is_waited_for_and_named(
    command: str, brokers: str, topic_prefix: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    place = Place(brokers, topic_prefix, f"scylla://127.0.0.1:{port}/ks?local_dc=datacenter1")
    if command == "run":
        Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/x.db").init()
    start_s = time.monotonic()
    ended = sink(command, **place.settings(start_timeout_ms=3_000))
    assert time.monotonic() - start_s >= 3.0
    assert ended.returncode == 1
    assert sentence(ended).startswith(f"voicelog-sink: no store answers at {place.store} (waited 3 s; ")
    assert "set VOICELOG_STORE or --store to where it is" in sentence(ended)


@pytest.mark.parametrize("only", ["store", "topics"])
def test_init_of_one_does_not_need_the_other(only: str, brokers: str, topic_prefix: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    here, away = f"sqlite:///{tmp_path}/x.db", f"scylla://127.0.0.1:{port}/ks?local_dc=datacenter1"
    place = Place(f"127.0.0.1:{port}", topic_prefix, here) if only == "store" else Place(brokers, topic_prefix, away)
    made = sink("init", "--only", only, **place.settings(start_timeout_ms=10_000))
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.splitlines()[-1] == "ok"
    again = sink("init", "--only", only, "--check", **place.settings(start_timeout_ms=10_000))
    assert (again.returncode, again.stdout) == (0, "ok\n")


def test_topics_that_are_missing_are_named_with_the_remedy(brokers: str, topic_prefix: str, tmp_path: Path) -> None:
    place = Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/x.db")
    ended = sink("run", **place.settings(start_timeout_ms=1_500))
    assert ended.returncode == 1
    assert f"{topic_prefix}stt-results, " in sentence(ended)
    assert f"{topic_prefix}voicelog-dlq (waited 1.5 s): make them with `voicelog-sink init`" in sentence(ended)


def test_schema_that_is_missing_is_named_with_the_remedy(
    brokers: str, topic_prefix: str, cql_url: str, tmp_path: Path
) -> None:
    Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/x.db").init()
    ended = sink("run", **Place(brokers, topic_prefix, cql_url).settings(start_timeout_ms=2_000))
    assert ended.returncode == 1
    assert "voicelog-sink init" in sentence(ended)


@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ({"store": "scylla:///ks"}, 2, "scylla:///ks"),
        ({"store": "scylla://host:port/ks"}, 2, "scylla://host:port/ks"),
        ({"store": "postgres://x"}, 2, "expected sqlite:///path.db or scylla://"),
        ({"brokers": "http://x:1"}, 2, "VOICELOG_BROKERS is 'http://x:1': expected host:port"),
        ({"brokers": ":9092"}, 2, "VOICELOG_BROKERS is ':9092': expected host:port"),
        ({"grup": "x"}, 2, "did you mean group (VOICELOG_GROUP)?"),
        ({"kafka_config": "no.such.setting=1"}, 2, 'No such configuration property: "no.such.setting"'),
        ({"kafka_config": "linger.ms"}, 2, "expected name=value"),
    ],
)
def test_wrong_setting_is_told_at_once(settings: dict[str, Any], status: int, says: str) -> None:
    start_s = time.monotonic()
    ended = sink("run", http="off", **settings)
    assert ended.returncode == status
    assert says in sentence(ended)
    assert time.monotonic() - start_s < 10.0


@pytest.mark.chaos
def test_broker_and_database_that_go_away_while_running_are_waited_for(
    own_kafka: Any, own_cassandra: Any, tmp_path: Path
) -> None:
    place = Place(own_kafka.bootstrap, "", own_cassandra.url().replace("?", "/calls?"))
    place.init()
    sent = calls(40, 25)
    halves = messages(sent)[:500], messages(sent)[500:]
    with running_sink(tmp_path / "log", "run", **place.settings()) as running:
        running.wait_for("assigned: llm-requests")
        own_cassandra.kill()
        produce(place.brokers, halves[0])
        running.wait_for("the store can't be written, its events wait in the topics")
        own_kafka.kill()
        own_cassandra.start()
        own_kafka.start()
        produce(place.brokers, halves[1])

        def done() -> bool:
            return committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics())

        wait_until(done, "every offset committed", 120)
        assert running.stop() == 0
    with place.opened() as store:
        assert stored(store, by_call(sent)) == by_call(sent)
