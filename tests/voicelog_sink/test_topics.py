"""The topics as they should be, and what is said of one that is not."""

from __future__ import annotations

import attrs
import pytest

from voicelog.events import TOPIC_DEAD_LETTERS, TOPICS
from voicelog.settings import load
from voicelog_sink.errors import BrokerUnavailable
from voicelog_sink.stores.base import Difference
from voicelog_sink.topics import Topic, TopicAdmin, differences, wanted

GIVEN = {"topic_prefix": "eu-", "topic_partitions": 6, "topic_replication": 3, "topic_retention_ms": 86_400_000}
WANT, DEAD = (wanted(load(GIVEN, {})[0])[i] for i in (0, -1))


def test_event_topics_and_dead_letters_are_wanted_with_the_prefix() -> None:
    assert [t.name for t in wanted(load(GIVEN, {})[0])] == [f"eu-{n}" for n in (*TOPICS, TOPIC_DEAD_LETTERS)]


def test_topic_takes_8_mb_and_its_acknowledged_messages_survive_one_broker_of_three() -> None:
    config = {
        "cleanup.policy": "delete", "retention.ms": "86400000", "compression.type": "zstd",
        "max.message.bytes": "8388608", "message.timestamp.type": "LogAppendTime", "min.insync.replicas": "2",
    }  # fmt: skip
    assert Topic("eu-stt-results", 6, 3, config) == WANT


def test_dead_letters_take_more_than_any_message_and_are_kept_four_times_as_long() -> None:
    assert int(DEAD.config["max.message.bytes"]) > 16 * 1024 * 1024
    assert DEAD.config["retention.ms"] == str(4 * 86_400_000)


@pytest.mark.parametrize(("retention_days", "kept_days"), [(1, 4), (20, 30), (40, 40)])
def test_dead_letters_are_kept_at_most_30_days_and_never_shorter_than_the_events(
    retention_days: int, kept_days: int
) -> None:
    settings = load({"topic_retention_ms": retention_days * 86_400_000}, {})[0]
    assert wanted(settings)[-1].config["retention.ms"] == str(kept_days * 86_400_000)


def test_missing_topic_is_one_difference() -> None:
    assert differences(WANT, None) == [Difference("topic eu-stt-results does not exist", "voicelog-sink init")]


def test_each_difference_is_a_sentence_with_its_remedy() -> None:
    live = Topic(WANT.name, 4, 1, {**WANT.config, "retention.ms": "1000"})
    assert differences(WANT, live) == [
        Difference("topic eu-stt-results has retention.ms=1000, expected 86400000", "voicelog-sink init"),
        Difference("topic eu-stt-results has 4 partitions, expected at least 6", "voicelog-sink init"),
        Difference("topic eu-stt-results has 1 replicas, expected 3", "move the replicas with the broker's own tools"),
    ]


@pytest.mark.parametrize(
    "change",
    [{"partitions": 12}, {"config": {"something.else": "1", **WANT.config}}, {"config": {}}],
    ids=["more partitions", "a setting of its own", "a broker that does not tell its settings"],
)
def test_what_is_no_difference(change: dict[str, object]) -> None:
    assert differences(WANT, attrs.evolve(WANT, **change)) == []


def test_replication_0_is_whatever_the_broker_chose() -> None:
    free = wanted(load({**GIVEN, "topic_replication": 0}, {})[0])[0]
    assert "min.insync.replicas" not in free.config
    assert differences(free, attrs.evolve(free, replication=5)) == []


def test_broker_that_does_not_answer_is_waited_for_and_then_named_with_the_remedy() -> None:
    admin = TopicAdmin(load({"brokers": "127.0.0.1:1"}, {})[0])
    with pytest.raises(BrokerUnavailable) as caught:
        admin.wait(700)
    assert str(caught.value).startswith("no Kafka broker answers at 127.0.0.1:1 (waited 0.7 s; ")
    assert "set VOICELOG_BROKERS or --brokers" in str(caught.value)
