"""Two daemons with one group: what a partition's old owner has taken is seen through, or read again by the new one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.running import ASKABLE, committed, ends, message_of, produce, wait_until

from voicelog.events import TOPICS, StageEvent
from voicelog.settings import load
from voicelog_sink import daemon as module
from voicelog_sink.daemon import Daemon
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.metrics import Metrics
from voicelog_sink.status import Status

# That broker lets a rebalance last for a second less than the session timeout.
QUICK = f"session.timeout.ms=4000,heartbeat.interval.ms=300,{ASKABLE}"
EVENTS = 300


class Member:
    """A daemon that ticks in a thread of its own."""

    def __init__(self, broker: EmbeddedBroker, path: Path) -> None:
        given = {
            "brokers": broker.address,
            "store": f"sqlite:///{path}",
            "kafka_config": QUICK,
            "drain_timeout_ms": 5000,
        }
        self.daemon = Daemon(load(given, {})[0], Metrics(), Status())
        self.failure: BaseException | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def make_ready(self) -> None:
        """Do all of the startup but for joining the group, which `join` does."""
        self._subscribe, self.daemon.consumer.subscribe = self.daemon.consumer.subscribe, lambda: None
        self.daemon.startup()

    def join(self) -> None:
        self._subscribe()
        self._thread.start()

    def _run(self) -> None:
        try:
            self.daemon.run(until=self._end.is_set)
            self.daemon.drain()
        except BaseException as exc:
            self.failure = exc

    def end(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(60)
        self.daemon.close()
        assert self.failure is None, self.failure

    def assigned(self) -> float:
        return self.daemon.metrics.value("assigned_partitions")

    def count(self, name: str, **labels: str) -> float:
        return self.daemon.metrics.value(name, **labels)


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], object]]:
    """Hold the database's lock; gives what lets go of it."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as database:
        database.execute("begin immediate")
        yield lambda: database.execute("rollback") if database.in_transaction else None


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("voicelog_sink.stores.sqlite.BUSY_TIMEOUT_MS", 100)
    return tmp_path / "calls.db"


@pytest.mark.parametrize("patience_s", [0.5, 30.0], ids=["store stays away", "store comes back"])
def test_what_the_old_owner_has_taken_is_stored_whether_or_not_it_ends_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(module, "REVOKE_DRAIN_S", patience_s)
    broker = EmbeddedBroker()
    old, new = Member(broker, path), Member(broker, path)
    try:
        old.make_ready()
        new.make_ready()
        old.join()
        wait_until(lambda: old.assigned() == 16, "an assignment")
        with locked(path) as let_go:
            produce(broker.address, [message_of(event(n)) for n in range(EVENTS)])
            wait_until(lambda: old.count("inflight_bytes") > 0, "a batch that waits")
            assert committed(broker.address, "voicelog-sink", TOPICS) == {}
            new.join()
            wait_until(lambda: old.count("rebalances_total", event="revoked"), "partitions that are to go")
            if patience_s < 1:
                wait_until(lambda: new.count("assigned_partitions"), "partitions that have gone")
            let_go()
        wait_until(lambda: committed(broker.address, "voicelog-sink", TOPICS) == ends(broker.address, TOPICS), "all")
    finally:
        old.end()
        new.end()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("select count(*) from voice_interactions").fetchone() == (EVENTS,)
    stored = old.count("events_stored_total") + new.count("events_stored_total")
    if patience_s > 1:
        assert (stored, new.count("events_stored_total")) == (EVENTS, 0)
    else:
        # What the old owner had taken of them is read again; it tried to commit none of it.
        assert stored == sum(member.count("consumed_total", topic="voice-events") for member in (old, new))
        assert old.count("commits_total", result="state") == 0


def event(n: int) -> StageEvent:
    ts = 1_790_000_000_000_000 + n
    return StageEvent(session_id=f"s-{n}", stream_id=f"st-{n}", seq=1, ts=ts, stage="vad", duration_ms=1.0, status="ok")
