"""The topics that init makes, on a real broker."""

from __future__ import annotations

import time

from confluent_kafka import Producer

from voicelog.settings import load
from voicelog_sink.topics import TopicAdmin


def test_event_of_a_program_whose_clock_runs_a_day_ahead_is_taken(brokers: str, topic_prefix: str) -> None:
    """Kafka refuses what a producer stamped an hour ahead; on these topics the broker's own clock counts."""
    settings, _ = load({"brokers": brokers, "topic_prefix": topic_prefix, "topic_partitions": 1}, {})
    TopicAdmin(settings).init()
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": brokers})
    producer.produce(
        topic_prefix + "voice-events",
        b"{}",
        timestamp=int(time.time() * 1000) + 86_400_000,
        on_delivery=lambda error, _: errors.append(error),
    )
    assert producer.flush(20) == 0
    assert errors == [None]
