"""The spool's feed: hands records to librdkafka, a bounded number at a time, and settles each by its report."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from voicelog import kafka
from voicelog.counters import Counters
from voicelog.kafka import BrokerError, Handle, Report, Trouble
from voicelog.oversize import Oversize
from voicelog.settings import Settings
from voicelog.spool_file import Record, Segment

WINDOW = 10_000
"""Most messages that librdkafka has at a time; the others wait in the files."""
RETRY_S = 1.0
"""After what time a message that the broker refused is handed on again."""


class Feed:
    """librdkafka without a delivery timeout, begun when it is needed.

    `settled` is called for each message of this process that was delivered or given up for good; `wake` when there is
    room for more. `pause` makes it safe to fork. Reports come in librdkafka's thread, the rest is called from one
    thread.
    """

    def __init__(
        self, settings: Settings, counters: Counters, settled: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        self._counters = counters
        self._settled = settled
        self._wake = wake
        self._window = min(settings.queue_max_messages, WINDOW)
        waiting = f"in {settings.spool_dir} (up to {settings.spool_max_bytes} bytes)"
        self._config = {
            **kafka.config(settings, self._unexpected, Trouble(settings, counters, waiting)),
            "message.timeout.ms": 0,  # no timeout: a message waits in its file for as long as it takes
            "delivery.report.only.error": False,
            **settings.kafka_config,
        }
        self._oversize = Oversize(self._config, counters, self._unexpected)
        self._handle: Handle | None = None
        self._feeding = threading.Lock()
        self._lock = threading.RLock()
        self._paused = False
        self._out = 0
        kafka.check(self._config)

    def run(self, segments: list[Segment]) -> None:
        """Hand on what the segments hold, oldest first, for as long as librdkafka takes it."""
        with self._feeding:
            if not self._paused:
                all(self._run_one(segment) for segment in segments)

    def _run_one(self, segment: Segment) -> bool:
        """Hand on what a segment holds; return whether librdkafka takes more."""
        try:
            return self._run_through(segment)
        except OSError as exc:
            segment.position = segment.size
            name = errno.errorcode.get(exc.errno or 0, "OSError")
            sentence = f"the spool file {segment.path} can't be read: {exc.strerror or exc}; its events are lost"
            self._counters.report("spool_errors", name, sentence)
            return True

    def _run_through(self, segment: Segment) -> bool:
        if segment.again and time.monotonic() >= segment.again_at_s:
            with self._lock:
                again, segment.again = sorted(segment.again), []
            for index, start in enumerate(again):
                if not self._send_from(segment, start, segment.at(start)):
                    with self._lock:
                        segment.again += again[index:]
                    return False
        while segment.position < segment.size:
            for found in segment.ahead():
                if not self._send_from(segment, found.start, found.record):
                    return False
                segment.position = found.end
        return True

    def _send_from(self, segment: Segment, start: int, record: Record | None) -> bool:
        if record is None:
            self._counters.report("spool_corrupt", "", f"the spool file {segment.path} is damaged: a part is skipped")
            return True
        with self._lock:
            segment.outstanding += 1
        if self._send(record, partial(self._report, segment, start)):
            return True
        with self._lock:
            segment.outstanding -= 1
        return False

    def send(self, record: Record, done: Report) -> bool:
        """Hand one message on; return False when there is no room for it now. `done` gets its report."""
        with self._feeding:
            return not self._paused and self._send(record, done)

    def _send(self, record: Record, done: Report) -> bool:
        if self._out >= self._window:
            return False
        with self._lock:
            self._out += 1
        try:
            self._produce(record, done)
        except BufferError:
            with self._lock:
                self._out -= 1
            return False
        except Exception as exc:  # librdkafka refuses at once: the topic is not there, or the message is too large
            self._done(done, kafka.error_of(exc), None)
        return True

    def _produce(self, record: Record, done: Report) -> None:
        topic, key, value, headers = record
        if topic in self._oversize.limits:
            self._oversize.send(topic, value, key, headers, partial(self._done, done))
        else:
            self._begun().produce(topic, value, key, -1, partial(self._back, done), None, 0, headers)

    def _back(self, done: Report, error: BrokerError | None, message: Any) -> None:
        if kafka.is_too_large(error):
            self._oversize.take(message, partial(self._done, done))
        else:
            self._done(done, error, message)

    def _done(self, done: Report, error: BrokerError | None, message: Any) -> None:
        with self._lock:
            self._out -= 1
            room = self._out <= self._window // 2
        done(error, message)
        if room:
            self._wake()

    def _report(self, segment: Segment, start: int, error: BrokerError | None, _message: Any) -> None:
        again = error is not None and not kafka.is_final(error)
        with self._lock:
            segment.outstanding -= 1
            segment.settled += not again
            if again:
                segment.again.append(start)
                segment.again_at_s = time.monotonic() + RETRY_S
        if error is not None:
            self._say(error, again, segment.own)
        elif not segment.own:
            self._counters.add("replayed")
        if not again and segment.own:
            self._settled()

    def _say(self, error: BrokerError, again: bool, own: bool) -> None:
        if again and kafka.is_purged(error):
            return
        if again:
            sentence = f"the broker refuses events: {error.str()}; they wait in the spool and are sent again"
            self._counters.warn_once("spool", error.name(), sentence)
        else:  # what another process has produced must not be in this one's sum
            name = "failed" if own else "spool_errors"
            self._counters.report(name, error.name(), f"an event was not delivered: {error.str()}")

    def _unexpected(self, error: BrokerError | None, _message: Any) -> None:
        if error is not None:
            self._counters.add("faults", "spool_report")

    def _begun(self) -> Handle:
        if self._handle is None:
            self._handle = Handle(self._config, self._counters)
        return self._handle

    def pause(self, timeout_s: float) -> bool:
        """End a librdkafka that is too young to fork from, until `resume`; return whether a fork is safe.

        Waits up to `timeout_s` for acknowledgements; what is not acknowledged then is handed on again.
        """
        if not self._feeding.acquire(timeout=max(0.0, timeout_s)):
            return False
        try:
            handle = self._handle
            young = handle is not None and handle.is_young()
            if not young and not self._oversize.is_young():
                return True
            self._paused = True
            return self._end(timeout_s)
        finally:
            self._feeding.release()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False

    def end(self) -> bool:
        """Give up what librdkafka has, and end it for good; return whether it has ended."""
        self._paused = True
        return self._end(0)

    def _end(self, timeout_s: float) -> bool:
        handle, self._handle = self._handle, None
        if handle is None:
            return self._oversize.end()
        handle.flush(timeout_s)
        self._oversize.flush(timeout_s)
        ended = handle.give_up()
        return self._oversize.end() and ended
