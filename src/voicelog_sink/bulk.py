"""A histogram that takes many values at once, where one `observe` for each would cost more than what it measures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class BulkHistogram(Collector):
    """A histogram for a registry. Thread-safe."""

    def __init__(self, name: str, text: str, labels: Labels, bounds: Sequence[float]) -> None:
        """Begin without values; `bounds` are the buckets' upper ones, ascending, infinity left out."""
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = tuple(bounds)
        self._names = [*map(floatToGoString, self._bounds), "+Inf"]
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        self._lock = Lock()

    def add(self, values: Iterable[float], labels: Labels = ()) -> None:
        """Add values, all under the same labels."""
        with self._lock:
            counts = self._counts.setdefault(labels, [0] * len(self._names))
            total = self._sums.get(labels, 0.0)
            for value in values:
                counts[bisect_left(self._bounds, value)] += 1
                total += value
            self._sums[labels] = total

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric as the registry asks for it."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        with self._lock:
            for labels, counts in self._counts.items():
                buckets = list(zip(self._names, map(float, accumulate(counts)), strict=True))
                family.add_metric(labels, buckets, self._sums[labels])
        yield family
