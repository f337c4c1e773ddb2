"""Oversize: what the broker refuses as too large is sent again, alone, and cut until the broker takes it.

A broker or a topic may take less than max_message_bytes, and does not say how much. It refuses a whole batch for its
size, so each message of the batch is sent again by itself; one that is refused by itself is cut to half, and to half
again.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from voicelog import cut, kafka, wire
from voicelog.counters import Counters
from voicelog.errors import DecodeError
from voicelog.kafka import MESSAGE_MAX_BYTES, BrokerError, Handle, Report, is_too_large
from voicelog.wire import Headers


class Oversize:
    """A second librdkafka that sends each message alone, begun when the broker first refuses one for its size.

    `limits` has the topics whose broker did so, and how long a value may be; their messages all come here, and are cut
    before they are sent. `done` is told of a message that is acknowledged or given up. Never blocks; safe from any
    thread.
    """

    def __init__(self, config: dict[str, Any], counters: Counters, done: Report) -> None:
        self._config = {
            **config, "batch.num.messages": 1, "linger.ms": 0, "delivery.report.only.error": False,
        }  # fmt: skip
        self._counters = counters
        self._done = done
        self._handle: Handle | None = None
        self._lock = threading.RLock()
        self.limits: dict[str, int] = {}

    def take(self, message: Any, done: Report | None = None) -> None:
        """Take a message that was refused, perhaps only since its batch was too large, and send it alone."""
        topic, value = message.topic(), message.value()
        self._learn(topic, MESSAGE_MAX_BYTES)
        try:
            self.send(topic, value, message.key(), _headers(value), done)
        except Exception as exc:  # no room, or not begun: an event that is not handed on is counted
            (done or self._done)(kafka.error_of(exc), message)

    def send(self, topic: str, value: bytes, key: bytes, headers: Headers | None, done: Report | None = None) -> None:
        """Send a message alone, cut to what the topic is known to take; raises BufferError when the queue is full."""
        limit = self.limits[topic]
        shorter = cut.shorten(value, limit) if len(value) > limit else None
        if shorter is not None:
            self._counters.add("cut")
        self._produce(topic, shorter or value, key, headers, done, shorter is not None)

    def _produce(
        self, topic: str, value: bytes, key: bytes, headers: Headers | None, done: Report | None, was_cut: bool
    ) -> None:
        report = partial(self._report, headers, done, was_cut)
        self._begun().produce(topic, value, key, -1, report, None, 0, headers)

    def _report(
        self, headers: Headers | None, done: Report | None, was_cut: bool, error: BrokerError | None, message: Any
    ) -> None:
        if is_too_large(error) and self._send_half(message, headers, done, was_cut):
            return
        (done or self._done)(error, message)

    def _send_half(self, message: Any, headers: Headers | None, done: Report | None, was_cut: bool) -> bool:
        """Cut a message that was refused by itself to half, and send it; return whether that could be done."""
        value: bytes = message.value()
        limit = max(cut.FLOOR_BYTES, len(value) // 2)
        self._learn(message.topic(), limit)
        shorter = cut.shorten(value, limit) if len(value) > limit else None
        if shorter is None:
            return False
        if not was_cut:
            self._counters.add("cut")
        try:
            self._produce(message.topic(), shorter, message.key(), headers, done, True)
        except Exception as exc:
            (done or self._done)(kafka.error_of(exc), message)
        return True

    def _learn(self, topic: str, limit: int) -> None:
        self.limits[topic] = min(limit, self.limits.get(topic, limit))
        self._counters.warn_once(
            "cut",
            topic,
            f"the broker refused events for topic {topic} as too large: each is sent alone now, and its texts are cut "
            "until it fits. Raise the topic's max.message.bytes, or lower VOICELOG_MAX_MESSAGE_BYTES.",
        )

    def _begun(self) -> Handle:
        with self._lock:
            if self._handle is None:
                self._handle = Handle(self._config, self._counters)
            return self._handle

    def queued(self) -> int:
        """Return how many messages wait for the broker's acknowledgement."""
        handle = self._handle
        return len(handle.kafka) if handle is not None else 0

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait."""
        handle = self._handle
        return handle.flush(timeout_s) if handle is not None else 0

    def end(self) -> bool:
        """Give up what still waits, and end librdkafka until the next message; return whether it has ended."""
        with self._lock:
            handle, self._handle = self._handle, None
        return handle is None or handle.give_up()

    def is_young(self) -> bool:
        """Return whether it has begun, and a fork would do harm."""
        handle = self._handle
        return handle is not None and handle.is_young()


def _headers(value: bytes) -> Headers | None:
    """Return the headers that an event had: librdkafka gives none back, so they are made from the event."""
    try:
        event = wire.decode(value)
    except DecodeError:
        return None
    span_id = event.span_id or event.parent_id
    if not event.trace_id or not span_id:
        return None
    return [("traceparent", f"00-{event.trace_id}-{span_id}-01".encode())]
