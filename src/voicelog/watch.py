"""The watcher: says that a stage is still open, so that a provider that hangs is seen while it hangs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voicelog.client import Client
    from voicelog.stage import Stage


class Watcher:
    """Open stages, and a daemon thread that emits one `stage_started` for each that is open for too long.

    A stage puts itself into `open` when it begins and takes itself out when it ends: one dict operation each. It holds
    no stage for longer than the limit, so that stages which never end don't gather.
    """

    def __init__(self, client: Client, after_ms: int) -> None:
        self._client = client
        self._after_ns = after_ms * 1_000_000
        self.open: dict[Stage, None] = {}
        self._stop = threading.Event()
        self._interval_s = min(1.0, max(0.02, after_ms / 4000))
        self._thread = threading.Thread(target=self._run, name="voicelog-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()

    def tell(self) -> None:
        """Emit stage_started for each stage that is open for longer than the limit, once, and let go of it."""
        now_ns = self._client.clock.now_ns()
        for stage in self.open.copy():
            session, start_ns = stage.place
            if now_ns - start_ns < self._after_ns:
                continue
            self.open.pop(stage, None)
            if stage and session and session.stream is not None:
                self._client.emit(session.stream, "stage_started", start_ns, stage.started_fields())

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.tell()
            except Exception as exc:
                self._client.fault("watcher", exc)
