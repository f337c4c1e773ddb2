"""Reading a real topic to an end behind which there is no message: a transaction's mark takes an offset too."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer
from tests.real.sinks import Place
from tests.running import Raw, produce

from voicelog.settings import load
from voicelog_sink.topic_reader import TopicReader

pytestmark = pytest.mark.real


def in_a_transaction(brokers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": brokers, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.commit_transaction(60)


def test_offset_without_a_message_at_the_end_is_neither_waited_for_nor_read_past(
    brokers: str, topic_prefix: str
) -> None:
    Place(brokers, topic_prefix, "sqlite:///unused.db").init("--topic-partitions", "1")
    topic = f"{topic_prefix}voicelog-dlq"
    in_a_transaction(brokers, topic, [b"1", b"2"])
    with TopicReader(load({"brokers": brokers}, {})[0]) as reader:
        spans = reader.spans([topic])
        assert spans[topic, 0].end == 3
        assert [record.value for record in reader.read(spans)] == [b"1", b"2"]
        produce(brokers, [Raw(topic, b"3")])
        assert [record.value for record in reader.read(spans)] == [b"1", b"2"]
        assert [record.value for record in reader.read(reader.spans([topic]))] == [b"1", b"2", b"3"]
