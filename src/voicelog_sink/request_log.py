"""What the store's requests took: gathered in a list while they land, and told the metrics once a write."""

from __future__ import annotations

from collections import Counter

from voicelog_sink.metrics import Metrics
from voicelog_sink.stores.base import Asked


class RequestLog:
    """The requests since the last report. Used by the thread that uses the store."""

    def __init__(self, metrics: Metrics) -> None:
        """Gather for these metrics."""
        self._metrics = metrics
        self._asked: list[Asked] = []

    def note(self, asked: Asked) -> None:
        """Take one request that was answered, or failed."""
        self._asked.append(asked)

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
