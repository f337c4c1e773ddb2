"""The spool: a producer whose messages go through files, so that they survive a broker that is away, and kill -9."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from voicelog.counters import Counters
from voicelog.events import TOPICS
from voicelog.kafka import BrokerError
from voicelog.settings import Settings
from voicelog.spool_disk import Disk
from voicelog.spool_feed import Feed
from voicelog.spool_file import Record, Segment, framed
from voicelog.wire import Headers

GATHER_S = 0.005
"""How long events are gathered for one write; a kill -9 within it loses them."""
TICK_S = 0.1
DISK_RETRY_S = 5.0
BATCH = 1000
FRAME_BYTES = 100
"""About what a message takes in a file beside its key and value."""
LAST_WRITE_S = 2.0


class SpoolProducer:
    """A bounded list in memory, a thread that writes it to files, and librdkafka, which is fed from them.

    Begun at the first message; then the files of dead processes are sent too. A message waits in its file until the
    broker has acknowledged it. It is on disk for the operating system, not fsynced: it survives the process, not the
    machine. When the disk fails, messages wait in memory. Safe from any thread.
    """

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._disk = Disk(Path(settings.spool_dir), settings.spool_max_bytes)
        self._topics = {topic: settings.topic_prefix + topic for topic in TOPICS}
        self._lock = threading.RLock()
        self._pending: deque[Record] = deque()
        self._pending_bytes = 0
        self._taken = self._settled = 0
        self._broken_until_s = 0.0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._feed = Feed(settings, counters, self._settle, self._wake.set)

    def produce(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> str | None:
        """Take a message; return None, or the reason why it was dropped."""
        size = len(key) + len(value) + FRAME_BYTES
        with self._lock:
            if self._closing:
                return "closed"
            if not self._has_room(size):
                self._warn_full()
                return "spool_full"
            self._pending.append(Record(self._topics[topic], key, value, headers))
            self._pending_bytes += size
            self._taken += 1
            if self._thread is None:
                self._begin()
        if not self._wake.is_set():
            self._wake.set()
        return None

    def _has_room(self, size: int) -> bool:
        """Return whether memory and files have room for a message; the lock is held."""
        pending = self._pending_bytes + size
        if len(self._pending) >= self._settings.queue_max_messages or pending > self._settings.queue_max_bytes:
            return False
        return bool(self._broken_until_s) or self._disk.used_bytes + pending <= self._settings.spool_max_bytes

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="voicelog-spool", daemon=True)
        self._thread.start()

    def queued(self) -> int:
        """Return how many messages of this process wait, in memory or in its files."""
        with self._lock:
            return self._taken - self._settled

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for acknowledgements; return how many messages still wait, those of dead ones too."""
        end_s = time.monotonic() + timeout_s
        while (left := self._left()) and time.monotonic() < end_s and not self._stopping.wait(0.01):
            self._wake.set()
        return left

    def _left(self) -> int:
        with self._lock:
            adopted = [segment for segment in self._disk.segments() if not segment.own and not segment.is_done()]
            waiting = sum(max(1, segment.outstanding + len(segment.again)) for segment in adopted)
            return self._taken - self._settled + waiting

    def close(self, timeout_s: float) -> int:
        """Flush and stop; return how many messages still wait: in files, for the next process that uses them."""
        with self._lock:
            self._closing = True
        self.flush(timeout_s)
        self._stopping.set()
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join(LAST_WRITE_S)
        left, settled = self._left(), self._settled
        self._feed.end()
        with self._lock:
            unwritten, self._pending = self._pending, deque()
        for _ in unwritten:
            self._lose("_UNWRITTEN")
        self._lost = self._settled - settled
        if thread is None or not thread.is_alive():
            self._on_disk(self._disk.close)
        return left

    def loss(self, left: int, timeout_s: float) -> str:
        """Return the sentence that says what became of the messages which were left at the close."""
        kept = left - self._lost
        if not kept:
            return (
                f"{self._lost} events could neither be written to {self._disk.directory} nor sent to "
                f"{self._settings.brokers}, and are lost; check VOICELOG_SPOOL_DIR"
            )
        lost = f"; {self._lost} could not be written there and are lost" if self._lost else ""
        return (
            f"{kept} events were not acknowledged by {self._settings.brokers} within {timeout_s:.1f} s: they stay in "
            f"{self._disk.directory} and are sent by the next program that uses it{lost}"
        )

    def rest(self, timeout_s: float) -> bool:
        """Make librdkafka safe to fork from, as KafkaProducer.rest; return whether it is. Messages wait in files."""
        return self._feed.pause(timeout_s)

    def wake(self) -> None:
        """Go on after a fork, in the parent."""
        self._feed.resume()
        self._wake.set()

    def let_go(self) -> None:
        """Close, in a forked child, the files and locks that are its parent's; the parent keeps them."""
        self._disk.let_go()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(TICK_S)
            self._wake.clear()
            self._stopping.wait(GATHER_S)
            try:
                self._step()
            except Exception as exc:  # without this thread nothing would be sent
                self._counters.report("faults", "spool", f"internal error in the spool, your program goes on: {exc!r}")
        try:
            self._write()
        except Exception as exc:
            self._counters.report("faults", "spool", f"internal error in the spool at its end: {exc!r}")

    def _step(self) -> None:
        self._write()
        self._on_disk(self._disk.look_around)
        self._feed.run(self._disk.segments())
        if self._broken_until_s:
            self._feed_from_memory()
        self._on_disk(lambda: self._disk.tidy(self._lose_harmed))

    def _write(self) -> None:
        """Write what waits in memory; when the disk refuses, leave it there for some seconds."""
        if time.monotonic() < self._broken_until_s and not self._stopping.is_set():
            return
        while self._pending:
            batch = self._batch()
            try:
                self._disk.append(batch)
            except OSError as exc:
                self._broken_until_s = time.monotonic() + DISK_RETRY_S
                self._count_disk(exc)
                return
            self._broken_until_s = 0.0
            self._take(len(batch))
            self._counters.add("spooled", number=len(batch))

    def _batch(self) -> list[bytes]:
        """Return what the next write takes: about as much as a file does."""
        with self._lock:
            records = list(islice(self._pending, BATCH))
        frames, size = [], 0
        for record in records:
            frames.append(framed(record))
            size += len(frames[-1])
            if size >= self._disk.segment_bytes:
                break
        return frames

    def _take(self, count: int) -> None:
        """Take the first messages out of memory; only this thread does."""
        with self._lock:
            for _ in range(count):
                record = self._pending.popleft()
                self._pending_bytes -= len(record.key) + len(record.value) + FRAME_BYTES

    def _feed_from_memory(self) -> None:
        """Hand messages on that can't be written."""
        while self._pending and self._feed.send(self._pending[0], self._report_from_memory):
            self._take(1)

    def _report_from_memory(self, error: BrokerError | None, _message: Any) -> None:
        if error is not None:
            self._lose(error.name())
        else:
            self._settle()

    def _on_disk(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as exc:
            self._count_disk(exc)

    # --- counting -----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        with self._lock:
            self._settled += 1

    def _lose(self, reason: str) -> None:
        self._counters.add("failed", reason)
        self._settle()

    def _lose_harmed(self, segment: Segment) -> None:
        """Count what this process has written and could not read again: damaged, or deleted by someone."""
        for _ in range(segment.settled, segment.written):
            self._lose("_SPOOL_DAMAGED")

    def _count_disk(self, exc: OSError) -> None:
        name = errno.errorcode.get(exc.errno or 0, "OSError")
        self._counters.report(
            "spool_errors",
            name,
            f"the spool in {self._disk.directory} can't be used: {exc.strerror or exc}. Your program goes on; "
            f"events wait in memory (up to {self._settings.queue_max_messages}). Check VOICELOG_SPOOL_DIR.",
        )

    def _warn_full(self) -> None:
        self._counters.warn_once(
            "dropped",
            "spool_full",
            f"the spool is full ({self._settings.spool_max_bytes} bytes in {self._disk.directory}, "
            f"{self._settings.queue_max_messages} events in memory): new events are dropped and counted. Is the broker "
            f"at {self._settings.brokers} reachable, and the disk fast enough?",
        )
