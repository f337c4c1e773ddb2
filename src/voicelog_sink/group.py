"""Where a consumer group stands in its topics, and what it may do there. Reads only; joins nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are imported there, not in its __all__
    AclOperation,
    AdminClient,
    OffsetSpec,
)

from voicelog.settings import Settings
from voicelog_sink.client import make_client
from voicelog_sink.topics import translated

ASK_TIMEOUT_S = 10.0
RETRY_S = 0.2
SETTLE_S = 5.0
SETTLING = frozenset({
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
    KafkaError.GROUP_ID_NOT_FOUND,
})  # fmt: skip
"""What a broker says of groups while it starts: asked again for SETTLE_S."""
_SPEC: Any = OffsetSpec  # its methods have no types

_AND_RIGHTS: Any = {"include_authorized_operations": True, "request_timeout": ASK_TIMEOUT_S}

K = TypeVar("K")
T = TypeVar("T")


@attrs.frozen
class Standing:
    """One partition: its first offset and its end, and the group's next one; None where it has committed none.

    `newest_ms` is the largest time of its messages, epoch milliseconds by the broker's clock; None where it is empty.
    """

    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None
    newest_ms: int | None

    @property
    def lag(self) -> int:
        """How many messages the group has still to read."""
        return self.end - max(self.committed or 0, self.begin)

    @property
    def lost(self) -> int:
        """How many messages the broker deleted before the group had read them."""
        return max(0, self.begin - self.committed) if self.committed is not None else 0


@attrs.frozen
class Rights:
    """What this client may do, as the broker says; None where it does not."""

    topics: Mapping[str, frozenset[str] | None]
    group: frozenset[str] | None


class GroupAdmin:
    """Asks the broker about one group. Used by one thread; its methods block up to some ASK_TIMEOUT_S.

    They raise BrokerUnavailable or BrokerRefused.
    """

    def __init__(self, settings: Settings) -> None:
        """Make the client; nothing is connected yet."""
        self._group: str = settings.group
        self._admin = make_client(AdminClient, {"client.id": "voicelog-sink-admin", **settings.kafka()})

    def members(self) -> int:
        """Return how many processes are in the group."""
        return len(self._described().members)

    def rights(self, topics: Sequence[str]) -> Rights:
        """Return what this client may do with the topics and the group."""
        collection = TopicCollection(list(topics))
        described = _asked(lambda: _all(self._admin.describe_topics(collection, **_AND_RIGHTS)))
        allowed = {name: _names(answer.authorized_operations) for name, answer in described.items()}
        return Rights(allowed, _names(self._described().authorized_operations))

    def standings(self, topics: Sequence[str]) -> list[Standing]:
        """Return where the group stands in every partition of the topics that exist, in order."""
        live = _asked(lambda: self._admin.list_topics(timeout=ASK_TIMEOUT_S)).topics
        places = [(name, number) for name in topics if name in live for number in sorted(live[name].partitions)]
        if not places:
            return []
        begins = self._offsets(places, _SPEC.earliest())
        ends = self._offsets(places, _SPEC.latest())
        newest = self._offsets(places, _SPEC.max_timestamp())
        committed = self._committed(places)
        return [
            Standing(
                *place,
                begins[place].offset,
                ends[place].offset,
                committed.get(place),
                newest[place].timestamp if newest[place].timestamp > 0 else None,
            )
            for place in places
        ]

    def _offsets(self, places: Sequence[tuple[str, int]], spec: Any) -> dict[tuple[str, int], Any]:
        asked = {TopicPartition(*place): spec for place in places}
        answers = _asked(lambda: _all(self._admin.list_offsets(asked, request_timeout=ASK_TIMEOUT_S)))
        return {(partition.topic, partition.partition): answer for partition, answer in answers.items()}

    def _committed(self, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        asked = ConsumerGroupTopicPartitions(self._group, [TopicPartition(*place) for place in places])
        answers = _asked(lambda: _all(self._admin.list_consumer_group_offsets([asked], request_timeout=ASK_TIMEOUT_S)))
        found = answers[self._group].topic_partitions
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def _described(self) -> Any:
        answers = _asked(lambda: _all(self._admin.describe_consumer_groups([self._group], **_AND_RIGHTS)))
        return answers[self._group]


def _asked(ask: Callable[[], T]) -> T:
    end_s = time.monotonic() + SETTLE_S
    while True:
        try:
            return ask()
        except KafkaException as exc:
            if exc.args[0].code() not in SETTLING or time.monotonic() > end_s:
                raise translated(exc) from exc
        time.sleep(RETRY_S)


def _all(futures: Mapping[K, Any]) -> dict[K, Any]:
    """Return what each future gives; blocks until all have."""
    return {key: future.result() for key, future in futures.items()}


def _names(operations: Sequence[AclOperation] | None) -> frozenset[str] | None:
    return frozenset(operation.name for operation in operations) if operations is not None else None
