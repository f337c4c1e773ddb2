"""The Kafka client: librdkafka's producer with the thread that takes its reports. The only importer of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError
from confluent_kafka import Producer as _Producer

from voicelog.counters import Counters
from voicelog.settings import Settings

BrokerError = KafkaError
"""What librdkafka says of a message or a broker, as `code()`, `name()` and `str()`."""
Report = Callable[[BrokerError | None, Any], None]
"""What is called for a message that was acknowledged (None) or given up: the error, and the message."""

POLL_INTERVAL_S = 0.1
YOUNG_S = 5.0
"""For so long librdkafka's threads may still hold OpenSSL's locks, as each seeds its random numbers once."""
MESSAGE_MAX_BYTES = 8 * 1024 * 1024
"""What the topics take; `voicelog-sink init` sets it there."""

_log = logging.getLogger("voicelog.librdkafka")
_log.setLevel(logging.CRITICAL + 1)


class Handle:
    """librdkafka's producer, and the daemon thread that takes its reports."""

    def __init__(self, config: dict[str, Any], counters: Counters) -> None:
        self.kafka = _Producer(config, logger=_log)
        self.produce: Callable[..., None] = self.kafka.produce
        """Takes topic, value, key, partition, two callbacks, timestamp and headers, by position."""
        self._counters = counters
        self._born_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="voicelog-poll", daemon=True)
        self._thread.start()

    def is_young(self) -> bool:
        """Return whether its threads may hold locks that a forked child would wait for."""
        return time.monotonic() - self._born_s <= YOUNG_S

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait."""
        return int(self.kafka.flush(max(0.0, timeout_s)))

    def stop(self) -> bool:
        """End the thread, and return whether it has ended; who is last to let go of the handle ends librdkafka."""
        self._stopping.set()
        self._thread.join(POLL_INTERVAL_S * 5)
        return not self._thread.is_alive()

    def give_up(self) -> bool:
        """Give up what still waits, which is reported as purged, and end the thread; return whether it has ended."""
        if len(self.kafka):
            self.kafka.purge()
            self.kafka.flush(0)
        return self.stop()

    def _poll(self) -> None:
        while not self._stopping.is_set():
            try:
                self.kafka.poll(POLL_INTERVAL_S)
            except Exception as exc:  # without this thread's reports the queue would fill and stay full
                self._counters.add("faults", "poll")
                self._counters.warn_once("faults", "poll", f"internal error in poll, your program goes on: {exc!r}")


def check(config: dict[str, Any]) -> None:
    """Raise for a setting that librdkafka refuses; starts nothing that lasts."""
    _Producer(config, logger=_log)


def is_too_large(error: KafkaError | None) -> bool:
    """Return whether the broker refused a message, or the batch it was in, for its size."""
    return error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE


def is_purged(error: KafkaError) -> bool:
    """Return whether a message was given up by us."""
    return error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


def is_final(error: KafkaError) -> bool:
    """Return whether a message can't be delivered however often it is tried: the fault is its own."""
    return error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD)


def error_of(exc: Exception) -> BrokerError:
    """Return librdkafka's error in an exception: that the queue is full, or else one that says failed."""
    if isinstance(exc, BufferError):
        return KafkaError(KafkaError._QUEUE_FULL)
    error = exc.args[0] if exc.args else None
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL)


def sentence_of(exc: Exception) -> str:
    """Return what an exception says; of librdkafka's its sentence and name."""
    error = exc.args[0] if exc.args else None
    return f"{error.str()} ({error.name()})" if isinstance(error, KafkaError) else str(exc)


def config(settings: Settings, on_report: Report, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """Return librdkafka's settings: acks=all and idempotent, its memory bounded, what the user gave on top."""
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


class Trouble:
    """Says once what librdkafka tells of the broker."""

    def __init__(self, settings: Settings, counters: Counters, waiting: str) -> None:
        self._sentence = f". Your program goes on; events wait {waiting}. Check VOICELOG_BROKERS."
        self._brokers = settings.brokers
        self._counters = counters

    def __call__(self, error: KafkaError) -> None:
        """Take librdkafka's error."""
        sentence = f"broker trouble at {self._brokers}: {error.str()}{self._sentence}"
        self._counters.warn_once("broker", "", sentence)
