"""The background: one daemon thread a process, for what is said while nothing happens: hanging stages, heartbeats."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING

from voicelog.heartbeat import Heartbeat
from voicelog.watch import Watcher

if TYPE_CHECKING:
    from voicelog.client import Client

INTERVAL_S = 1.0
"""How often the thread wakes at most; it then costs some ten microseconds."""
MIN_INTERVAL_S = 0.02


class Background:
    """The thread that serves the watcher and the heartbeat.

    It starts with the process's first session or event outside of one, so that a program which only configures, and
    forks its workers, has no thread and says nothing. It keeps neither an event loop nor the interpreter alive.
    """

    def __init__(self, client: Client, sessions: Sized) -> None:
        after_ms, beat_ms = client.settings.stage_started_after_ms, client.settings.health_interval_ms
        self._client = client
        self.watcher = Watcher(client, after_ms) if after_ms else None
        stages = self.watcher.open if self.watcher is not None else None
        self.heartbeat = Heartbeat(client, beat_ms, sessions, stages) if beat_ms else None
        shortest_ms = min((ms for ms in (after_ms, beat_ms) if ms), default=0)
        self._interval_s = min(INTERVAL_S, max(MIN_INTERVAL_S, shortest_ms / 4000))
        self._stop = threading.Event()
        self._lock = threading.RLock()  # a finaliser or signal handler may emit while this thread starts it
        self.thread: threading.Thread | None = None

    def wake(self) -> None:
        """Start the thread unless it runs, and take note of the event loop that this is called in."""
        if self.heartbeat is not None:
            self.heartbeat.loops.know()
        if self.thread is None:
            self._try("background", self._start)

    def _start(self) -> None:
        with self._lock:
            if self.thread is None and not self._stop.is_set() and (self.watcher or self.heartbeat):
                thread = threading.Thread(target=self._run, name="voicelog-background", daemon=True)
                thread.start()
                self.thread = thread

    def close(self) -> None:
        """Stop the thread; does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            if self.watcher is not None:
                self._try("watcher", self.watcher.tell)
            if self.heartbeat is not None:
                self._try("heartbeat", self.heartbeat.tick)

    def _try(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as exc:
            self._client.fault(what, exc)
