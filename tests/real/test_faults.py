"""The library on a real broker that is down, slow, frozen, refusing or too small: the program is never harmed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tests.running import read_topic
from tests.servers import KafkaServer
from tests.servers.topics import delete_topics

import voicelog
from voicelog import wire
from voicelog.events import TOPICS, Event

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaServer]:
    """A Kafka of this module's own, to stop, kill and pause; each test leaves it running."""
    missing = KafkaServer.missing()
    if missing:
        pytest.skip(f"no real server: KafkaServer: {missing}")
    with KafkaServer() as running:
        yield running


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
    """Check that one call with so many stages arrived whole: each event once, in the order of its topic."""
    seqs = [event.seq for event in events]
    assert sorted(seqs) == list(range(1, stages + 3))
    for topic in TOPICS:
        of_topic = [event.seq for event in events if topic == event.TOPIC]
        assert of_topic == sorted(of_topic)
    (ended,) = [event for event in events if event.TYPE == "session_ended"]
    assert ended.events_total == stages + 2


def work(stages: int) -> list[int]:
    """Run so many stages and return their results, as a bot would go on with them."""

    @voicelog.stage("llm", provider="p")
    def answer(n: int) -> int:
        return n * n

    return [answer(n) for n in range(stages)]


def test_a_topic_that_takes_less_gets_its_texts_cut_and_loses_nothing(broker: KafkaServer) -> None:
    prefix = f"t{secrets.token_hex(4)}-"
    make_topics(broker, prefix, **{"max.message.bytes": "20000"})
    voicelog.configure(brokers=broker.bootstrap, topic_prefix=prefix)
    text = secrets.token_hex(100_000)
    with voicelog.session("call"):
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
    long, again = events[303], events[304]
    assert long.confidence == 0.9
    assert long.cut == again.cut == {"transcript": len(text)}
    assert "characters cut" in long.transcript
    assert 4_000 < len(long.transcript) < 20_000
    assert [events[n].attributes for n in range(3, 303)] == [{"note": n} for n in range(300)]
    delete_topics(broker.bootstrap, prefix)
