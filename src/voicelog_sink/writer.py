"""The writer: a thread that sees batches through one after another, so that the loop decodes the next meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

REST_S = 0.1
"""How often the thread looks after other work while there is no batch."""

T = TypeVar("T")


class Writer(Generic[T]):
    """A bounded queue and the thread that empties it, in order. Its methods are for one other thread.

    `keep` sees one batch through and blocks until it is; `rest` does what is due between batches. What either raises
    ends the thread, and is raised by the next `done`: nothing that was queued counts as seen through.
    """

    def __init__(
        self, keep: Callable[[T], None], rest: Callable[[], None], *, max_batches: int, max_bytes: int
    ) -> None:
        """Take up to `max_batches`, the one that is being written included, and about `max_bytes` of records."""
        self._keep = keep
        self._rest = rest
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._queue: deque[tuple[T, int]] = deque()
        self._done: deque[T] = deque()
        self._bytes = 0
        self._failure: BaseException | None = None
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread where it does not run: from here on, what `keep` and `rest` use is its own."""
        if self._thread is None:
            self._ending = False
            self._thread = threading.Thread(target=self._run, name="voicelog-writer", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the batch at hand; return whether it has ended, what it used being free again."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(timeout_s, 0))
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    @property
    def bytes(self) -> int:
        """The size of the records that are not seen through."""
        return self._bytes

    @property
    def batches(self) -> int:
        """The number of batches that are not seen through."""
        return len(self._queue)

    def queued(self) -> list[T]:
        """Return the batches that are not seen through, the one at hand or the next first."""
        with self._changed:
            return [batch for batch, _ in self._queue]

    def has_room(self) -> bool:
        """Return whether another batch may be submitted."""
        return len(self._queue) < self._max_batches and self._bytes < self._max_bytes

    def submit(self, batch: T, size_bytes: int) -> None:
        """Queue a batch; never blocks."""
        with self._changed:
            self._queue.append((batch, size_bytes))
            self._bytes += size_bytes
            self._changed.notify_all()

    def done(self) -> list[T]:
        """Return the batches that were seen through since the last call, in order; raises what ended the thread."""
        with self._changed:
            batches = list(self._done)
            self._done.clear()
            failure = self._failure if not batches else None
        if failure is not None:
            raise failure
        return batches

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is something for `done`; return whether there is."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._done) or self._failure is not None, timeout_s)

    def _run(self) -> None:
        try:
            while self._next():
                self._rest()
        except BaseException as exc:
            with self._changed:
                self._failure = exc
                self._changed.notify_all()

    def _next(self) -> bool:
        """See the next batch through, or wait a moment for one; return False when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ending, REST_S)
            if self._ending:
                return False
            if not self._queue:
                return True
            batch, size_bytes = self._queue[0]
        self._keep(batch)
        with self._changed:
            self._queue.popleft()
            self._bytes -= size_bytes
            self._done.append(batch)
            self._changed.notify_all()
        return True


def wait_until(condition: Callable[[], bool], wait: Callable[[float], object], timeout_s: float) -> bool:
    """Call `wait` with short times until `condition` holds or `timeout_s` is over; return whether it holds."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return False
        wait(min(left_s, 0.1))
    return True
