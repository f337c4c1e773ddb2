"""Where records come from. The only file that imports the Kafka consumer.

An offset moves only by `release`, after everything before it is stored or in the dead letters, and only on partitions
that this process still owns: `store_offsets` refuses a revoked one, where an explicit commit would overwrite what the
new owner has committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from voicelog.events import TOPICS
from voicelog.settings import Settings
from voicelog_sink.client import make_client
from voicelog_sink.errors import BrokerRefused, BrokerUnavailable, OffsetsLost
from voicelog_sink.pipeline import Headers, Record
from voicelog_sink.watermark import Offsets, Place

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0
PAUSE_AFTER_S = 5.0
"""An outage shorter than this is waited for without pausing, since a pause throws away what was fetched already."""
ASK_TIMEOUT_S = 10.0
MAX_ASSIGN_S = 240.0
"""How long an assignment may wait for the committed offsets; below max.poll.interval.ms."""

DEFAULTS = {
    "client.id": "voicelog-sink",
    "auto.offset.reset": "error",
    "fetch.max.bytes": 1024 * 1024,
    "queued.max.messages.kbytes": 8 * 1024,
    "queued.min.messages": 10_000,
    "reconnect.backoff.max.ms": 5_000,
    "socket.keepalive.enable": True,
}
ENFORCED = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
    "partition.assignment.strategy": "cooperative-sticky",
}
"""What no setting of the user's may change: the daemon's promise rests on it."""

REFUSALS = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError._FATAL,
})  # fmt: skip

GROUPLESS = {
    "client.id": "voicelog-sink-reader",
    "group.id": "voicelog-sink-reader",  # librdkafka wants one; assigned by hand, it is never joined
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
}

FENCED = "same group.instance.id"
"""What librdkafka says of a member whose place another one has taken."""

Counted = Callable[[str], None]
Rebalanced = Callable[[str, Sequence[Place]], None]


def topic_names(prefix: str) -> list[str]:
    """Return the names of the topics that carry events, with the prefix."""
    return [prefix + name for name in TOPICS]


def groupless(settings: Settings) -> Consumer:
    """Return a consumer to assign partitions to: it joins no group and commits nothing. Connects to nothing yet.

    It says where a partition ends, by an error `_PARTITION_EOF`. Raises ConfigError for a setting that it refuses.
    """
    return make_client(Consumer, {**DEFAULTS, **settings.kafka(), **ENFORCED, **GROUPLESS})


class RecordConsumer:
    """The group's member: polls records, releases them, and holds still while they can't be stored.

    Used by one thread. `on_rebalance` is called with assigned, revoked or lost and the partitions: with revoked before
    the last commit of them, so that it may still release some; `on_commit` with a commit's result.
    """

    def __init__(self, settings: Settings, on_rebalance: Rebalanced, on_commit: Counted) -> None:
        """Make the client; nothing is connected yet."""
        member = {"group.instance.id": settings.group_instance_id} if settings.group_instance_id else {}
        config = {**DEFAULTS, **settings.kafka(), **member, "group.id": settings.group, **ENFORCED}
        self._consumer = make_client(Consumer, config)
        self._group: str = settings.group
        self._topics = topic_names(settings.topic_prefix)
        self._on_rebalance = on_rebalance
        self._on_commit = on_commit
        self._held = False
        self._backlog: list[Record] = []
        self._released: Offsets = {}
        self._committed: Offsets = {}
        self._closing = False
        self._uncommitted = False
        self._committed_at_s = time.monotonic()

    def subscribe(self) -> None:
        """Ask to join the group; the assignment comes while polling."""
        self._consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def is_joined(self) -> bool:
        """Return whether the group has this process as a member."""
        return bool(self._consumer.memberid())

    def assigned(self) -> int:
        """Return how many partitions this process owns."""
        return len(self._consumer.assignment())

    def leads(self) -> bool:
        """Return whether this process owns the first partition of the first topic, as one member of the group does."""
        first = (self._topics[0], 0)
        return any((partition.topic, partition.partition) == first for partition in self._consumer.assignment())

    def lags(self) -> Offsets:
        """Return how many messages of each owned partition are not released, by what the last fetches said."""
        lags = {}
        for partition in self._consumer.assignment():
            place = (partition.topic, partition.partition)
            _, high = self._consumer.get_watermark_offsets(partition, cached=True)
            if high >= 0:
                lags[place] = max(0, high - self._released.get(place, 0))
        return lags

    def committed(self) -> Offsets:
        """Return the committed offset of each owned partition that has one."""
        return self._committed.copy()

    def poll(self, max_records: int, linger_s: float) -> list[Record]:
        """Return up to `max_records` records; blocks up to `linger_s`, longer during a rebalance.

        Raises OffsetsLost and BrokerRefused.
        """
        if self._backlog:
            records, self._backlog = self._backlog, []
            return records
        return self._consume(max_records, linger_s)

    def hold(self, wait: Callable[[float], object], wait_s: float, held_s: float) -> None:
        """Call `wait` with `wait_s` and take no records, as a living member of the group; `held_s`: how long so far.

        Raises as poll does.
        """
        wait(wait_s)
        if held_s < PAUSE_AFTER_S:
            return
        if not self._held:
            self._held = True
            self._consumer.pause(self._consumer.assignment())
        self._backlog.extend(self._consume(1, 0.0))

    def is_paused(self) -> bool:
        """Return whether it is held for so long that the broker is asked for nothing."""
        return self._held

    def resume(self) -> None:
        """End a hold."""
        if self._held:
            self._held = False
            self._consumer.resume(self._consumer.assignment())

    def release(self, offsets: Offsets) -> None:
        """Let go of what lies before these offsets; they are committed with the next commit."""
        for (topic, partition), offset in offsets.items():
            self._release(topic, partition, offset)

    def commit_when_due(self) -> None:
        """Commit what was released, at most once a second."""
        if self._uncommitted and time.monotonic() - self._committed_at_s >= COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> bool:
        """Commit what was released and return whether the broker has it; blocks for its answer."""
        self._committed_at_s = time.monotonic()
        try:
            for done in self._consumer.commit(asynchronous=False):
                if done.error is None and (place := (done.topic, done.partition)) in self._released:
                    self._committed[place] = done.offset
        except KafkaException as exc:
            name = exc.args[0].name()
            if name != "_NO_OFFSET":
                self._on_commit(name.lower().lstrip("_"))
                log.warning("offsets were not committed, the next commit tries again: %s", exc.args[0].str())
                return False
        else:
            self._on_commit("ok")
        self._uncommitted = False
        return True

    def ends(self) -> Offsets:
        """Return where each partition of the topics ends by now; asks the broker. Raises BrokerUnavailable."""
        try:
            return {place: end for topic in self._topics for place, end in self._ends_of(topic)}
        except KafkaException as exc:
            message = f"the broker did not say where the topics end: {exc.args[0].str()}"
            raise BrokerUnavailable(message) from exc

    def behind(self, ends: Offsets) -> int:
        """Return how many messages before `ends` are not released yet."""
        return sum(max(0, end - self._released.get(place, 0)) for place, end in ends.items())

    def close(self) -> None:
        """Commit, leave the group and let go of every thread."""
        if self._uncommitted:
            self.commit()
        self._closing = True
        self._consumer.close()

    def _consume(self, max_records: int, timeout_s: float) -> list[Record]:
        messages = self._consumer.consume(max_records, timeout_s)
        for message in messages:
            if (error := message.error()) is not None:
                self._check(error, f"{message.topic()}[{message.partition()}]")
        return [record_of(message) for message in messages if message.error() is None]

    def _check(self, error: KafkaError, place: str) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise OffsetsLost(offsets_lost(self._group, place, error.str()))
        if FENCED in error.str():  # its code is that of any fatal error
            text = f"another member of group {self._group!r} has the same VOICELOG_GROUP_INSTANCE_ID: give each its own"
            raise BrokerRefused(text)
        if error.fatal() or error.code() in REFUSALS:
            text = f"the broker refuses group {self._group!r}: {error.str()}; check the login and the rights (ACLs)"
            raise BrokerRefused(text)
        log.warning("broker: %s (%s)", error.str(), error.name())

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing:  # another member has just left; what a closing consumer asks is not answered
            return
        starts = self._starts(partitions)
        consumer.incremental_assign(starts)
        if self._held:
            consumer.pause(starts)
        else:
            consumer.resume(starts)
        for start in starts:
            self._released[start.topic, start.partition] = max(start.offset, 0)
            if start.offset >= 0:
                self._committed[start.topic, start.partition] = start.offset
        self._on_rebalance("assigned", _places(starts))
        log.info("assigned: %s", named(partitions))

    def _starts(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Give a partition without a committed offset its beginning, so that any other lack of one is an error."""
        deadline_s = time.monotonic() + MAX_ASSIGN_S
        while partitions:
            try:
                committed = self._consumer.committed(partitions, timeout=ASK_TIMEOUT_S)
            except KafkaException as exc:
                log.warning("the broker did not say where group %s stands: %s", self._group, exc.args[0].str())
                if time.monotonic() > deadline_s:
                    message = f"the broker does not say where group {self._group!r} stands: {exc.args[0].str()}"
                    raise BrokerUnavailable(message) from exc
            else:
                return [_start(partition) for partition in committed]
        return []

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop_backlog(partitions)
        self._on_rebalance("revoked", _places(partitions))
        self.commit()
        self._forget(partitions)
        log.info("revoked: %s", named(partitions))

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop_backlog(partitions)
        self._on_rebalance("lost", _places(partitions))
        self._forget(partitions)
        log.warning("lost to another member, which reads them again from the last commit: %s", named(partitions))

    def _drop_backlog(self, partitions: Sequence[TopicPartition]) -> None:
        gone = set(_places(partitions))
        self._backlog = [r for r in self._backlog if (r.topic, r.partition) not in gone]

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for place in _places(partitions):
            self._committed.pop(place, None)

    def _release(self, topic: str, partition: int, offset: int) -> None:
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset)])
        except KafkaException as exc:
            self._on_commit(exc.args[0].name().lower().lstrip("_"))
            log.info("%s[%d] is another member's by now: %s", topic, partition, exc.args[0].str())
        else:
            self._released[topic, partition] = offset
            self._uncommitted = True

    def _ends_of(self, topic: str) -> Iterator[tuple[Place, int]]:
        """Yield the end of each partition that holds messages."""
        for partition in self._consumer.list_topics(topic, timeout=ASK_TIMEOUT_S).topics[topic].partitions:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ASK_TIMEOUT_S)
            if high > low:
                yield (topic, partition), high


