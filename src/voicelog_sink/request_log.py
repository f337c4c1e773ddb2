"""What the store's requests took: gathered in a list while they land, and told the metrics once a write.

Each that lands also shows that the store's thread gets on, however long the whole write takes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from voicelog_sink.metrics import Metrics
from voicelog_sink.stores.base import Asked

BEAT_EVERY_S = 1.0


class RequestLog:
    """The requests since the last report. Used by the thread that uses the store."""

    def __init__(self, metrics: Metrics, beat: Callable[[], None]) -> None:
        """Gather for these metrics; call `beat` when a request lands, at most once a second."""
        self._metrics = metrics
        self._beat = beat
        self._next_beat_s = -math.inf
        self._asked: list[Asked] = []

    def note(self, asked: Asked) -> None:
        """Take one request that was answered, or failed."""
        self._asked.append(asked)
        if asked.end_s >= self._next_beat_s:
            self._next_beat_s = asked.end_s + BEAT_EVERY_S
            self._beat()

    def report(self) -> None:
        """Tell the metrics of what was gathered."""
        if not self._asked:
            return
        asked, self._asked = self._asked, []
        seconds: dict[str, list[float]] = {}
        for request in asked:
            seconds.setdefault(request.table, []).append(request.end_s - request.start_s)
        for table, values in seconds.items():
            self._metrics.observe_many("store_request_seconds", values, table)
        self._metrics.observe_many("rows_per_request", [request.rows for request in asked])
        for reason, count in Counter(request.error for request in asked if request.error).items():
            self._metrics.count("store_errors_total", count, reason=reason)
