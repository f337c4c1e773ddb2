"""Sending events to the broker as a bot would, each at its time: for `demo`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from voicelog import wire
from voicelog.events import Event
from voicelog.settings import Settings
from voicelog_sink.client import make_client
from voicelog_sink.deadletter import ENFORCED
from voicelog_sink.errors import BrokerUnavailable

DELIVERY_TIMEOUT_MS = 10_000
CONFIG = {"client.id": "voicelog-sink-demo", "delivery.timeout.ms": DELIVERY_TIMEOUT_MS}


class Player:
    """The producer of events that were recorded. Used by one thread."""

    def __init__(
        self, settings: Settings, events: Iterable[tuple[Event, float]], clock: Callable[[], float] = time.time
    ) -> None:
        """Take events with the moment of `clock` at which each is due; raises ConfigError for a wrong setting."""
        config: dict[str, Any] = {**CONFIG, **settings.kafka(), **ENFORCED}
        self._producer: Producer = make_client(Producer, config)
        self._prefix: str = settings.topic_prefix
        self._waiting = deque(events)
        self._clock = clock
        self._failures: list[KafkaError] = []
        self.produced = 0
        """Events that were given to the broker."""

    def is_done(self) -> bool:
        """Send what is due, and say whether that was all there is. Waits for nothing."""
        while self._waiting and self._waiting[0][1] <= self._clock():
            event, _ = self._waiting.popleft()
            message = wire.encode(event)
            self._producer.produce(self._prefix + message.topic, message.value, message.key, on_delivery=self._on)
            self.produced += 1
        self._producer.poll(0)
        return not self._waiting

    def finish(self) -> None:
        """Wait until the broker has acknowledged what was sent; raises BrokerUnavailable where it has not."""
        left = self._producer.flush(DELIVERY_TIMEOUT_MS / 1000 + 5)
        if left or self._failures:
            why = self._failures[0].str() if self._failures else "no answer in time"
            message = f"the broker has not taken {left + len(self._failures)} of {self.produced} events: {why}"
            raise BrokerUnavailable(message)

    def _on(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append(error)
