"""The producer: hands messages to librdkafka and never blocks the caller. The only importer of the Kafka client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import KafkaError
from confluent_kafka import Producer as _Producer

from voicelog.counters import Counters
from voicelog.settings import Settings
from voicelog.wire import Headers

POLL_INTERVAL_S = 0.1
YOUNG_S = 5.0
"""For so long librdkafka's threads may still hold OpenSSL's locks, as each seeds its random numbers once."""
MESSAGE_MAX_BYTES = 8 * 1024 * 1024
"""What the topics take; `voicelog-sink init` sets it there."""

_librdkafka_log = logging.getLogger("voicelog.librdkafka")
_librdkafka_log.setLevel(logging.CRITICAL + 1)


class Producer(Protocol):
    """Where messages go; `voicelog.testing` has the other one."""

    def produce(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> str | None:
        """Take a message; return None, or the reason why it was dropped. Never blocks, never raises."""

    def queued(self) -> int:
        """Return how many messages wait for the broker's acknowledgement."""

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait."""

    def close(self, timeout_s: float) -> int:
        """Flush and stop; return how many messages were still waiting. Later messages are dropped as `closed`."""


class _Handle:
    """librdkafka's producer, and the daemon thread that takes its reports."""

    def __init__(self, config: dict[str, Any], counters: Counters) -> None:
        self.kafka = _Producer(config, logger=_librdkafka_log)
        self._counters = counters
        self._born_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="voicelog-poll", daemon=True)
        self._thread.start()

    def age_s(self) -> float:
        """Return for how many seconds librdkafka has run."""
        return time.monotonic() - self._born_s

    def stop(self) -> bool:
        """End the thread, and return whether it has ended; who is last to let go of the handle ends librdkafka."""
        self._stopping.set()
        self._thread.join(POLL_INTERVAL_S * 5)
        return not self._thread.is_alive()

    def _poll(self) -> None:
        while not self._stopping.is_set():
            try:
                self.kafka.poll(POLL_INTERVAL_S)
            except Exception as exc:  # without this thread's reports the queue would fill and stay full
                self._counters.add("faults", "poll")
                self._counters.warn_once("faults", "poll", f"internal error in poll, your program goes on: {exc!r}")


class KafkaProducer:
    """librdkafka's queue, begun at the first message.

    acks=all and idempotent: what it reports as delivered is on every in-sync replica, once. Its memory is bounded by
    queue_max_messages and queue_max_bytes. Safe from any thread.
    """

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._config = _config(settings, self._on_error, self._on_report)
        self._prefix = settings.topic_prefix
        self._handle: _Handle | None = None
        self._produce: Callable[..., None] = self._begin_and_produce
        self._held: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._lock = threading.RLock()
        self._closing = False
        _Producer(self._config, logger=_librdkafka_log)  # raises for a setting that librdkafka refuses

    def produce(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> str | None:
        """Take a message; return None, or the reason why it was dropped."""
        if self._closing:
            return "closed"
        try:
            self._produce(self._prefix + topic, value, key, headers=headers)
        except BufferError:
            self._warn_full()
            return "queue_full"
        except Exception as exc:  # a message larger than the queue, a closed handle: librdkafka refuses at once
            self._counters.warn_once("dropped", "refused", f"librdkafka refused an event: {exc}")
            return "refused"
        return None

    def _begin_and_produce(self, *parts: Any, **more: Any) -> None:
        with self._lock:
            if self._closing:
                message = "it is closed"
                raise RuntimeError(message)
            if self._handle is None:
                self._handle = _Handle(self._config, self._counters)
            self._produce = self._handle.kafka.produce
        self._produce(*parts, **more)

    def queued(self) -> int:
        """Return how many messages wait for the broker's acknowledgement, and notices of librdkafka's to be taken."""
        handle = self._handle
        return len(self._held) + (len(handle.kafka) if handle is not None else 0)

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait."""
        handle = self._handle
        return int(handle.kafka.flush(max(0.0, timeout_s))) if handle is not None else 0

    def close(self, timeout_s: float) -> int:
        """Flush and stop; return how many messages were still waiting. They are given up, and counted as failed."""
        self._closing = True
        left = self.flush(timeout_s)
        with self._lock:
            handle, self._handle, self._produce = self._handle, None, self._begin_and_produce
        if handle is not None:
            if left:
                handle.kafka.purge()
                handle.kafka.flush(0)
            handle.stop()
        return left

    def rest(self, timeout_s: float) -> bool:
        """Make librdkafka safe to fork from; return whether it is.

        While its threads are young they may hold locks that a child would wait for for ever. So within the first
        seconds the queue is emptied, for which it waits up to `timeout_s`, and librdkafka ended; messages are held
        until `wake`.
        """
        handle = self._handle
        if handle is None or handle.age_s() > YOUNG_S:
            return True
        with self._lock:
            self._produce = self._hold
        if handle.kafka.flush(timeout_s):
            return False
        self._handle = None
        return handle.stop()

    def wake(self) -> None:
        """Go on after a fork, in the parent, with what was held."""
        with self._lock:
            if self._produce != self._hold:
                return
            self._produce = self._begin_and_produce
            held, self._held = self._held, []
        for parts, more in held:
            try:
                self._produce(*parts, **more)
            except Exception:
                self._counters.add("failed", "_FORK")

    def _hold(self, *message: Any, **more: Any) -> None:
        if len(self._held) >= self._settings.queue_max_messages:
            raise BufferError
        self._held.append((message, more))

    def _on_report(self, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            return
        if error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):  # shutdown() says how many
            self._counters.add("failed", error.name())
        else:
            self._counters.report(
                "failed",
                error.name(),
                f"an event was not delivered: {error.str()}; brokers {self._settings.brokers}, "
                f"delivery_timeout_ms {self._settings.delivery_timeout_ms}",
            )

    def _on_error(self, error: KafkaError) -> None:
        self._counters.warn_once(
            "broker",
            "",
            f"broker trouble at {self._settings.brokers}: {error.str()}. Your program goes on; events wait in memory "
            f"(up to {self._settings.queue_max_messages}) and are counted when dropped. Check VOICELOG_BROKERS.",
        )

    def _warn_full(self) -> None:
        self._counters.warn_once(
            "dropped",
            "queue_full",
            f"the queue is full ({self._settings.queue_max_messages} events, {self._settings.queue_max_bytes} bytes): "
            f"new events are dropped and counted. Is the broker at {self._settings.brokers} reachable and fast enough?",
        )


def _config(settings: Settings, on_error: Any, on_report: Any) -> dict[str, Any]:
    return {
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": settings.linger_ms,
        "compression.type": "lz4",
        "queue.buffering.max.messages": settings.queue_max_messages,
        "queue.buffering.max.kbytes": max(1, settings.queue_max_bytes // 1024),
        "message.timeout.ms": settings.delivery_timeout_ms,
        "message.max.bytes": MESSAGE_MAX_BYTES,
        "delivery.report.only.error": True,  # counting what was delivered must not cost a callback an event
        "log.connection.close": False,
        "client.id": f"voicelog-{settings.service}",
        **settings.kafka(),
        "error_cb": on_error,
        "on_delivery": on_report,
    }
