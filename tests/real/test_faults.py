"""The library on a real broker that is down, slow, frozen, refusing or too small: the program is never harmed."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from opentelemetry.sdk.trace import TracerProvider
from tests.running import read_topic, wait_until
from tests.servers import KafkaServer
from tests.servers.topics import delete_topics

import voicelog
from voicelog import wire
from voicelog.events import TOPICS, Event, SttResult

pytestmark = pytest.mark.real

PATIENT: dict[str, Any] = {"flush_timeout_ms": 60_000, "kafka_config": {"reconnect.backoff.max.ms": "300"}}
"""A program that waits for its broker, and looks for it often."""


@pytest.fixture
def broker(own_kafka: KafkaServer) -> KafkaServer:
    """A Kafka to stop, kill and pause; it runs again after each test."""
    return own_kafka


@pytest.fixture
def prefix(broker: KafkaServer) -> Iterator[str]:
    """A fresh prefix for topics that are there; they are deleted after the test."""
    name = f"t{secrets.token_hex(4)}-"
    make_topics(broker, name)
    yield name
    voicelog.shutdown(0)
    delete_topics(broker.bootstrap, name)


def make_topics(broker: KafkaServer, prefix: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    topics = [NewTopic(prefix + topic, 1, 1, config=config) for topic in TOPICS]
    for future in admin.create_topics(topics, operation_timeout=30).values():
        future.result(30)


def arrived(broker: KafkaServer, prefix: str) -> list[Event]:
    """Return the events in all topics, each topic's in its order."""
    return [wire.decode(m.value()) for topic in TOPICS for m in read_topic(broker.bootstrap, prefix + topic)]


def whole(events: list[Event], stages: int) -> None:
    """Check that one call with so many stages arrived whole: each event once, and in the order of its topic."""
    assert sorted(event.seq for event in events) == list(range(1, stages + 3))
    for topic in TOPICS:
        of_topic = [event.seq for event in events if topic == event.TOPIC]
        assert of_topic == sorted(of_topic)
    (ended,) = [event for event in events if event.TYPE == "session_ended"]
    assert ended.events_total == stages + 2


def answers(stages: int) -> list[int]:
    """Run so many stages and return their results, as a bot would go on with them."""

    @voicelog.stage("llm", provider="p")
    def answer(n: int) -> int:
        return n * n

    return [answer(n) for n in range(stages)]


def squares(stages: int) -> list[int]:
    return [n * n for n in range(stages)]


