"""Workers: several processes that are kept running, share the work, and end together."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.running import ASKABLE, RunningSink, committed, ends, message_of, produce, running_sink, sink, wait_until

from voicelog.errors import ConfigError
from voicelog.events import TOPICS, StageEvent
from voicelog.settings import defaults, load
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.workers import address_of, environ_of

QUICK = f"session.timeout.ms=4000,heartbeat.interval.ms=300,{ASKABLE}"


def given(broker: EmbeddedBroker, path: Path) -> dict[str, Any]:
    return {
        "brokers": broker.address, "store": f"sqlite:///{path}/calls.db", "http": "off", "workers": 2,
        "kafka_config": QUICK, "group_instance_id": "box",
    }  # fmt: skip


def children(running: RunningSink) -> list[int]:
    listed = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path / "calls.db")) as database:
        return int(database.execute("select count(*) from voice_interactions").fetchone()[0])


def events(start: int, count: int) -> list[Any]:
    ts = 1_790_000_000_000_000
    return [
        message_of(StageEvent(session_id=f"s-{n}", stream_id=f"st-{n}", seq=1, ts=ts + n, stage="vad", status="ok"))
        for n in range(start, start + count)
    ]


@pytest.fixture
def broker() -> EmbeddedBroker:
    return EmbeddedBroker()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the children from /proc")
def test_worker_that_is_killed_is_started_anew_and_all_end_with_the_first_signal(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with running_sink(tmp_path / "log", "run", **given(broker, tmp_path)) as running:
        wait_until(lambda: running.output().count(" assigned: ") >= 2, "two members", 60)
        first = children(running)
        assert len(first) == 2
        produce(broker.address, events(0, 200))
        wait_until(lambda: rows(tmp_path) == 200, "200 rows")
        os.kill(first[0], signal.SIGKILL)
        running.wait_for("worker 0 ended with status -9, it is started anew")
        wait_until(lambda: len(children(running)) == 2 and first[0] not in children(running), "a new worker")
        produce(broker.address, events(200, 200))
        wait_until(lambda: rows(tmp_path) == 400, "400 rows")
        pids = children(running)
        assert running.stop(signal.SIGTERM, 30) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert committed(broker.address, "voicelog-sink", TOPICS) == ends(broker.address, TOPICS)


def test_worker_that_says_what_is_wrong_ends_all_with_its_status(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/x.db"
    ended = sink("run", brokers="127.0.0.1:1", store=store, http="off", workers=2, start_timeout_ms=500)
    assert ended.returncode == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in ended.stderr
    assert "the others are stopped" in ended.stderr


def test_each_worker_has_an_address_and_an_instance_of_its_own_and_the_settings_that_were_given() -> None:
    settings = load({"workers": 3, "http": "127.0.0.1:9000", "group_instance_id": "box", "ttl_days": 7}, {})[0]
    second = environ_of(settings, 1)
    assert {name: value for name, value in second.items() if os.environ.get(name) != value} == {
        "VOICELOG_WORKERS": "1", "VOICELOG_HTTP": "127.0.0.1:9001", "VOICELOG_GROUP_INSTANCE_ID": "box-1",
        "VOICELOG_TTL_DAYS": "7",
    }  # fmt: skip


def test_setting_given_as_its_default_is_not_the_environments_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICELOG_STORE", "sqlite:///other.db")
    settings = load({"store": defaults()["store"], "workers": 2})[0]
    assert load({}, environ_of(settings, 0))[0].store == defaults()["store"]


@pytest.mark.parametrize(
    ("http", "third"),
    [("off", "off"), ("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:80", "[::1]:82"), ("0.0.0.0:8080", "0.0.0.0:8082")],
)
def test_workers_serve_http_at_ports_one_after_another(http: str, third: str) -> None:
    assert address_of(http, 2) == third


def test_address_that_is_none_is_told_before_a_worker_starts() -> None:
    with pytest.raises(ConfigError, match="expected host:port"):
        address_of("nowhere", 0)
