"""The producer: hands messages to librdkafka and never blocks the caller. The only importer of the Kafka client."""

from __future__ import annotations

import logging
import threading
from typing import Any, Protocol, cast

from confluent_kafka import KafkaError
from confluent_kafka import Producer as _Producer

from voicelog.counters import Counters
from voicelog.settings import Settings
from voicelog.wire import Headers

POLL_INTERVAL_S = 0.1
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


class KafkaProducer:
    """librdkafka's queue, with a daemon thread that takes its reports.

    acks=all and idempotent: what it reports as delivered is on every in-sync replica, once. Its memory is bounded by
    queue_max_messages and queue_max_bytes. Safe from any thread.
    """

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._producer = _Producer(_config(settings, self._on_error, self._on_report), logger=_librdkafka_log)
        self._produce = self._producer.produce
        self._prefix = settings.topic_prefix
        self._closing = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._poll, name="voicelog-poll", daemon=True)
        self._thread.start()

    def produce(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> str | None:
        """Take a message; return None, or the reason why it was dropped."""
        if self._closing.is_set():
            return "closed"
        try:
            self._produce(self._prefix + topic, value, key, headers=cast(Any, headers))
        except BufferError:
            self._warn_full()
            return "queue_full"
        except Exception as exc:  # a message larger than the queue, a closed handle: librdkafka refuses at once
            self._counters.warn_once("dropped", "refused", f"librdkafka refused an event: {exc}")
            return "refused"
        return None

    def queued(self) -> int:
        """Return how many messages wait for the broker's acknowledgement, and notices of librdkafka's to be taken."""
        return 0 if self._closed else len(self._producer)

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait."""
        return int(self._producer.flush(max(0.0, timeout_s)))

    def close(self, timeout_s: float) -> int:
        """Flush and stop; return how many messages were still waiting. They are given up, and counted as failed."""
        self._closing.set()
        left = self.flush(timeout_s)
        if left:
            self._producer.purge()
            self._producer.flush(0)
        self._thread.join(POLL_INTERVAL_S * 5)
        self._closed = True  # what librdkafka still counts are its own notices
        return left

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(POLL_INTERVAL_S)
            except Exception as exc:  # without this thread's reports the queue would fill and stay full
                self._counters.add("faults", "poll")
                self._counters.warn_once("faults", "poll", f"internal error in poll, your program goes on: {exc!r}")

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
