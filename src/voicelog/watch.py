"""The watcher: says that a stage is still open, so that a provider that hangs is seen while it hangs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voicelog.client import Client
    from voicelog.stage import Stage


class Watcher:
    """Open stages, and a daemon thread that emits one `stage_started` for each that is open for too long.

    `opened` and `closed` are on the hot path: one dict operation each. It holds no stage for longer than the limit, so
    that stages which never end don't gather.
    """

    def __init__(self, client: Client, after_ms: int) -> None:
        self._client = client
        self._after_ns = after_ms * 1_000_000
        self._open: dict[int, Stage] = {}
        self._stop = threading.Event()
        self._interval_s = min(1.0, max(0.02, after_ms / 4000))
        self._thread = threading.Thread(target=self._run, name="voicelog-watch", daemon=True)
        self._thread.start()

    def opened(self, stage: Stage) -> None:
        """Take a stage that was entered."""
        self._open[id(stage)] = stage

    def closed(self, stage: Stage) -> None:
        """Let go of a stage that ended."""
        self._open.pop(id(stage), None)

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()

    def tell(self) -> None:
        """Emit stage_started for each stage that is open for longer than the limit, once, and let go of it."""
        now_ns = self._client.clock.now_ns()
        for key, stage in self._open.copy().items():
            session, start_ns = stage.place
            if now_ns - start_ns < self._after_ns:
                continue
            self._open.pop(key, None)
            if stage and session and session.stream is not None:
                self._client.emit(session.stream, "stage_started", start_ns, stage.started_fields())

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.tell()
            except Exception as exc:
                self._client.fault("watcher", exc)
