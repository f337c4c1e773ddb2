"""The watcher: says that a stage is still open, so that a provider that hangs is seen while it hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voicelog.client import Client
    from voicelog.stage import Stage


class Watcher:
    """Open stages, and one `stage_started` for each that is open for too long.

    A stage puts itself into `open` when it begins and takes itself out when it ends: one dict operation each. It holds
    no stage for longer than the limit, so that stages which never end don't gather.
    """

    __slots__ = ("_after_ns", "_client", "open")

    def __init__(self, client: Client, after_ms: int) -> None:
        self._client = client
        self._after_ns = after_ms * 1_000_000
        self.open: dict[Stage, None] = {}

    def tell(self) -> None:
        """Emit stage_started for each stage that is open for longer than the limit, once, and let go of it."""
        now_ns = self._client.now_ns()
        for stage in self.open.copy():
            session, start_ns = stage.place
            if now_ns - start_ns < self._after_ns:
                continue
            self.open.pop(stage, None)
            if stage and session and session.stream is not None:
                self._client.emit(session.stream, "stage_started", start_ns, stage.started_fields())
