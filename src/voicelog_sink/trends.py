"""How figures move over weeks: by stage, turn figure or metric and group, from day rollups.

The slope is Theil's and Sen's: the median of the slopes between any two weeks (Sen, JASA 63, 1968), which one odd week
does not move. Whether it is more than chance says Kendall's test for a trend (Mann, Econometrica 13, 1945), with its
exact distribution; weeks that are equal make it more careful, never less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from math import factorial
from statistics import median

import attrs

from voicelog_sink.departure import LEAST_VALUES
from voicelog_sink.hourly import COUNT, Hour, Measured, measured, unpacked
from voicelog_sink.measures import BY, Series, is_worse, series_of, unit_of
from voicelog_sink.parts import STAGE
from voicelog_sink.rolled import Key, sources
from voicelog_sink.rollup import PackedRollup
from voicelog_sink.rows import DAY_MS
from voicelog_sink.sketch import RELATIVE_ERROR
from voicelog_sink.stores.base import Store
from voicelog_sink.tables import METRIC_ROLLUPS
from voicelog_sink.tiers import Reading, readings

WEEK_MS = 7 * DAY_MS
WEEKS = 8
LEAST_WEEKS = 5
"""With fewer, even weeks that rise one after another would be by chance in one of 20 cases."""
CHANCE = 0.05
LEAST_CHANGE = 2 * RELATIVE_ERROR
"""What changes by less over all the weeks stays the same, as far as sketches can tell."""


@attrs.frozen
class Week:
    """Seven days from `since_ms` on: the measure's value, None for too few, and of how many it is made."""

    since_ms: int
    value: float | None
    count: int


@attrs.frozen(kw_only=True)
class Trend:
    """How a measure of a figure of one group moves.

    `slope` is its change a week, in `unit`, and `percent` the same in percent of the median week; `chance` how often
    weeks without a trend would look so. `verdict` is rising, falling, unclear or too_few (weeks), and `worse` whether
    that is bad; None for metrics and counts, and where it is unclear.
    """

    name: str
    kind: str
    figure: str
    measure: str
    unit: str
    group: dict[str, str | None]
    weeks: tuple[Week, ...]
    slope: float | None
    percent: float | None
    chance: float | None
    verdict: str
    worse: bool | None


def trends(
    store: Store, now_ms: int, weeks: int = WEEKS, by: Sequence[str] = BY, *, only: Collection[str] = ()
) -> list[Trend]:
    """Return the trends of the last whole weeks, which end with yesterday, UTC, in the order of a call.

    `only` are the names to look at, if not all. Blocks while the store reads a row a day, name and group; raises
    StoreError, and SinkError for a rollup that can't be read.
    """
    until_ms = now_ms // DAY_MS * DAY_MS
    starts = range(until_ms - weeks * WEEK_MS, until_ms, WEEK_MS)
    found = readings(starts[0], until_ms)
    dimensions = tuple(name for name in by if name != STAGE)
    return [
        _trend(series, key, dimensions, [_week(start, groups[key].get(start, {}), series) for start in starts])
        for source in sources(store, found, only)
        for number, name in enumerate(source.rollups)
        for groups in [_weeks(store, name, found, dimensions, starts)]
        for key in sorted(groups)
        for series in series_of(source, number)
        if any(series.measure.name in hour for hour in groups[key].values())
    ]


def _weeks(
    store: Store, name: str, found: Iterable[Reading], dimensions: Sequence[str], starts: range
) -> dict[Key, dict[int, Hour]]:
    """Return the measures of each group and week."""
    groups: defaultdict[Key, defaultdict[int, list[PackedRollup]]] = defaultdict(lambda: defaultdict(list))
    for reading in found:
        partitions = [{"name": name, "tier": reading.tier, "period": period} for period in reading.periods]
        since_ms, until_ms = reading.since_ms, reading.until_ms
        for row in store.select(METRIC_ROLLUPS.name, partitions, since_ms=since_ms, until_ms=until_ms):
            start = starts[(row["start"] - starts[0]) // WEEK_MS]
            packed = unpacked(row["sketch"], f"{name}, by {reading.tier}")
            groups[tuple(row[name] for name in dimensions)][start].append(packed)
    return {
        key: {start: measured(rows, limits=False) for start, rows in weeks.items()} for key, weeks in groups.items()
    }


def _week(start: int, hour: Hour, series: Series) -> Week:
    found = hour.get(series.measure.name, Measured(0, 0, 0, 0))
    enough = found.number >= LEAST_VALUES or series.measure.name == COUNT
    return Week(start, found.value if enough else None, found.number)


def _trend(series: Series, key: Key, dimensions: Sequence[str], weeks: Sequence[Week]) -> Trend:
    known = [(float(number), week.value) for number, week in enumerate(weeks) if week.value is not None]
    usual = abs(median([value for _, value in known])) if known else 0.0
    enough = len(known) >= LEAST_WEEKS
    slope = slope_of(known) if enough else None
    chance = chance_of([value for _, value in known]) if enough else None
    verdict = _verdict(slope, chance, LEAST_CHANGE * usual / max(len(weeks) - 1, 1))
    judged = verdict in ("rising", "falling") and series.measure.name != COUNT
    return Trend(
        name=series.source.name,
        kind=series.source.kind,
        figure=series.figure,
        measure=series.measure.name,
        unit=unit_of(series.source, series.measure),
        group={name: value or None for name, value in zip(dimensions, key, strict=True)},
        weeks=tuple(weeks),
        slope=slope,
        percent=slope / usual * 100 if slope is not None and usual else None,
        chance=chance,
        verdict=verdict,
        worse=is_worse(series.source, series.measure, slope or 0.0) if judged else None,
    )


def slope_of(points: Sequence[tuple[float, float]]) -> float:
    """Return Theil's and Sen's slope of at least two points. Pure."""
    return median([(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2)])


def chance_of(values: Sequence[float]) -> float:
    """Return how often values without a trend rise or fall so much, in as many pairs. Pure."""
    score = abs(sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2)))
    pairs = len(values) * (len(values) - 1) // 2
    ways = _ways(len(values))
    least = sum(ways[swaps] for swaps in range((pairs - score) // 2 + 1))
    return min(1.0, 2 * least / factorial(len(values)))


@lru_cache(maxsize=64)
def _ways(number: int) -> tuple[int, ...]:
    """Return how many orders of so many values have 0, 1, 2, ... pairs that fall."""
    ways = [1]
    for size in range(2, number + 1):
        longer = [0] * (len(ways) + size - 1)
        for swaps, count in enumerate(ways):
            for more in range(size):
                longer[swaps + more] += count
        ways = longer
    return tuple(ways)


def _verdict(slope: float | None, chance: float | None, least: float) -> str:
    if slope is None or chance is None:
        return "too_few"
    if chance >= CHANCE or abs(slope) < least or not slope:
        return "unclear"
    return "rising" if slope > 0 else "falling"
