"""The dead letters: what can't be stored goes on to a topic of its own, unchanged, with the reason in headers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from voicelog.events import TOPIC_DEAD_LETTERS
from voicelog.settings import Settings
from voicelog_sink.client import make_client
from voicelog_sink.letters import headers_of
from voicelog_sink.pipeline import DeadLetter
from voicelog_sink.version import sink_version

log = logging.getLogger(__name__)

MAX_DEAD_LETTER_BYTES = 16 * 1024 * 1024
HEADER_ROOM_BYTES = 256 * 1024
DELIVERY_TIMEOUT_MS = 10_000

DEFAULTS = {
    "client.id": "voicelog-sink-dlq",
    "compression.type": "zstd",
    "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
    "reconnect.backoff.max.ms": 5_000,
    "socket.keepalive.enable": True,
}
ENFORCED = {
    "acks": "all",
    "enable.idempotence": True,
    "message.max.bytes": MAX_DEAD_LETTER_BYTES + HEADER_ROOM_BYTES,
    "allow.auto.create.topics": False,
}


class Delivery(NamedTuple):
    """What became of dead letters; `why` says what failed the first of those that are left, `kind` is its name."""

    sent: list[DeadLetter]
    left: list[DeadLetter]
    why: str
    kind: str


class DeadLetters:
    """The producer for what could not be stored. Used by one thread."""

    def __init__(self, settings: Settings) -> None:
        """Make the client; raises ConfigError for a setting that it refuses."""
        self.topic = settings.topic_prefix + TOPIC_DEAD_LETTERS
        self._config: dict[str, Any] = {**DEFAULTS, **settings.kafka(), **ENFORCED}
        self._producer: Producer = make_client(Producer, self._config)
        self._version = sink_version()

    def send(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Deliver the letters; return which were acknowledged and which are left. Blocks up to about 15 seconds.

        Never raises for what the broker does: the caller sends what is left again.
        """
        delivered: set[int] = set()
        failures: list[KafkaError] = []
        for index, letter in enumerate(letters):
            self._produce(letter, index, delivered, failures)
        self._flush(failures)
        sent = [letter for index, letter in enumerate(letters) if index in delivered]
        left = [letter for index, letter in enumerate(letters) if index not in delivered]
        if not failures:
            return Delivery(sent, left, "no acknowledgement in time", "no_acknowledgement")
        return Delivery(sent, left, failures[0].str(), failures[0].name().lower().lstrip("_"))

    def close(self) -> None:
        """Let go of the client; letters that were not acknowledged are given up, their offsets were not released."""
        self._producer.purge()
        self._producer.flush(1)

    def _produce(self, letter: DeadLetter, index: int, delivered: set[int], failures: list[KafkaError]) -> None:
        def acknowledged(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                delivered.add(index)
            else:
                failures.append(error)

        record = letter.record
        headers: list[tuple[str, str | bytes | None]] = [*record.headers, *headers_of(letter, self._version)]
        while True:
            try:
                self._producer.produce(
                    self.topic, record.value, record.key,
                    headers=headers, timestamp=record.timestamp_ms or 0, on_delivery=acknowledged,
                )  # fmt: skip
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as exc:
                failures.append(exc.args[0])
                return
            else:
                return

    def _flush(self, failures: list[KafkaError]) -> None:
        if self._producer.flush(DELIVERY_TIMEOUT_MS / 1000 + 5):
            self._producer.purge()
            self._producer.flush(1)
        if any(error.fatal() for error in failures):
            log.warning("the dead letters' producer is made anew after: %s", failures[0].str())
            self._producer = make_client(Producer, self._config)
