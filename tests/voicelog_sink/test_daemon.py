"""The daemon with the embedded broker and SQLite: what is stored, what is held back, and how it ends."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.running import ASKABLE, Raw, committed, ends, message_of, produce, read_topic, running_sink, sink, wait_until

from voicelog.events import TOPICS, Event, SessionEnded, SessionStarted, StageEvent, SttResult
from voicelog.settings import Settings, load
from voicelog_sink.breaker import MAX_CONSECUTIVE
from voicelog_sink.daemon import Daemon
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.errors import Unfinished
from voicelog_sink.metrics import Metrics
from voicelog_sink.status import Status
from voicelog_sink.stores.base import StoreMisconfigured, StoreUnavailable

GARBAGE = Raw("stt-results", b"\x00\x01 garbage", b"bad", [("h", b"1")])


def call(session_id: str, events: int) -> list[Event]:
    """Return a call of this many events, a millisecond apart."""
    start_us = int(time.time() * 1e6)

    def common(seq: int) -> dict[str, Any]:
        return {"session_id": session_id, "stream_id": f"st-{session_id}", "seq": seq, "ts": start_us + seq * 1000}

    inner = [
        SttResult(stage="stt", transcript=f"word {seq}", duration_ms=5.0, status="ok", **common(seq))
        if seq % 2
        else StageEvent(stage="vad", duration_ms=1.0, status="ok", **common(seq))
        for seq in range(2, events)
    ]
    return [SessionStarted(**common(1)), *inner, SessionEnded(events_total=events, **common(events))]


def calls(count: int, events: int = 10) -> list[Raw]:
    return [message_of(event) for n in range(count) for event in call(f"call-{n}", events)]


class Setup:
    """A broker, a database file, and a daemon between them."""

    def __init__(self, path: Path, **given: Any) -> None:
        self.broker = EmbeddedBroker()
        self.address = self.broker.address
        self.path = path / "calls.db"
        self.given = {"brokers": self.address, "store": f"sqlite:///{self.path}", "kafka_config": ASKABLE, **given}
        self.settings: Settings = load(self.given, {})[0]
        self.daemon = Daemon(self.settings, Metrics(), Status())

    def rows(self, table: str = "voice_interactions") -> int:
        with closing(sqlite3.connect(self.path)) as database:
            return int(database.execute(f"select count(*) from {table}").fetchone()[0])

    def committed(self) -> dict[tuple[str, int], int]:
        return committed(self.address, "voicelog-sink", TOPICS)

    def retries(self) -> float:
        return self.daemon.metrics.value("store_retries_total", reason="OperationalError")

    def ends(self) -> dict[tuple[str, int], int]:
        return ends(self.address, TOPICS)


def joins_of(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list that will hold how long each wait for the writer's end was allowed to be."""
    waits_s: list[float] = []
    stop = daemon._writer.stop
    monkeypatch.setattr(daemon._writer, "stop", lambda timeout_s: (waits_s.append(timeout_s), stop(timeout_s))[1])
    return waits_s


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path)
    yield setup
    setup.daemon.close()


def test_everything_is_stored_or_dead_lettered_before_its_offset_is_committed(here: Setup) -> None:
    produce(here.address, [*calls(5), GARBAGE])
    here.daemon.startup()
    assert here.committed() == {}
    here.daemon.catch_up()
    here.daemon.drain()
    here.daemon._look()
    assert (here.rows(), here.rows("session_summaries"), here.rows("derived_pending")) == (50, 5, 0)
    (letter,) = read_topic(here.address, "voicelog-dlq")
    assert (letter.value(), letter.key()) == (GARBAGE.value, GARBAGE.key)
    assert here.committed() == here.ends()
    metrics = here.daemon.metrics
    assert metrics.value("events_stored_total") == 50
    assert metrics.value("store_rows_total", table="voice_interactions") == 50
    assert metrics.value("dlq_produced_total", reason="not_json") == 1
    assert metrics.value("decode_errors_total", reason="not_json") == 1
    assert sum(metrics.value("consumed_total", topic=topic) for topic in TOPICS) == 51
    for (topic, number), offset in here.committed().items():
        assert metrics.value("committed_offset", topic=topic, partition=str(number)) == offset
    assert metrics.value("store_request_seconds_count", table="*") >= metrics.value("store_attempts_total") >= 1
    assert metrics.value("rows_per_request_sum") >= 50
    assert metrics.value("inflight_rows") == 0