def named(partitions: Sequence[TopicPartition]) -> str:
    """Return the partitions for a log line: voice-events[0,3] stt-results[1]."""
    numbers: dict[str, list[int]] = {}
    for partition in partitions:
        numbers.setdefault(partition.topic, []).append(partition.partition)
    return " ".join(f"{topic}[{','.join(map(str, sorted(n)))}]" for topic, n in sorted(numbers.items())) or "nothing"


def offsets_lost(group: str, place: str, why: str) -> str:
    """Return the sentence for a group whose next message is gone from the broker."""
    return (
        f"group {group!r} stands at an offset of {place} that the broker does not have ({why}): the "
        "retention has deleted messages that were never read, or the topic was made anew; to go on with the oldest "
        "message that is there, start once with VOICELOG_KAFKA_CONFIG=auto.offset.reset=earliest"
    )


def _places(partitions: Iterable[TopicPartition]) -> list[Place]:
    return [(partition.topic, partition.partition) for partition in partitions]


def _start(partition: TopicPartition) -> TopicPartition:
    if partition.offset < 0:
        partition.offset = OFFSET_BEGINNING
    return partition


def record_of(message: Message) -> Record:
    """Return a message as it goes through the sink."""
    kind, timestamp_ms = message.timestamp()
    return Record(
        cast("str", message.topic()), cast("int", message.partition()), cast("int", message.offset()),
        message.key(), message.value(), cast("Headers", message.headers() or ()), timestamp_ms if kind else None,
    )  # fmt: skip
