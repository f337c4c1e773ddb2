"""Reading topics past the group: from where to where one likes, without a trace at the broker.

It assigns itself partitions, joins no group and commits no offset, so that it can't take work from a sink.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from voicelog.settings import Settings
from voicelog_sink.consumer import groupless, record_of
from voicelog_sink.errors import BrokerRefused, BrokerUnavailable, TopicsMissing
from voicelog_sink.pipeline import Record
from voicelog_sink.topics import INIT, unreachable
from voicelog_sink.watermark import Place

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 10.0
POLL_S = 0.2
"""How long a reader of what is yet to come waits before it says that nothing came."""
STALL_S = 30.0
"""A broker that gives nothing for so long, while there is something, is taken for one that does not answer."""
LOOK_AFTER_S = 30.0
LOOK_TIMEOUT_S = 2.0
"""How often a reader of what is yet to come looks for new partitions, and how long that may hold it up."""
FIRST_TIME_MS = 0

REFUSED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


class Span(NamedTuple):
    """A partition's offsets from `start` up to, and without, `end`."""

    start: int
    end: int


Spans = dict[Place, Span]


class TopicReader:
    """Reads partitions of topics, one use at a time. Used by one thread; a context manager."""

    def __init__(self, settings: Settings) -> None:
        """Make the client; nothing is connected yet. Raises ConfigError for a setting that it refuses."""
        self._settings = settings
        self._consumer = groupless(settings)

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def spans(self, topics: Iterable[str], since_ms: int | None = None) -> Spans:
        """Return what the topics hold now, by partition, without what lies before the first message since `since_ms`.

        Behind that one there may be older ones: messages may be stamped with a time that is not the broker's. Blocks
        up to start_timeout_ms. Raises BrokerUnavailable, BrokerRefused, TopicsMissing.
        """
        try:
            whole = {place: self._span(place) for topic in topics for place in self._places(topic)}
            return whole if since_ms is None else self._since(whole, since_ms)
        except KafkaException as exc:
            raise self._translated(exc.args[0]) from exc

    def read(self, spans: Mapping[Place, Span]) -> Iterator[Record]:
        """Yield the records in the spans, a partition's in their order; blocks for the broker.

        What the retention deletes meanwhile is left out. Raises BrokerUnavailable, BrokerRefused, TopicsMissing.
        """
        left = {place: span.end for place, span in spans.items() if span.start < span.end}
        self._assign({place: spans[place].start for place in left})
        heard_s = time.monotonic()
        while left:
            message = self._consumer.poll(POLL_S)
            if message is None:
                self._check_stall(heard_s)
                continue
            heard_s = time.monotonic()
            yield from self._within(message, left)

    def follow(self, starts: Mapping[Place, int]) -> Iterator[Record | None]:
        """Yield the records from these offsets on, for ever, and None whenever none came for a while.

        Partitions that the topics get meanwhile are read from their beginning. A broker that goes away is waited for.
        Raises BrokerRefused, TopicsMissing.
        """
        self._assign(starts)
        known, looked_s = set(starts), time.monotonic()
        while True:
            if time.monotonic() - looked_s >= LOOK_AFTER_S:
                self._assign_new(known)
                looked_s = time.monotonic()
            message = self._consumer.poll(POLL_S)
            if message is None:
                yield None
            elif (error := message.error()) is None:
                yield record_of(message)
            else:
                self._check(error)

    def _within(self, message: Message, left: dict[Place, int]) -> Iterator[Record]:
        """Yield the message where it lies before its partition's end; take a partition that is read out of `left`."""
        place = (str(message.topic()), int(message.partition() or 0))
        if (error := message.error()) is not None:
            self._check(error)
            if error.code() == KafkaError._PARTITION_EOF:
                left.pop(place, None)
        elif place in left:
            offset, end = int(message.offset() or 0), left[place]
            if offset + 1 >= end:
                del left[place]
                self._consumer.incremental_unassign([TopicPartition(*place)])  # a pause would outlive it
            if offset < end:
                yield record_of(message)

    def _assign(self, starts: Mapping[Place, int]) -> None:
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in starts.items()])

    def _assign_new(self, known: set[Place]) -> None:
        """Read the partitions too that are not known, and add them."""
        try:
            there = [place for topic in {topic for topic, _ in known} for place in self._places(topic, LOOK_TIMEOUT_S)]
        except KafkaException as exc:
            log.warning("the broker did not say which partitions there are: %s", exc.args[0].str())
            return
        new = [place for place in there if place not in known]
        if new:
            self._consumer.incremental_assign([TopicPartition(*place, OFFSET_BEGINNING) for place in new])
            known.update(new)

    def _places(self, topic: str, timeout_s: float | None = None) -> list[Place]:
        found = self._consumer.list_topics(topic, timeout=timeout_s or self._patience_s).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return [(topic, number) for number in sorted(found.partitions)]

    def _span(self, place: Place) -> Span:
        return Span(*self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=ASK_TIMEOUT_S))

    def _since(self, whole: Spans, since_ms: int) -> Spans:
        held = {place: span for place, span in whole.items() if span.start < span.end}
        found = self._first_at(held, since_ms)
        if -1 in found.values():
            # Nothing so new is there, or the broker does not know times, as the embedded one does not.
            knows = any(offset >= 0 for offset in self._first_at(held, FIRST_TIME_MS).values())
            found = {place: held[place].end if knows else held[place].start if offset < 0 else offset
                     for place, offset in found.items()}  # fmt: skip
        return {place: Span(found.get(place, span.end), span.end) for place, span in whole.items()}

    def _first_at(self, spans: Spans, at_ms: int) -> dict[Place, int]:
        """Return each partition's first offset with a time of `at_ms` or later; -1 where the broker knows none."""
        asked = [TopicPartition(*place, at_ms) for place in spans]
        answers = self._consumer.offsets_for_times(asked, timeout=ASK_TIMEOUT_S) if asked else []
        return {(answer.topic, answer.partition): max(answer.offset, -1) for answer in answers}

    def _check(self, error: KafkaError) -> None:
        """Raise what no waiting helps against; say the rest, which librdkafka tries again."""
        if error.code() in REFUSED | MISSING or error.fatal():
            raise self._translated(error)
        if error.code() not in (KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED):
            log.warning("broker: %s (%s)", error.str(), error.name())

    def _check_stall(self, heard_s: float) -> None:
        if time.monotonic() - heard_s > STALL_S:
            message = f"broker {self._settings.brokers} gave no message for {STALL_S:.0f} s, and there are more to read"
            raise BrokerUnavailable(message)

    def _translated(self, error: KafkaError) -> BrokerUnavailable | BrokerRefused | TopicsMissing:
        brokers = self._settings.brokers
        if error.code() in MISSING:
            message = f"broker {brokers} has not all topics: make them with `{INIT}`, or set VOICELOG_TOPIC_PREFIX"
            return TopicsMissing(message)
        if error.code() in REFUSED or error.fatal():
            message = f"broker {brokers} refuses to be read: {error.str()}; check the login and the rights (ACLs)"
            return BrokerRefused(message)
        return BrokerUnavailable(unreachable(brokers, self._settings.start_timeout_ms, error.str()))

    @property
    def _patience_s(self) -> float:
        return float(max(self._settings.start_timeout_ms / 1000, 1.0))