def test_store_that_is_locked_is_waited_for_and_nothing_is_lost_or_committed_meanwhile(
    here: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicelog_sink.stores.sqlite.BUSY_TIMEOUT_MS", 100)
    here.daemon.startup()
    produce(here.address, calls(5))
    with closing(sqlite3.connect(here.path, isolation_level=None)) as database:
        database.execute("begin immediate")
        wait_until(lambda: (here.daemon.on_tick(), here.retries() >= 3)[1], "three tries")
        assert (here.daemon.status.is_ready(), here.committed()) == (False, {})
        here.daemon._look()
        assert here.daemon.metrics.value("watermark_age_seconds") > 0
        assert here.daemon.metrics.value("inflight_bytes") > 0
        assert here.daemon.metrics.value("inflight_rows") > 0
        assert here.daemon.metrics.value("store_errors_total", reason="OperationalError") >= 2
        database.execute("rollback")
    here.daemon.catch_up()
    assert here.rows() == 50
    assert here.daemon.status.store_up
    here.daemon.drain()
    assert here.committed() == here.ends()


def test_store_that_stays_away_is_given_up_when_asked_to_stop_and_no_offset_moves(
    here: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicelog_sink.stores.sqlite.BUSY_TIMEOUT_MS", 100)
    here.daemon.settings = load({**here.settings.values, "drain_timeout_ms": 500}, {})[0]
    here.daemon.startup()
    produce(here.address, calls(5))
    with closing(sqlite3.connect(here.path, isolation_level=None)) as database:
        database.execute("begin immediate")
        wait_until(lambda: (here.daemon.on_tick(), here.retries() >= 1)[1], "a first try")
        with pytest.raises(Unfinished, match="stopped with events unstored, which stay in the topics"):
            here.daemon.drain()
    here.daemon.consumer.commit()
    assert here.committed() == {}


def test_store_that_does_not_return_from_a_write_is_left_soon_after_the_deadline_and_no_offset_moves(
    here: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.daemon.settings = load({**here.settings.values, "drain_timeout_ms": 100}, {})[0]
    here.daemon.startup()
    asked, answered = threading.Event(), threading.Event()

    def write(_: object) -> list[Any]:
        asked.set()
        answered.wait()
        return []

    monkeypatch.setattr(here.daemon.store, "write", write)
    monkeypatch.setattr("voicelog_sink.daemon.STUCK_S", 0.2)
    waits_s = joins_of(here.daemon, monkeypatch)
    produce(here.address, calls(1))
    wait_until(lambda: (here.daemon.on_tick(), asked.is_set())[1], "a write")
    try:
        with pytest.raises(Unfinished, match="which stay in the topics: the store does not return from a call"):
            here.daemon.drain()
        here.daemon.close()
        assert sum(waits_s) <= 0.3
        assert here.committed() == {}
    finally:
        answered.set()


@pytest.mark.parametrize("in_writer", [False, True], ids=["at the stop", "before it"])
def test_store_that_does_not_return_from_computing_is_left_and_what_is_stored_is_committed(
    here: Setup, monkeypatch: pytest.MonkeyPatch, in_writer: bool
) -> None:
    here.daemon.settings = load({**here.settings.values, "drain_timeout_ms": 100}, {})[0]
    here.daemon.startup()
    produce(here.address, calls(1))
    here.daemon.catch_up()
    stuck, answered = threading.Event(), threading.Event()
    monkeypatch.setattr(here.daemon.deriver, "run_all", lambda *_: int(answered.wait()))
    monkeypatch.setattr("voicelog_sink.daemon.STUCK_S", 2.0)
    if in_writer:
        monkeypatch.setattr(here.daemon.deriver, "run_due", lambda *_, **__: int(stuck.set() or answered.wait()))
        assert stuck.wait(30)
    try:
        here.daemon.drain()
        assert here.committed() == here.ends()
        assert here.daemon._is_stuck
    finally:
        answered.set()


def test_table_that_vanishes_stops_the_daemon_and_no_offset_moves(here: Setup) -> None:
    here.daemon.startup()
    produce(here.address, [GARBAGE, *calls(5)])
    with closing(sqlite3.connect(here.path)) as database:
        database.execute("drop table voice_interactions")
        database.commit()
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init --only store"):
        here.daemon.catch_up()
    here.daemon.consumer.commit()
    assert here.committed() == {}


def test_store_that_refuses_every_row_stops_the_daemon_instead_of_emptying_the_topics(here: Setup) -> None:
    here.daemon.startup()
    produce(here.address, calls(20))
    with closing(sqlite3.connect(here.path)) as database:
        for table in ("voice_interactions", "performance_metrics", "metric_parts", "derived_pending"):
            database.execute(
                f"create trigger no_{table} before insert on {table} begin select raise(abort, 'no room for it'); end"
            )
        database.commit()
    with pytest.raises(StoreMisconfigured, match=r"refused the last \d+ rows of .*no room for it"):
        here.daemon.catch_up()
    here.daemon.consumer.commit()
    letters = read_topic(here.address, "voicelog-dlq")  # of a first batch that was too small to judge by, if it was
    assert len(letters) < MAX_CONSECUTIVE
    assert sum(here.committed().values()) == len(letters)


def test_row_that_the_store_refuses_is_a_dead_letter_and_the_rest_is_stored(here: Setup) -> None:
    here.daemon.startup()
    with closing(sqlite3.connect(here.path)) as database:
        database.execute(
            "create trigger odd before insert on voice_interactions when new.transcript = 'word 3' "
            "begin select raise(abort, 'odd word'); end"
        )
        database.commit()
    produce(here.address, calls(5))
    here.daemon.catch_up()
    here.daemon.drain()
    assert here.rows() == 45
    letters = read_topic(here.address, "voicelog-dlq")
    assert len(letters) == 5
    for letter in letters:
        headers = dict(letter.headers() or [])
        assert (headers["voicelog.reason"], headers["__connect.errors.stage"]) == (b"store_rejected", b"store")
        assert b"odd word" in headers["__connect.errors.exception.message"]
    assert here.committed() == here.ends()


def test_refused_row_that_rollups_are_made_from_costs_no_event_and_is_counted(here: Setup) -> None:
    here.daemon.startup()
    with closing(sqlite3.connect(here.path)) as database:
        database.execute("create trigger odd before insert on metric_parts begin select raise(abort, 'no part'); end")
        database.commit()
    produce(here.address, calls(5))
    here.daemon.catch_up()
    here.daemon.drain()
    assert (here.rows(), read_topic(here.address, "voicelog-dlq"), here.committed()) == (50, [], here.ends())
    assert here.daemon.metrics.value("derived_refused_total") >= 1


def test_call_is_not_recomputed_from_a_batch_that_waits_to_be_written(here: Setup) -> None:
    """Were it announced when it is taken, a recompute before its write would take the call as read, and forget it."""
    here.daemon.startup()
    produce(here.address, calls(5))
    wait_until(lambda: (here.daemon._take(), here.daemon._writer.batches)[1], "a batch")
    assert here.daemon.deriver.sessions == 0
    here.daemon.catch_up()
    assert here.daemon.deriver.sessions == 5


def test_same_messages_again_change_nothing(here: Setup) -> None:
    produce(here.address, calls(3) * 2)
    here.daemon.startup()
    here.daemon.catch_up()
    here.daemon.drain()
    with closing(sqlite3.connect(here.path)) as database:
        summaries = database.execute("select received, missing, completeness from session_summaries").fetchall()
    assert here.rows() == 30
    assert summaries == [(10, 0, "complete")] * 3


def test_what_a_killed_sink_left_to_compute_is_computed_by_the_next(here: Setup, tmp_path: Path) -> None:
    produce(here.address, calls(3))
    given = {**here.given, "http": "off", "group": "killed"}
    with running_sink(tmp_path / "log", "run", **given) as running:
        wait_until(lambda: here.path.exists() and running.wait_for("assigned") and here.rows() == 30, "30 rows")
        running.stop(signal.SIGKILL)
    here.daemon.startup()
    here.daemon.deriver.adopt(int(time.time() * 1000), everything=True)
    here.daemon.drain()
    assert (here.rows("session_summaries"), here.rows("derived_pending")) == (3, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains_and_ends_with_status_0(here: Setup, tmp_path: Path, number: int) -> None:
    given = {**here.given, "http": "127.0.0.1:0"}
    with running_sink(tmp_path / "log", "run", **given) as running:
        running.wait_for("assigned")
        produce(here.address, calls(20))
        wait_until(here.rows, "a first row")
        assert running.stop(number) == 0
        assert "Traceback" not in running.output()
    stored = sum(here.committed().values())
    assert stored == here.rows()
    assert here.rows("derived_pending") == 0


def test_second_signal_ends_a_daemon_that_cannot_drain(here: Setup, tmp_path: Path) -> None:
    here.daemon.store.open(1000)
    here.daemon.store.init()
    given = {**here.given, "http": "off"}
    with (
        running_sink(tmp_path / "log", "run", **given) as running,
        closing(sqlite3.connect(here.path, isolation_level=None)) as database,
    ):
        running.wait_for("assigned")
        database.execute("begin immediate")
        produce(here.address, calls(2))
        running.wait_for("the store can't be written, its events wait in the topics")
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(Exception, match="timed out"):
            running.process.wait(1.0)
        assert running.stop(signal.SIGTERM, 5.0) == -signal.SIGTERM
    assert here.committed() == {}


def test_broker_that_is_not_there_ends_run_with_status_1_and_one_sentence(tmp_path: Path) -> None:
    given = {"store": f"sqlite:///{tmp_path}/x.db", "start_timeout_ms": 1000, "http": "off"}
    ended = sink("run", brokers="127.0.0.1:1", **given)
    assert (ended.returncode, ended.stdout) == (1, "")
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("voicelog-sink: no Kafka broker answers at 127.0.0.1:1 (waited 1 s; ")
    assert "Traceback" not in ended.stderr


def test_store_that_cannot_be_opened_ends_run_with_status_1_and_one_sentence(here: Setup, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    ended = sink(
        "run", brokers=here.address, store=f"sqlite:///{tmp_path}/file/x.db", http="off", start_timeout_ms=1000
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"{tmp_path}/file/x.db" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_store_that_is_locked_for_longer_than_the_start_timeout_is_named_with_the_remedy(
    here: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicelog_sink.stores.sqlite.BUSY_TIMEOUT_MS", 100)
    short = Daemon(load({**here.settings.values, "start_timeout_ms": 500}, {})[0], Metrics(), Status())
    with closing(sqlite3.connect(here.path, isolation_level=None)) as database:
        database.execute("pragma locking_mode = exclusive")
        database.execute("begin exclusive")
        with pytest.raises(
            StoreUnavailable, match=r"no store answers at sqlite:///.*calls\.db \(waited 0\.5 s; .*database is locked"
        ):
            short.startup()
    short.close()


def test_owner_of_the_first_partition_checks_for_anomalies_and_who_closes_ends_the_check(
    tmp_path: Path,
) -> None:
    here = Setup(tmp_path, anomalies_every_ms=1)
    here.daemon.startup()
    here.daemon.run(until=lambda: here.daemon.metrics.value("anomalies_checked_timestamp") > 0)
    here.daemon.run(until=lambda: here.daemon.anomalies._check is not None)
    check = here.daemon.anomalies._check
    here.daemon.close()
    assert check is not None
    assert check.process.returncode is not None
    assert here.daemon.metrics.value("anomalies_failures_total") == 0
