"""How two variants, models, providers, services or periods differ: percentiles and error rates, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import attrs

from voicelog_sink.interval import CONFIDENCE, Estimate, difference, least_count, quantile_estimate, share_estimate
from voicelog_sink.parts import METRIC, STAGE
from voicelog_sink.rolled import Groups, Key, Source, rolled_up, sources, values_seen
from voicelog_sink.rollup import Rollup
from voicelog_sink.stores.base import Store
from voicelog_sink.tiers import Reading, oldest_ms, open_end_ms, readings

POINTS = {"p50": 0.5, "p95": 0.95}
ERROR_RATE = "error_rate"
FIGURES = ("duration_ms", "first_item_ms")
"""What a stage has; turns and metrics have `value`."""


@attrs.frozen
class Side:
    """What is compared: the time from `since_ms` to `until_ms` (exclusive), and what its events have in common.

    `group` gives values to some of service, provider, model and variant, the same ones on both sides; absent is ''.
    """

    since_ms: int
    until_ms: int
    group: dict[str, str]


@attrs.frozen
class Pair:
    """One figure of both sides: a stage's `duration_ms` or `first_item_ms`, otherwise `value`."""

    source: Source
    figure: str
    a: Rollup
    b: Rollup


@attrs.frozen(kw_only=True)
class CompareRow:
    """One measure of a figure on both sides: p50, p95 or error_rate (0 to 1).

    `difference` is `b` - `a`, between `low` and `high` with the confidence asked for; `percent` is it in percent of
    `a`. They are None where one side has fewer than `needed` values. `a_count` and `b_count` are the values that the
    measure is made of. `verdict` is higher, lower, unclear (the interval holds 0) or too_few. `regression`
    says whether B is worse by more than was allowed; None where that was not judged.
    """

    name: str
    kind: str
    figure: str
    measure: str
    unit: str
    a_count: int
    b_count: int
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    percent: float | None
    needed: int
    verdict: str
    regression: bool | None = None


def pairs(store: Store, a: Side, b: Side, *, now_ms: int, only: Collection[str] = ()) -> list[Pair]:
    """Return every figure that both sides have, in the order of a call; `only` of these names, if any is given.

    Blocks while the store reads some hundred rollups a name and side. Raises as `stats` does.
    """
    times = [_readings(side, now_ms) for side in (a, b)]
    keys = tuple(a.group.values()), tuple(b.group[name] for name in a.group)
    return [
        Pair(source, figure, *both)
        for source in sources(store, [one for time in times for one in time], only)
        for figure, name in zip(FIGURES if source.kind == STAGE else ("value",), source.rollups, strict=True)
        if (both := _both(_groups(store, name, times, tuple(a.group)), keys))
    ]


def values_of(store: Store, side: Side, dimension: str, *, now_ms: int, only: Collection[str] = ()) -> list[str]:
    """Return the values of `dimension` that have figures in the side's time, the rest of its group being the same.

    For the sentence where there is nothing to compare. Blocks as `pairs` does; raises as `stats` does.
    """
    times = _readings(side, now_ms)
    where = {name: value for name, value in side.group.items() if name != dimension}
    names = [source.rollups[0] for source in sources(store, times, only)]
    return values_seen(store, names, times, dimension, where)


def _readings(side: Side, now_ms: int) -> list[Reading]:
    return readings(max(side.since_ms, oldest_ms(now_ms)), min(side.until_ms, open_end_ms(now_ms)))


def _groups(
    store: Store, name: str, times: Sequence[list[Reading]], dimensions: Sequence[str]
) -> tuple[Groups, Groups]:
    """Return the figures of both times; read once where they are the same."""
    first = rolled_up(store, [name], times[0], dimensions)[name]
    return first, first if times[0] == times[1] else rolled_up(store, [name], times[1], dimensions)[name]


def _both(groups: tuple[Groups, Groups], keys: tuple[Key, Key]) -> tuple[Rollup, Rollup] | None:
    a, b = (side.get(key) for side, key in zip(groups, keys, strict=True))
    return (a, b) if a and b else None


def compared(found: Sequence[Pair], confidence: float = CONFIDENCE) -> list[CompareRow]:
    """Return the measures of these figures with intervals of that confidence; raises SinkError without scipy."""
    return [_row(pair, measure) for pair in found for measure in _measures(pair, confidence)]


def judged(found: Sequence[Pair], allowed_percent: float) -> list[CompareRow]:
    """Return the measures, each with its `regression`: B is worse by more than `allowed_percent` of A, not by chance.

    Higher is worse for what is in milliseconds and for error rates; custom metrics are not judged, nor what has too few
    values. For this the confidence is raised with the number of measures (Bonferroni), so that of 40 comparisons
    of equals at most about one has any regression, however many figures there are. `needed` is what that needs.
    """
    rows = compared(found)
    number = sum(_is_judged(row) for row in rows)
    if not number:
        return rows
    strict = compared(found, 1 - (1 - CONFIDENCE) / number)
    return [
        attrs.evolve(row, needed=by.needed, regression=_is_worse(by, allowed_percent) if _is_judged(by) else None)
        for row, by in zip(rows, strict, strict=True)
    ]


def _is_judged(row: CompareRow) -> bool:
    return row.kind != METRIC and row.low is not None


def _is_worse(row: CompareRow, allowed_percent: float) -> bool:
    if row.low is None or row.difference is None or row.a is None:
        return False
    return row.low > 0 and row.difference > abs(row.a) * allowed_percent / 100


@attrs.frozen
class _Measure:
    """A measure of both sides, A first: its values, and their intervals where there are enough of `counts`."""

    name: str
    unit: str
    counts: tuple[int, int]
    needed: int
    values: Sequence[float | None]
    estimates: Sequence[Estimate | None]


def _measures(pair: Pair, confidence: float) -> Iterator[_Measure]:
    sides = pair.a, pair.b
    counts = pair.a.sketch.count, pair.b.sketch.count
    unit = pair.source.unit if pair.source.kind == METRIC else "ms"
    for name, point in POINTS.items():
        values = [next(iter(side.sketch.quantiles([point])), None) for side in sides]
        estimates = [quantile_estimate(side.sketch, point, confidence) for side in sides]
        yield _Measure(name, unit, counts, least_count(point, confidence), values, estimates)
    if pair.figure == FIGURES[0]:
        shares = [share_estimate(side.errors, side.count, confidence) for side in sides]
        yield _Measure(ERROR_RATE, "1", (pair.a.count, pair.b.count), 1, [share.value for share in shares], shares)


def _row(pair: Pair, measure: _Measure) -> CompareRow:
    (a, b), (of_a, of_b) = measure.values, measure.estimates
    apart = difference(of_a, of_b) if of_a and of_b else None
    return CompareRow(
        name=pair.source.name,
        kind=pair.source.kind,
        figure=pair.figure,
        measure=measure.name,
        unit=measure.unit,
        a_count=measure.counts[0],
        b_count=measure.counts[1],
        a=a,
        b=b,
        difference=apart.value if apart else None,
        low=apart.low if apart else None,
        high=apart.high if apart else None,
        percent=apart.value / abs(a) * 100 if apart and a else None,
        needed=measure.needed,
        verdict=_verdict(apart),
    )


def _verdict(apart: Estimate | None) -> str:
    if apart is None:
        return "too_few"
    return "higher" if apart.low > 0 else "lower" if apart.high < 0 else "unclear"
