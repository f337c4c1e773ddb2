"""Sending dead letters back to the topics that they were in: unchanged, and each acknowledged or said to be not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from voicelog.settings import Settings
from voicelog_sink.client import make_client
from voicelog_sink.deadletter import ENFORCED
from voicelog_sink.letters import Letter, headers_to_send

DELIVERY_TIMEOUT_MS = 30_000
ASK_TIMEOUT_S = 10.0
NO_ANSWER = "the broker did not acknowledge it in time; it may be there all the same"

DEFAULTS = {
    "client.id": "voicelog-sink-replay",
    "compression.type": "zstd",
    "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
    "reconnect.backoff.max.ms": 5_000,
    "socket.keepalive.enable": True,
}


class Replayed(NamedTuple):
    """What became of a letter: `failure` is None where the broker has acknowledged it."""

    letter: Letter
    failure: str | None


class Replayer:
    """The producer that sends letters back. Used by one thread."""

    def __init__(self, settings: Settings) -> None:
        """Make the client; raises ConfigError for a setting that it refuses."""
        config: dict[str, Any] = {**DEFAULTS, **settings.kafka(), **ENFORCED}
        self._producer: Producer = make_client(Producer, config)
        self._partitions: dict[str, int] = {}

    def send(self, letters: Sequence[Letter]) -> list[Replayed]:
        """Send the letters, which have a topic, and return what became of each, in their order.

        Each goes to the partition that it was in, so that what belongs together stays so. Blocks up to about 35
        seconds. Never raises for what the broker does.
        """
        failures: dict[int, str | None] = {}
        for index, letter in enumerate(letters):
            self._produce(letter, index, failures)
        if self._producer.flush(DELIVERY_TIMEOUT_MS / 1000 + 5):
            self._producer.purge()
            self._producer.flush(1)
        return [Replayed(letter, failures.get(index, NO_ANSWER)) for index, letter in enumerate(letters)]

    def close(self) -> None:
        """Let go of the client; what was not acknowledged is given up."""
        self._producer.purge()
        self._producer.flush(1)

    def _produce(self, letter: Letter, index: int, failures: dict[int, str | None]) -> None:
        def acknowledged(error: KafkaError | None, _message: Message) -> None:
            failures[index] = None if error is None else error.str()

        topic = str(letter.topic)
        try:
            partition = self._partition(topic, letter.topic_partition)
            while True:
                try:
                    self._producer.produce(
                        topic, letter.value, letter.key, partition,
                        headers=headers_to_send(letter), on_delivery=acknowledged,
                    )  # fmt: skip
                    return
                except BufferError:
                    self._producer.poll(0.1)
        except KafkaException as exc:
            failures[index] = exc.args[0].str()

    def _partition(self, topic: str, before: int | None) -> int:
        """Return the partition that a message was in; where the topic has none such, -1: the key decides."""
        if topic not in self._partitions:
            found = self._producer.list_topics(topic, timeout=ASK_TIMEOUT_S).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            self._partitions[topic] = len(found.partitions)
        return before if before is not None and before < self._partitions[topic] else -1
