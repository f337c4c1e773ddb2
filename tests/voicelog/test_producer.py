"""The producer: what it takes arrives, what it can't take is dropped and counted, and it never blocks."""

from __future__ import annotations

import logging
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError
from opentelemetry.sdk.trace import TracerProvider
from tests.voicelog.kafka import NOBODY, consume, events_of, run_program

import voicelog
from voicelog.counters import Counters
from voicelog.producer import KafkaProducer
from voicelog.settings import load

Make = Callable[..., tuple[KafkaProducer, Counters]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make producers that are closed after the test."""
    made: list[KafkaProducer] = []

    def one(**given: object) -> tuple[KafkaProducer, Counters]:
        counters = Counters()
        made.append(KafkaProducer(load({"linger_ms": 0, **given}, {})[0], counters))
        return made[-1], counters

    yield one
    for producer in made:
        producer.close(0)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


def test_what_is_produced_arrives_as_it_was_given(mock_broker: str, make: Make) -> None:
    producer, counters = make(brokers=mock_broker, topic_prefix="p-")
    assert producer.produce("voice-events", b"call-1", b"{}", [("traceparent", b"00-1")]) is None
    assert producer.produce("voice-events", b"call-2", b"[]", None) is None
    assert producer.flush(20) == producer.queued() == 0
    found = {(m.topic(), m.key(), m.value(), tuple(m.headers() or ())) for m in consume(mock_broker, 2, "p-")}
    assert found == {
        ("p-voice-events", b"call-1", b"{}", (("traceparent", b"00-1"),)), ("p-voice-events", b"call-2", b"[]", ()),
    }  # fmt: skip
    assert counters.snapshot()["failed"] == {}


def test_full_queue_drops_newest_counts_it_and_says_it_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    producer, _ = make(brokers=NOBODY, queue_max_messages=10)
    reasons = [producer.produce("voice-events", b"k", b"v", None) for _ in range(25)]
    assert reasons == [None] * 10 + ["queue_full"] * 15
    wait_until(lambda: producer.queued() == 10)  # above it are notices, which the thread takes
    warnings = [r.getMessage() for r in caplog.records if "queue is full" in r.getMessage()]
    assert warnings == [
        "voicelog: the queue is full (10 events, 67108864 bytes): new events are dropped and counted. "
        f"Is the broker at {NOBODY} reachable and fast enough?"
    ]


def test_memory_is_bounded_in_bytes_too(make: Make) -> None:
    producer, _ = make(brokers=NOBODY, queue_max_bytes=1024 * 1024)
    reasons = [producer.produce("voice-events", b"k", b"x" * 100_000, None) for _ in range(20)]
    assert 8 <= reasons.count(None) <= 11
    assert set(reasons) == {None, "queue_full"}


def test_a_message_that_is_too_large_is_refused_and_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    producer, _ = make(brokers=NOBODY)
    assert [producer.produce("voice-events", b"k", b"x" * 9_000_000, None) for _ in range(2)] == ["refused"] * 2
    (warning,) = [r.getMessage() for r in caplog.records if "librdkafka refused" in r.getMessage()]
    assert warning.endswith("event: Unable to produce message: Broker: Message size too large (MSG_SIZE_TOO_LARGE)")


def test_without_a_broker_one_warning_says_what_to_do(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    producer, _ = make(brokers=NOBODY)
    producer.produce("voice-events", b"k", b"v", None)
    wait_until(lambda: "broker trouble" in caplog.text)
    producer.flush(1)
    troubles = [r.getMessage() for r in caplog.records]
    assert len(troubles) == 1
    assert f"broker trouble at {NOBODY}" in troubles[0]
    assert "Your program goes on" in troubles[0]
    assert "Check VOICELOG_BROKERS" in troubles[0]


def test_what_is_not_acknowledged_in_time_is_failed(make: Make) -> None:
    producer, counters = make(brokers=NOBODY, delivery_timeout_ms=300)
    producer.produce("voice-events", b"k", b"v", None)
    wait_until(lambda: counters.get("failed") == 1)
    assert counters.snapshot()["failed"] == {"_MSG_TIMED_OUT": 1}
    wait_until(lambda: producer.queued() == 0)


def test_closing_gives_up_in_time_and_counts_what_was_left(make: Make) -> None:
    producer, counters = make(brokers=NOBODY)
    for _ in range(3):
        producer.produce("voice-events", b"k", b"v", None)
    began = time.monotonic()
    assert producer.close(0.2) == 3
    assert time.monotonic() - began < 2
    assert sum(counters.snapshot()["failed"].values()) == 3
    assert producer.queued() == 0
    assert producer.produce("voice-events", b"k", b"v", None) == "closed"


ALONE = """
    import sys, threading, time
    from contextlib import suppress
    from pathlib import Path
    from voicelog.counters import Counters
    from voicelog.producer import KafkaProducer
    from voicelog.settings import load

    def threads():
        names = [thread.name for thread in threading.enumerate() if thread.name == "voicelog-poll"]
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has just ended
                name = (task / "comm").read_text()
                names += [name] if name.startswith("rdk:") else []
        return len(names)

    def until(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    counters = Counters()
    producer = KafkaProducer(load(dict(linger_ms=0, brokers=sys.argv[1], queue_max_messages=3), {})[0], counters)

    def produce(*values):
        return [producer.produce("voice-events", b"k", value, None) for value in values]

"""
"""A producer in a program of its own: librdkafka's threads there are all of this one."""


def run_alone(steps: str, brokers: str) -> None:
    found = run_program(textwrap.dedent(ALONE) + textwrap.dedent(steps), brokers)
    assert found.returncode == 0, found.stderr


def test_it_begins_with_the_first_message_and_ends_with_its_close() -> None:
    """So that a program which configures, and forks its workers then, forks nothing of librdkafka."""
    run_alone(
        """
        until(lambda: threads() == 0)  # it has tried the settings
        assert (producer.queued(), producer.flush(1), threads()) == (0, 0, 0)
        produce(b"v")
        until(lambda: threads() > 1)
        producer.close(0)
        until(lambda: threads() == 0)
        """,
        NOBODY,
    )


def test_at_rest_nothing_of_it_runs_and_what_comes_is_held_until_it_wakes(mock_broker: str) -> None:
    run_alone(
        """
        produce(b"0")
        assert producer.rest(20)
        until(lambda: threads() == 0)
        assert produce(b"1", b"2", b"3", b"4") == [None, None, None, "queue_full"]
        assert (producer.queued(), threads()) == (3, 0)
        producer.wake()
        assert producer.flush(20) == 0
        assert counters.snapshot()["failed"] == {}
        """,
        mock_broker,
    )
    assert sorted(m.value() for m in consume(mock_broker, 4)) == [b"0", b"1", b"2", b"3"]


def test_a_topic_that_refused_events_for_their_size_rests_and_wakes_like_others(mock_broker: str) -> None:
    """The embedded broker takes any size, so what the producer would have learned is told to it."""
    run_alone(
        """
        producer._oversize.limits["voice-events"] = 8 * 1024 * 1024
        producer._detour()
        produce(b"0", b"1")
        producer.produce("stt-results", b"k", b"2", None)
        assert producer.queued() == 3
        assert producer.rest(20)
        until(lambda: threads() == 0)
        produce(b"3")
        producer.wake()
        produce(b"4")
        assert producer.flush(20) == producer.queued() == 0
        assert counters.snapshot()["failed"] == {}
        producer.close(1)
        until(lambda: threads() == 0)
        """,
        mock_broker,
    )
    assert sorted(m.value() for m in consume(mock_broker, 5)) == [b"0", b"1", b"2", b"3", b"4"]


class TooLarge:
    """A message that the broker refused for its size, and what librdkafka says of it."""

    def topic(self) -> str:
        return "voice-events"

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"


def test_a_refused_message_that_can_not_be_sent_again_is_counted_as_failed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more threads can be had, say: then it is neither on its way nor delivered."""

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    producer, counters = make(brokers=NOBODY)
    monkeypatch.setattr("voicelog.oversize.Handle", no_thread)
    producer._on_report(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), TooLarge())
    assert counters.snapshot()["failed"] == {"_FAIL": 1}


def test_it_does_not_rest_while_messages_wait(make: Make) -> None:
    producer, _ = make(brokers=NOBODY)
    producer.produce("voice-events", b"k", b"v", None)
    assert not producer.rest(0.1)
    producer.produce("voice-events", b"k", b"v", None)
    producer.wake()
    wait_until(lambda: producer.queued() == 2)


def test_closed_while_it_rests_what_was_held_is_counted(make: Make) -> None:
    producer, counters = make(brokers=NOBODY)
    producer.produce("voice-events", b"k", b"v", None)
    assert not producer.rest(0)
    producer.produce("voice-events", b"k", b"v", None)
    assert producer.close(0) == 2
    producer.wake()
    assert producer.queued() == 0
    assert counters.get("failed") == 2
    assert producer.produce("voice-events", b"k", b"v", None) == "closed"


@pytest.mark.parametrize("timeout_s", [-1.0, float("nan"), 0])
def test_an_odd_timeout_does_not_wait_for_ever(make: Make, timeout_s: float) -> None:
    producer, _ = make(brokers=NOBODY)
    producer.produce("voice-events", b"k", b"v", None)
    began = time.monotonic()
    assert producer.flush(timeout_s) == 1
    assert time.monotonic() - began < 5


def test_producing_never_waits_even_without_a_broker(make: Make) -> None:
    producer, _ = make(brokers=NOBODY, queue_max_messages=1000)
    slowest_s = 0.0
    for _ in range(3000):
        began = time.perf_counter()
        producer.produce("voice-events", b"k", b"v" * 200, None)
        slowest_s = max(slowest_s, time.perf_counter() - began)
    assert slowest_s < 1


def test_librdkafkas_own_settings_win(make: Make) -> None:
    with pytest.raises(Exception, match="No such configuration property"):
        make(brokers=NOBODY, kafka_config={"no.such.setting": "1"})
    make(brokers=NOBODY, kafka_config={"linger.ms": "7", "compression.type": "none"})


def test_librdkafkas_log_stays_out_of_the_programs(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    producer, _ = make(brokers=NOBODY)
    producer.flush(0.3)
    assert [r for r in caplog.records if r.name == "voicelog.librdkafka" and r.levelno <= logging.CRITICAL] == []


def whole_calls(calls: int) -> None:
    for n in range(calls):
        with voicelog.session(f"call-{n}", "ann"), voicelog.turn():
            for name in ("stt", "llm", "tts", "vad"):
                with voicelog.stage(name, provider="p"):
                    pass


def proven(brokers: str, prefix: str, calls: int) -> None:
    """Check that stats(), the streams' own counts and the topics agree."""
    assert voicelog.flush(30) == 0
    stats = voicelog.stats()
    expected = calls * 7
    assert (stats["produced"], stats["delivered"], stats["queued"], stats["failed"]) == (expected, expected, 0, {})
    messages = consume(brokers, expected, prefix)
    assert len(messages) == expected
    events = events_of(messages)
    by_key = {m.key().decode() for m in messages}
    assert by_key == {event.session_id for event in events} == {f"call-{n}" for n in range(calls)}
    for n in range(calls):
        call = [event for event in events if event.session_id == f"call-{n}"]
        assert [event.seq for event in call] == list(range(1, 8))
        assert call[-1].events_total == 7


def test_calls_arrive_whole_at_the_embedded_broker(mock_broker: str) -> None:
    voicelog.configure(brokers=mock_broker, topic_prefix="p-")
    whole_calls(20)
    proven(mock_broker, "p-", 20)


def test_calls_arrive_whole_at_a_real_broker(brokers: str, topic_prefix: str) -> None:
    make_topics(brokers, topic_prefix)
    voicelog.configure(brokers=brokers, topic_prefix=topic_prefix)
    whole_calls(50)
    proven(brokers, topic_prefix, 50)


def test_the_current_span_is_in_headers_and_event_at_a_real_broker(brokers: str, topic_prefix: str) -> None:
    make_topics(brokers, topic_prefix)
    voicelog.configure(brokers=brokers, topic_prefix=topic_prefix)
    with voicelog.session("without"):
        pass
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("span") as span, voicelog.session("with"), voicelog.turn():
        voicelog.stage("llm")(lambda: None)()
    assert voicelog.flush(30) == 0
    context = span.get_span_context()
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()
    messages = consume(brokers, 6, topic_prefix)
    assert {(m.key(), tuple(m.headers() or ())) for m in messages} == {
        (b"without", ()), (b"with", (("traceparent", traceparent),)),
    }  # fmt: skip
    traces = {event.session_id: event.trace_id for event in events_of(messages)}
    assert traces == {"without": None, "with": f"{context.trace_id:032x}"}


def make_topics(brokers: str, prefix: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    from voicelog.events import TOPICS

    admin = AdminClient({"bootstrap.servers": brokers})
    for future in admin.create_topics([NewTopic(prefix + topic, 4, 1) for topic in TOPICS]).values():
        future.result(30)
