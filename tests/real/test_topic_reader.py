"""Reading real topics: to an end behind which there is no message, and on when a topic grows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from tests.real.sinks import Place
from tests.running import Raw, produce, wait_until

from voicelog.settings import load
from voicelog_sink import topic_reader as module
from voicelog_sink.pipeline import Record
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
        # The broker has committed before the marker, which is the third offset, is in every partition.
        wait_until(lambda: reader.spans([topic])[topic, 0].end == 3, "the transaction's marker")
        spans = reader.spans([topic])
        assert [record.value for record in reader.read(spans)] == [b"1", b"2"]
        produce(brokers, [Raw(topic, b"3")])
        assert [record.value for record in reader.read(spans)] == [b"1", b"2"]
        assert [record.value for record in reader.read(reader.spans([topic]))] == [b"1", b"2", b"3"]


def test_partition_that_a_topic_gets_is_followed_from_its_beginning(
    brokers: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AFTER_S", 0.2)
    Place(brokers, topic_prefix, "sqlite:///unused.db").init("--topic-partitions", "1")
    topic = f"{topic_prefix}voice-events"
    with TopicReader(load({"brokers": brokers}, {})[0]) as reader:
        following = reader.follow({place: span.end for place, span in reader.spans([topic]).items()})
        assert next(following) is None
        admin = AdminClient({"bootstrap.servers": brokers})
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
        produce(brokers, [Raw(topic, b"%d" % number, b"%d" % number) for number in range(30)])
        found = first(following, 30)
    assert sorted(int(record.value or b"") for record in found) == list(range(30))
    assert {record.partition for record in found} == {0, 1, 2}


def first(following: Iterator[Record | None], number: int) -> list[Record]:
    found: list[Record] = []
    deadline_s = time.monotonic() + 60
    while len(found) < number and time.monotonic() < deadline_s:
        record = next(following)
        found += [record] if record else []
    return found
