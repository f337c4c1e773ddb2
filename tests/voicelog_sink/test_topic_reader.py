"""Reading topics past the group, against librdkafka's own broker: from where to where, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.running import Raw, produce

from voicelog.settings import load
from voicelog_sink import topic_reader as module
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.errors import BrokerUnavailable, TopicsMissing
from voicelog_sink.topic_reader import Span, TopicReader

TOPIC = "voicelog-dlq"


@pytest.fixture
def broker() -> EmbeddedBroker:
    return EmbeddedBroker()


@pytest.fixture
def reader(broker: EmbeddedBroker) -> Iterator[TopicReader]:
    with TopicReader(load({"brokers": broker.address}, {})[0]) as reader:
        yield reader


def letters(first: int, last: int) -> list[Raw]:
    return [Raw(TOPIC, b"%d" % number, b"k%d" % (number % 7)) for number in range(first, last)]


def test_reads_each_partition_in_order_up_to_its_end_as_of_the_start(
    broker: EmbeddedBroker, reader: TopicReader
) -> None:
    produce(broker.address, letters(0, 100))
    spans = reader.spans([TOPIC])
    produce(broker.address, letters(100, 130))
    found = list(reader.read(spans))
    assert sorted(int(r.value or b"") for r in found) == list(range(100))
    for number in range(4):
        offsets = [r.offset for r in found if r.partition == number]
        assert offsets == list(range(spans[TOPIC, number].start, spans[TOPIC, number].end))


def test_reads_again_and_only_a_part(broker: EmbeddedBroker, reader: TopicReader) -> None:
    produce(broker.address, letters(0, 100))
    place, span = max(reader.spans([TOPIC]).items(), key=lambda item: item[1].end)
    assert [r.offset for r in reader.read({place: span})] == list(range(span.end))
    assert [r.offset for r in reader.read({place: Span(2, 4)})] == [2, 3]
    assert list(reader.read({place: Span(3, 3)})) == []


def test_abandoned_reading_does_not_disturb_the_next(broker: EmbeddedBroker, reader: TopicReader) -> None:
    produce(broker.address, letters(0, 100))
    spans = reader.spans([TOPIC])
    next(reader.read(spans))
    assert len(list(reader.read(spans))) == 100


def test_follower_says_when_nothing_came_and_goes_on(broker: EmbeddedBroker, reader: TopicReader) -> None:
    following = reader.follow({place: span.end for place, span in reader.spans([TOPIC]).items()})
    assert next(following) is None
    produce(broker.address, letters(0, 3))
    found: list[bytes | None] = []
    deadline_s = time.monotonic() + 30
    while len(found) < 3 and time.monotonic() < deadline_s:
        record = next(following)
        found += [record.value] if record else []
    assert sorted(found, key=str) == [b"0", b"1", b"2"]


def test_broker_that_does_not_know_times_is_read_from_the_beginning(
    broker: EmbeddedBroker, reader: TopicReader
) -> None:
    produce(broker.address, letters(0, 10))
    assert reader.spans([TOPIC], 1) == reader.spans([TOPIC])


def test_topic_that_is_not_there_is_said(reader: TopicReader) -> None:
    with pytest.raises(TopicsMissing, match="make them with `voicelog-sink init`"):
        reader.spans(["nothing-of-the-kind"])


def test_broker_that_is_not_there_is_said() -> None:
    settings = load({"brokers": "127.0.0.1:1", "start_timeout_ms": "1000"}, {})[0]
    with TopicReader(settings) as reader, pytest.raises(BrokerUnavailable, match="no Kafka broker answers at "):
        reader.spans([TOPIC])


def test_broker_that_falls_silent_is_not_waited_for_without_end(
    reader: TopicReader, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.5)
    produce(broker.address, letters(0, 10))
    spans = reader.spans([TOPIC])
    del broker._cluster
    with pytest.raises(BrokerUnavailable, match="gave no message for"):
        list(reader.read(spans))
