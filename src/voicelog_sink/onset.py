"""The minute in which a departure began: from the minutes of its first hour and of the hour before.

By the sums of Page's test (Biometrika 41, 1954): each minute adds how many of its values were above the usual median,
less how many that would be half-way between what is usual and what came. While all is as usual the sum falls, and
afterwards it rises: it began where the sum is lowest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from voicelog_sink.hourly import ERROR_RATE, POINTS, unpacked
from voicelog_sink.parts import MINUTE_MS
from voicelog_sink.rolled import Key
from voicelog_sink.rollup import Rollup, period_of
from voicelog_sink.rows import hour_of
from voicelog_sink.stores.base import Store
from voicelog_sink.tables import METRIC_ROLLUPS
from voicelog_sink.tiers import HOUR_MS

Counted = tuple[int, int]
"""Of how many values, and how many of them are above."""


class Onsets:
    """Looks for beginnings within a name's minutes, each hour read once. Used by one thread."""

    def __init__(self, store: Store, name: str, dimensions: Sequence[str]) -> None:
        """Read nothing yet."""
        self._store = store
        self._name = name
        self._dimensions = tuple(dimensions)
        self._hours: dict[int, dict[Key, dict[int, Rollup]]] = {}

    def rise_ms(self, key: Key, hour: int, measure: str, median: float, sign: float) -> int:
        """Return when it began that `measure` is above (`sign` 1) or below (-1) its usual `median` in that hour.

        Blocks for two queries at most; raises StoreError, and SinkError for a rollup that can't be read. A measure that
        minutes say nothing of began with the hour.
        """
        counter = counter_of(measure, median)
        if counter is None:
            return hour * HOUR_MS
        minutes = self._minutes(key, hour)
        counted = {minute: counter(rollup) for minute, rollup in minutes.items()}
        usual = 1 - POINTS[measure] if measure in POINTS else median
        return began(counted, hour * 60, usual, sign) * MINUTE_MS

    def stop_ms(self, key: Key, hour: int) -> int:
        """Return when the last minute ended in which there was something; as `rise_ms` does."""
        last = max((minute for minute, rollup in self._minutes(key, hour).items() if rollup.count), default=None)
        return hour * HOUR_MS if last is None else (last + 1) * MINUTE_MS

    def _minutes(self, key: Key, hour: int) -> dict[int, Rollup]:
        """Return the minutes, since the epoch, of that hour and the one before."""
        return {m: rollup for h in (hour - 1, hour) for m, rollup in self._hour(h).get(key, {}).items()}

    def _hour(self, hour: int) -> dict[Key, dict[int, Rollup]]:
        if hour not in self._hours:
            found: defaultdict[Key, defaultdict[int, Rollup]] = defaultdict(lambda: defaultdict(Rollup))
            period = period_of("minute", hour_of(hour * HOUR_MS * 1000))
            for row in self._store.select(
                METRIC_ROLLUPS.name, [{"name": self._name, "tier": "minute", "period": period}]
            ):
                key = tuple(row[name] for name in self._dimensions)
                packed = unpacked(row["sketch"], f"{self._name}, by minute")
                found[key][row["start"] // MINUTE_MS].merge(packed)
            self._hours[hour] = {key: dict(minutes) for key, minutes in found.items()}
        return self._hours[hour]


def counter_of(measure: str, median: float) -> Callable[[Rollup], Counted] | None:
    """Return what counts a minute's values, and those above; None for a measure that has no such values."""
    if measure in POINTS:
        return lambda rollup: (rollup.sketch.count, rollup.sketch.above(median))
    if measure == ERROR_RATE:
        return lambda rollup: (rollup.count, rollup.errors)
    return None


def began(counted: dict[int, Counted], first: int, usual: float, sign: float) -> int:
    """Return the minute in which it began; `first` is the first minute of the hour that departs. Pure."""
    after = [counts for minute, counts in counted.items() if minute >= first]
    number = sum(count for count, _ in after)
    if not number:
        return first
    share = sum(above for _, above in after) / number
    lowest, total, start = 0.0, 0.0, min(counted)
    for minute in sorted(counted):
        count, above = counted[minute]
        total += sign * (above - count * (usual + share) / 2)
        if total <= lowest:
            lowest, start = total, minute + 1
    return start if start in counted else min((minute for minute in counted if minute > start), default=first)