@contextmanager
def program(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of a user's, its input and output piped; it ends with the block."""
    forking = "ignore:This process:DeprecationWarning"
    command = [sys.executable, "-W", forking, "-c", textwrap.dedent(code), *args]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def frozen(broker: KafkaServer) -> Iterator[None]:
    """Freeze the broker for the block."""
    broker.pause()
    try:
        yield
    finally:
        broker.resume()


def line(running: subprocess.Popen[str]) -> str:
    """Return the next line that a program writes."""
    assert running.stdout is not None
    return running.stdout.readline()


KILLED = """
    import os, signal, sys, voicelog
    voicelog.configure(health_interval_ms=0, brokers=sys.argv[1], topic_prefix=sys.argv[2], spool_dir=sys.argv[3])
    session = voicelog.session("killed").start()
    for n in range(500):
        with voicelog.stage("llm", n=n):
            pass
    while voicelog.stats()["spooled"] < 501:
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_broker_that_is_down_from_the_start_gets_all_events_once_it_is_there(
    broker: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    """From a program that waits for it, and from the spool of one that was killed."""
    broker.stop()
    voicelog.configure(health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix, **PATIENT)
    with voicelog.session("waiting"):
        assert answers(300) == squares(300)
    assert (voicelog.stats()["queued"], voicelog.stats()["delivered"]) == (302, 0)
    with program(KILLED, broker.bootstrap, prefix, str(tmp_path)) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    broker.start()
    assert voicelog.flush(60) == 0
    assert voicelog.stats()["failed"] == {}
    whole(arrived(broker, prefix), 300)

    voicelog.configure(
        health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix, spool_dir=str(tmp_path), **PATIENT
    )
    with voicelog.session("next"):
        assert answers(20) == squares(20)
    assert voicelog.flush(60) == 0
    stats = voicelog.stats()
    assert (stats["replayed"], stats["spooled"], stats["delivered"], stats["failed"]) == (501, 22, 22, {})
    events = arrived(broker, prefix)
    whole([event for event in events if event.session_id == "next"], 20)
    of_killed = [event.seq for event in events if event.session_id == "killed"]
    assert of_killed == [*range(2, 502), 1]  # llm-requests, then voice-events with the session's start
    assert voicelog.shutdown(10) == 0
    assert list(tmp_path.iterdir()) == []


def test_broker_that_is_killed_in_mid_stream_and_restarted_gets_all_events_once(
    broker: KafkaServer, prefix: str
) -> None:
    voicelog.configure(health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix, **PATIENT)
    with voicelog.session("call"):
        answers(100)
        assert voicelog.flush(60) == 0
        answers(100)
        broker.kill()
        assert answers(100) == squares(100)
        broker.start()
        assert answers(100) == squares(100)
    assert voicelog.flush(60) == 0
    whole(arrived(broker, prefix), 400)
    stats = voicelog.stats()
    assert (stats["delivered"], stats["failed"], stats["dropped"]) == (402, {}, {})


def test_callers_go_on_while_the_broker_is_frozen_and_nothing_is_lost_or_doubled(
    broker: KafkaServer, prefix: str
) -> None:
    voicelog.configure(health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix, **PATIENT)
    with voicelog.session("call"):
        answers(100)
        assert voicelog.flush(60) == 0
        with frozen(broker):
            assert answers(2000) == squares(2000)  # all of them end while it is frozen
            assert voicelog.stats()["queued"] >= 2000
        answers(100)
    assert voicelog.flush(60) == 0
    whole(arrived(broker, prefix), 2200)
    assert voicelog.stats()["failed"] == voicelog.stats()["dropped"] == {}


def test_topic_that_refuses_is_counted_and_the_others_get_their_events(
    broker: KafkaServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    deny_writing(broker, prefix + "llm-requests")
    voicelog.configure(health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix, **PATIENT)
    with voicelog.session("call"):
        assert answers(50) == squares(50)
        voicelog.publish_stt_result("heard")
    assert voicelog.flush(60) == 0
    stats = voicelog.stats()
    assert stats["produced"] == 53
    assert (stats["delivered"], stats["failed"]) == (3, {"TOPIC_AUTHORIZATION_FAILED": 50})
    events = arrived(broker, prefix)
    assert sorted(event.TYPE for event in events) == ["session_ended", "session_started", "stt_result"]
    assert max(event.events_total for event in events if event.TYPE == "session_ended") == 53  # the gap is visible
    assert caplog.text.count("an event was not delivered: Broker: Topic authorization failed") == 1


def deny_writing(broker: KafkaServer, topic: str) -> None:
    rule = AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", AclOperation.WRITE,
        AclPermissionType.DENY,
    )  # fmt: skip
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    for future in admin.create_acls([rule]).values():
        future.result(30)


def test_events_that_a_frozen_broker_does_not_take_in_time_are_given_up_and_counted(
    broker: KafkaServer, prefix: str
) -> None:
    voicelog.configure(
        health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix, delivery_timeout_ms=700, **PATIENT
    )
    with voicelog.session("call"):
        answers(10)
        voicelog.flush(60)
        before = sum(voicelog.stats()["failed"].values())  # none, but for a very busy machine
        with frozen(broker):
            answers(20)
            wait_until(lambda: voicelog.stats()["queued"] == 0, "given up")
            given_up = voicelog.stats()["failed"]
        answers(10)
    assert voicelog.flush(60) == 0
    stats = voicelog.stats()
    assert given_up == {"_MSG_TIMED_OUT": before + 20}
    assert stats["produced"] == 42 == stats["delivered"] + sum(stats["failed"].values())
    seqs = {event.seq for event in arrived(broker, prefix)}
    assert len(seqs) >= stats["delivered"]
    assert stats["delivered"] > 0


FLOOD = """
    import json, resource, sys, voicelog
    voicelog.configure(
        health_interval_ms=0, brokers=sys.argv[1], topic_prefix=sys.argv[2], queue_max_messages=1000,
        flush_timeout_ms=60000,
    )

    @voicelog.stage("tool", provider="p")
    def work(n):
        return n

    def flood(times):
        return sum(work(n) == n for n in range(times))

    with voicelog.session("call"):
        flood(5000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done = flood(200_000)
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps({"done": done, "grown_kb": grown_kb, **voicelog.stats()}), flush=True)
        sys.stdin.readline()
        assert voicelog.flush(60) == 0
        work(1)
    voicelog.shutdown()
    print(json.dumps(voicelog.stats()))
"""


def test_full_queue_drops_the_newest_counts_them_shows_the_gap_and_bounds_memory(
    broker: KafkaServer, prefix: str
) -> None:
    with program(FLOOD, broker.bootstrap, prefix) as flooding:
        with frozen(broker):
            during = json.loads(line(flooding))
        out, err = flooding.communicate("go on\n", timeout=120)
    ended = json.loads(out)
    assert (during["done"], during["queued"], during["delivered"]) == (200_000, 1000, 0)
    assert during["dropped"] == ended["dropped"] == {"queue_full": 204_001}
    assert during["grown_kb"] < 30_000
    assert (ended["delivered"], ended["failed"], flooding.returncode) == (1002, {}, 0)
    assert err.count("the queue is full (1000 events") == 1
    events = arrived(broker, prefix)
    assert sorted(event.seq for event in events) == [*range(1, 1001), 205_002, 205_003]
    assert [event.events_total for event in events if event.TYPE == "session_ended"] == [205_003]


def test_spooled_events_that_a_topic_refuses_wait_until_it_takes_them(
    broker: KafkaServer, prefix: str, tmp_path: Path
) -> None:
    deny_writing(broker, prefix + "llm-requests")
    voicelog.configure(
        health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix, spool_dir=str(tmp_path), **PATIENT
    )
    with voicelog.session("call"):
        answers(5)
    wait_until(lambda: voicelog.stats()["delivered"] == 2, "the others are delivered")
    assert voicelog.flush(0) == 5
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    topic = prefix + "llm-requests"
    any_rule = AclBindingFilter(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    for future in admin.delete_acls([any_rule]).values():
        future.result(30)
    assert voicelog.flush(60) == 0
    whole(arrived(broker, prefix), 5)


WORKERS = """
    import os, sys, voicelog
    voicelog.configure(health_interval_ms=0, brokers=sys.argv[1], topic_prefix=sys.argv[2], flush_timeout_ms=60000)
    pids = []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            with voicelog.session(f"worker-{n}"):
                for k in range(50):
                    with voicelog.stage("llm"):
                        pass
            os.write(1, f"worked {voicelog.stats()['produced']}\\n".encode())
            sys.exit(0)
        pids.append(pid)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""


def test_forked_workers_work_while_the_broker_is_frozen_and_their_events_arrive(
    broker: KafkaServer, prefix: str
) -> None:
    with program(WORKERS, broker.bootstrap, prefix) as parent:
        with frozen(broker):
            assert [line(parent) for _ in range(4)] == ["worked 52\n"] * 4
        out, err = parent.communicate(timeout=120)
    assert (out, err, parent.returncode) == ("", "", 0)
    events = arrived(broker, prefix)
    for n in range(4):
        whole([event for event in events if event.session_id == f"worker-{n}"], 50)


LEAVING = """
    import signal, sys, voicelog
    voicelog.configure(health_interval_ms=0, brokers=sys.argv[1], topic_prefix=sys.argv[2], flush_timeout_ms=500)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    with voicelog.session("call"), voicelog.stage("llm"):
        print("ready", flush=True)
        if sys.argv[3] == "term":
            signal.pause()
    sys.exit(8)
"""


@pytest.mark.parametrize(("how", "status"), [("exit", 8), ("term", 7)])
def test_program_whose_broker_is_frozen_ends_with_its_own_status(
    broker: KafkaServer, prefix: str, how: str, status: int
) -> None:
    with frozen(broker), program(LEAVING, broker.bootstrap, prefix, how) as leaving:
        assert line(leaving) == "ready\n"
        if how == "term":
            leaving.terminate()
        _, err = leaving.communicate(timeout=60)
    assert leaving.returncode == status
    assert f"3 events were not acknowledged by {broker.bootstrap} within 0.5 s and are lost" in err


def test_a_topic_that_takes_less_gets_its_texts_cut_and_loses_nothing(broker: KafkaServer) -> None:
    prefix = f"t{secrets.token_hex(4)}-"
    make_topics(broker, prefix, **{"max.message.bytes": "20000"})
    voicelog.configure(health_interval_ms=0, brokers=broker.bootstrap, topic_prefix=prefix)
    text = secrets.token_hex(100_000)
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("span") as span, voicelog.session("call"):
        voicelog.publish_stt_result("first")
        for n in range(300):
            voicelog.publish_stt_result(secrets.token_hex(200), confidence=0.5, note=n)
        voicelog.publish_stt_result(text, confidence=0.9)
        assert voicelog.flush(30) == 0
        sent = voicelog.stats()
        voicelog.publish_stt_result(text)
    assert voicelog.flush(30) == 0
    found = voicelog.stats()
    assert (found["failed"], found["dropped"], found["queued"]) == ({}, {}, 0)
    assert (sent["cut"], found["cut"]) == (1, 2)
    events = {event.seq: event for event in arrived(broker, prefix)}
    assert sorted(events) == list(range(1, found["produced"] + 1))
    assert [events[n].attributes for n in range(3, 303)] == [{"note": n} for n in range(300)]
    long, again = cast("SttResult", events[303]), cast("SttResult", events[304])
    assert long.confidence == 0.9
    assert long.cut == again.cut == {"transcript": len(text)}
    assert "characters cut" in str(long.transcript)
    assert 4_000 < len(str(long.transcript)) < 20_000
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert all(trace_id in str(m.headers()) for m in read_topic(broker.bootstrap, prefix + "stt-results"))
    delete_topics(broker.bootstrap, prefix)
