"""The consumer, against librdkafka's own broker: what it takes, releases, holds and refuses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.running import ASKABLE, Raw, committed, produce, wait_until

from voicelog.events import TOPICS
from voicelog.settings import Settings, load
from voicelog_sink import consumer as module
from voicelog_sink.consumer import RecordConsumer, topic_names
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.errors import OffsetsLost
from voicelog_sink.pipeline import Record
from voicelog_sink.watermark import next_offsets


@pytest.fixture
def broker() -> EmbeddedBroker:
    return EmbeddedBroker()


def settings_for(broker: EmbeddedBroker, kafka_config: str = "") -> Settings:
    # That broker lets a rebalance last for a second less than the session timeout.
    quick = f"session.timeout.ms=4000,heartbeat.interval.ms=300,{ASKABLE},{kafka_config}"
    return load({"brokers": broker.address, "kafka_config": quick}, {})[0]


class Joined(RecordConsumer):
    """A consumer that remembers what it was told."""

    def __init__(self, settings: Settings) -> None:
        self.rebalances: Counter[str] = Counter()
        self.commits: Counter[str] = Counter()
        super().__init__(settings, lambda event, _: self.rebalances.update([event]), lambda r: self.commits.update([r]))
        self.subscribe()

    def take(self, count: int) -> list[Record]:
        records: list[Record] = []

        def enough() -> bool:
            records.extend(self.poll(1000, 0.05))
            return len(records) >= count

        wait_until(enough, f"{count} records")
        assert len(records) == count
        return records


@contextmanager
def joined(settings: Settings) -> Iterator[Joined]:
    member = Joined(settings)
    try:
        yield member
    finally:
        member.close()


def messages(count: int, topic: str = "voice-events") -> list[Raw]:
    return [Raw(topic, b"value %d" % n, b"key %d" % n, [("h", b"%d" % n)]) for n in range(count)]


def test_record_is_what_was_produced_and_only_released_ones_are_not_read_again(broker: EmbeddedBroker) -> None:
    sent = messages(40)
    produce(broker.address, sent)
    with joined(settings_for(broker)) as member:
        records = member.take(40)
        assert sorted((r.topic, r.value, r.key, r.headers) for r in records) == sorted(
            (m.topic, m.value, m.key, m.headers) for m in sent
        )
        first = min(records, key=lambda r: (r.partition, r.offset))
        member.release(next_offsets(r for r in records if r.partition == first.partition))
        assert member.behind(member.ends()) == len([r for r in records if r.partition != first.partition])
    assert committed(broker.address, "voicelog-sink", TOPICS) == {
        (first.topic, first.partition): max(r.offset for r in records if r.partition == first.partition) + 1
    }
    with joined(settings_for(broker)) as member:
        again = member.take(len([r for r in records if r.partition != first.partition]))
    assert {r.partition for r in again} == {r.partition for r in records} - {first.partition}


def test_partition_that_another_member_took_over_is_not_committed_and_one_of_both_leads(broker: EmbeddedBroker) -> None:
    produce(broker.address, messages(100))
    settings = settings_for(broker)
    with joined(settings) as old:
        records = old.take(100)
        with joined(settings) as new:

            def shared() -> bool:
                taken_by_new.extend(new.poll(1000, 0.05))
                old.poll(1000, 0.05)
                return old.rebalances["revoked"] > 0 and new.assigned() > 0

            taken_by_new: list[Record] = []
            wait_until(shared, "a share for the second member")
            owned = {(p.topic, p.partition) for p in old._consumer.assignment()}
            old.release(next_offsets(records))
            old.commit()
            now = committed(broker.address, "voicelog-sink", TOPICS)
            assert set(now) == {(r.topic, r.partition) for r in records} & owned
            assert old.commits["state"] == len({(r.topic, r.partition) for r in records} - owned)
            wait_until(lambda: new.poll(1000, 0.05) or old.assigned() + new.assigned() == 16, "a share for each")
            assert sorted([old.leads(), new.leads()]) == [False, True]


def test_member_that_holds_stays_in_the_group_and_takes_up_where_it_was(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_AFTER_S", 0.0)
    with joined(settings_for(broker, kafka_config="max.poll.interval.ms=4000")) as member:
        wait_until(lambda: member.poll(10, 0.05) == [] and member.assigned() == 16, "an assignment")
        start_s = time.monotonic()
        member.hold(time.sleep, 1.0, 10.0)
        produce(broker.address, messages(20))
        while time.monotonic() - start_s < 6.0:
            member.hold(time.sleep, 1.0, 10.0)
        member.resume()
        assert len({r.value for r in member.take(20)}) == 20
        assert member.rebalances == {"assigned": 1}


def test_member_that_leaves_asks_nothing_about_what_it_is_given_meanwhile(broker: EmbeddedBroker) -> None:
    """As when another member leaves just before: asked while it closes, librdkafka does not answer."""
    with joined(settings_for(broker)) as member:
        wait_until(lambda: member.poll(10, 0.05) == [] and member.assigned() == 16, "an assignment")
        given = member._consumer.assignment()
        member.close()
        member._assigned(member._consumer, given)
        assert member.rebalances == {"assigned": 1, "revoked": 1}


def test_offset_that_the_broker_no_longer_has_stops_with_the_remedy(broker: EmbeddedBroker) -> None:
    produce(broker.address, messages(20))
    with joined(settings_for(broker)) as member:
        last = member.take(20)[-1]
        member.release({(last.topic, last.partition): 10_001})
    with joined(settings_for(broker)) as member, pytest.raises(OffsetsLost) as caught:
        wait_until(lambda: member.poll(10, 0.05) and None, "an error", 20)
    assert f"group 'voicelog-sink' stands at an offset of voice-events[{last.partition}]" in str(caught.value)
    assert "VOICELOG_KAFKA_CONFIG=auto.offset.reset=earliest" in str(caught.value)
    with joined(settings_for(broker, kafka_config="auto.offset.reset=earliest")) as member:
        assert len(member.take(20)) == 20


def test_promise_cannot_be_configured_away() -> None:
    given = "enable.auto.commit=true,enable.auto.offset.store=true,partition.assignment.strategy=range"
    settings = load({"kafka_config": given}, {})[0]
    assert {**module.DEFAULTS, **settings.kafka(), **module.ENFORCED}.items() >= module.ENFORCED.items()


def test_topics_carry_the_prefix() -> None:
    assert topic_names("eu-") == ["eu-stt-results", "eu-llm-requests", "eu-tts-results", "eu-voice-events"]
