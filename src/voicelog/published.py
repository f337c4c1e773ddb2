"""A published stage: one whose times were measured elsewhere, and that is emitted at once."""

from __future__ import annotations

from typing import Any

from voicelog.clean import shown
from voicelog.client import state
from voicelog.events import STATUSES
from voicelog.stage import Stage


class Published(Stage):
    """A stage without a block."""

    __slots__ = ()

    def publish(
        self,
        end_ns: int,
        duration_ms: float | None,
        first_ms: float | None,
        status: str | None,
        error: BaseException | None,
        attempts: list[dict[str, Any]] | None = None,
    ) -> None:
        """Emit the stage with times and attempts measured elsewhere; raises what goes wrong.

        `end_ns` is monotonic. Without a duration the start is not known: the event has none, and sets no mark of it.
        """
        client = state.current
        if client is None:
            return
        if duration_ms is None:
            self._extra().untimed = True
        start_ns = end_ns - int((duration_ms or 0) * 1e6)
        self._begin(client, start_ns)
        if self._client is None:
            return
        if first_ms is not None:
            self._publish_first(start_ns, duration_ms, first_ms)
        if error is not None:
            self.fail(error)
        if attempts:
            self._fields["attempts"] = attempts
        if issubclass(type(status), str) and status in STATUSES:
            self._status = status
        elif status is not None:
            self._invalid("publish.status", f"status={shown(status)}: expected one of {', '.join(STATUSES)}")
        self._client = None
        self._finish(client, None, end_ns)

    def _publish_first(self, start_ns: int, duration_ms: float | None, first_ms: float) -> None:
        if duration_ms is None:
            self._first_ns = start_ns + int(first_ms * 1e6)
        elif first_ms > duration_ms:
            self._invalid(
                "publish.first_item_ms", f"first_item_ms={first_ms}: expected at most duration_ms={duration_ms}"
            )
        else:
            self.first_item(start_ns + int(first_ms * 1e6))
