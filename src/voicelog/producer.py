"""The producer: hands messages to librdkafka and never blocks the caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from voicelog import kafka
from voicelog.counters import Counters
from voicelog.events import TOPICS
from voicelog.kafka import BrokerError, Handle, Trouble
from voicelog.oversize import Oversize
from voicelog.settings import Settings
from voicelog.wire import Headers


class Producer(Protocol):
    """Where messages go; `voicelog.testing` has another one, `voicelog.spool` the one with a file."""

    def produce(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> str | None:
        """Take a message; return None, or the reason why it was dropped. Never blocks, never raises."""

    def queued(self) -> int:
        """Return how many messages wait for the broker's acknowledgement."""

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait."""

    def close(self, timeout_s: float) -> int:
        """Flush and stop; return how many messages were still waiting. Later messages are dropped as `closed`."""

    def loss(self, left: int, timeout_s: float) -> str:
        """Return the sentence that says what became of the messages which were left at the close."""


class KafkaProducer:
    """librdkafka's queue, begun at the first message.

    acks=all and idempotent: what it reports as delivered is on every in-sync replica, once. Its memory is bounded by
    queue_max_messages and queue_max_bytes. Safe from any thread.
    """

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        waiting = f"in memory (up to {settings.queue_max_messages}) and are counted when dropped"
        self._config = kafka.config(settings, self._on_report, Trouble(settings, counters, waiting))
        self._oversize = Oversize(self._config, counters, self._settle)
        self._topics = {topic: settings.topic_prefix + topic for topic in TOPICS}
        self._handle: Handle | None = None
        self._produce: Callable[..., None] = self._begin_and_produce
        self._held: list[tuple[Any, ...]] = []
        self._lock = threading.RLock()
        self._closing = False
        kafka.check(self._config)

    def produce(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> str | None:
        """Take a message; return None, or the reason why it was dropped."""
        try:
            self._produce(self._topics[topic], value, key, -1, None, None, 0, headers)
        except Exception as exc:
            return self._reason(exc)
        return None

    def _reason(self, exc: Exception) -> str:
        if self._closing:
            return "closed"
        if isinstance(exc, BufferError):
            self._warn_full()
            return "queue_full"
        # a message larger than the queue, a topic that is not there, a closed handle: librdkafka refuses at once
        self._counters.warn_once("dropped", "refused", f"librdkafka refused an event: {kafka.sentence_of(exc)}")
        return "refused"

    def _begin_and_produce(self, *message: Any) -> None:
        with self._lock:
            if self._closing:
                self._refuse()
            if self._handle is None:
                self._handle = Handle(self._config, self._counters)
            self._produce = self._route if self._oversize.limits else self._handle.produce
        self._produce(*message)

    def _route(self, topic: str, value: bytes, key: bytes, *more: Any) -> None:
        """Produce where a topic's broker has refused a message for its size."""
        handle = self._handle
        if topic in self._oversize.limits:
            self._oversize.send(topic, value, key, more[-1])
        elif handle is not None:
            handle.produce(topic, value, key, *more)
        else:
            self._begin_and_produce(topic, value, key, *more)

    def _refuse(self, *_message: Any) -> None:
        message = "it is closed"
        raise RuntimeError(message)

    def queued(self) -> int:
        """Return how many messages wait for the broker's acknowledgement, and notices of librdkafka's to be taken."""
        handle = self._handle
        return len(self._held) + (len(handle.kafka) if handle is not None else 0) + self._oversize.queued()

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait."""
        handle = self._handle
        end_s = time.monotonic() + timeout_s
        left = handle.flush(timeout_s) if handle is not None else 0
        return left + self._oversize.flush(end_s - time.monotonic())  # what was too large has got there by now

    def close(self, timeout_s: float) -> int:
        """Flush and stop; return how many messages were still waiting. They are given up, and counted as failed."""
        with self._lock:
            self._closing = True
            self._produce = self._refuse
            held, self._held = self._held, []
        for _ in held:  # another thread forks at this moment
            self._counters.add("failed", "_FORK")
        left = len(held) + self.flush(timeout_s)
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.give_up()
        self._oversize.end()
        return left

    def loss(self, left: int, timeout_s: float) -> str:
        """Return the sentence that says what became of the messages which were left at the close."""
        return (
            f"{left} events were not acknowledged by {self._settings.brokers} within {timeout_s:.1f} s and are lost; "
            "is the broker reachable?"
        )

    def rest(self, timeout_s: float) -> bool:
        """Make librdkafka safe to fork from; return whether it is.

        While its threads are young they may hold locks that a child would wait for for ever. So within the first
        seconds the queue is emptied, for which it waits up to `timeout_s`, and librdkafka ended; messages are held
        until `wake`.
        """
        handle = self._handle
        young = handle is not None and handle.is_young()
        if not young and not self._oversize.is_young():
            return True
        with self._lock:
            self._produce = self._hold
        if self.flush(timeout_s):
            return False
        if young:
            self._handle = None
        return self._oversize.end() and (handle is None or not young or handle.stop())

    def wake(self) -> None:
        """Go on after a fork, in the parent, with what was held."""
        with self._lock:
            if self._produce != self._hold:
                return
            self._produce = self._begin_and_produce
            held, self._held = self._held, []
        for message in held:
            try:
                self._produce(*message)
            except Exception:
                self._counters.add("failed", "_FORK")

    def _hold(self, *message: Any) -> None:
        if len(self._held) >= self._settings.queue_max_messages:
            raise BufferError
        self._held.append(message)

    def _on_report(self, error: BrokerError | None, message: Any) -> None:
        if kafka.is_too_large(error):
            self._oversize.take(message)
            self._detour()
        else:
            self._settle(error, message)

    def _settle(self, error: BrokerError | None, _message: Any) -> None:
        if error is None:
            return
        if kafka.is_purged(error):  # shutdown() says how many
            self._counters.add("failed", error.name())
            return
        self._counters.report(
            "failed",
            error.name(),
            f"an event was not delivered: {error.str()}; brokers {self._settings.brokers}, "
            f"delivery_timeout_ms {self._settings.delivery_timeout_ms}",
        )

    def _detour(self) -> None:
        with self._lock:
            if not self._closing and self._produce != self._hold:
                self._produce = self._route

    def _warn_full(self) -> None:
        self._counters.warn_once(
            "dropped",
            "queue_full",
            f"the queue is full ({self._settings.queue_max_messages} events, {self._settings.queue_max_bytes} bytes): "
            f"new events are dropped and counted. Is the broker at {self._settings.brokers} reachable and fast enough?",
        )
