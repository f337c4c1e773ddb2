"""How fast and how reliable: percentiles of stages, turns and metrics over a period, by group, from the rollups."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs

from voicelog_sink.parts import MINUTE_MS, STAGE
from voicelog_sink.rolled import Groups, Source, rolled_up, sources
from voicelog_sink.rollup import Rollup
from voicelog_sink.sketch import RELATIVE_ERROR, Sketch
from voicelog_sink.stores.base import Store
from voicelog_sink.tiers import oldest_ms, open_end_ms, readings

GROUPS = ("stage", "provider", "model", "variant", "service")
"""What figures can be told apart by; the stage, or the figure's name, always is."""

AT_ONCE = 8
"""Sources that are read together, so that the store works on the next one while this one is added up."""
POINTS = (0.5, 0.9, 0.95, 0.99)
ERROR_PERCENT = round(RELATIVE_ERROR * 100)
"""A percentile is within so many percent of the exact one, by nearest rank."""


@attrs.frozen(kw_only=True)
class Percentiles:
    """Of how many values, and their percentiles by nearest rank, within ERROR_PERCENT."""

    count: int
    p50: float
    p90: float
    p95: float
    p99: float


@attrs.frozen(kw_only=True)
class StatsRow:
    """One name and group. `kind` is stage, turn or metric; `group` has an entry for each dimension asked for.

    A stage has `duration_ms` and `first_item_ms`, the others `value` in `unit`; what was not measured is None.
    `excluded` of the `count` rows are in no percentile: stages that did not end ok (`errors` of them failed), and
    figures whose quality is not ok. `per_minute` is `count` over the minutes of the period, up to the present.
    """

    name: str
    kind: str
    group: dict[str, str | None]
    count: int
    per_minute: float
    errors: int
    excluded: int
    unit: str | None
    duration_ms: Percentiles | None
    first_item_ms: Percentiles | None
    value: Percentiles | None
    cost_usd: float | None


def stats(
    store: Store,
    since_ms: int,
    until_ms: int,
    by: Sequence[str] = ("stage",),
    *,
    now_ms: int | None = None,
    only: Collection[str] = (),
) -> list[StatsRow]:
    """Return the figures of the time from `since_ms` to `until_ms` (exclusive), told apart by `by`.

    Both count to the whole minute. `now_ms` is the present, where the period ends after it; `only` are the names to
    read, if not all. Events that arrived within the last minute may not be rolled up yet. Blocks while the store reads
    some hundred rollups a name; raises StoreError, SinkError for a rollup that can't be read, and ValueError for an
    unknown group.
    """
    unknown = [name for name in by if name not in GROUPS]
    if unknown:
        message = f"{unknown[0]!r} is no group: expected some of {', '.join(GROUPS)}"
        raise ValueError(message)
    now_ms = until_ms if now_ms is None else now_ms
    found = readings(max(since_ms, oldest_ms(now_ms)), min(until_ms, open_end_ms(now_ms)))
    dimensions = tuple(name for name in by if name != "stage")
    minutes = minutes_of(since_ms, min(until_ms, now_ms))
    all_sources = sources(store, found, only)
    rows: list[StatsRow] = []
    for start in range(0, len(all_sources), AT_ONCE):
        some = all_sources[start : start + AT_ONCE]
        rolled = rolled_up(store, [name for source in some for name in source.rollups], found, dimensions)
        rows += [row for source in some for row in _rows(source, rolled, dimensions, minutes)]
    return rows


def minutes_of(since_ms: int, until_ms: int) -> int:
    """Return how many minutes the period touches; at least 1."""
    return max(-(-until_ms // MINUTE_MS) - since_ms // MINUTE_MS, 1)


def _rows(
    source: Source, rolled: Mapping[str, Groups], dimensions: tuple[str, ...], minutes: int
) -> Iterator[StatsRow]:
    """Yield a source's rows, by its groups."""
    all_of, *first = (rolled[name] for name in source.rollups)
    for key in sorted(all_of):
        streamed = first[0].get(key) if first else None
        yield _row(source, dict(zip(dimensions, key, strict=True)), (all_of[key], streamed), minutes)


def _row(source: Source, group: dict[str, str], rollups: tuple[Rollup, Rollup | None], minutes: int) -> StatsRow:
    rollup, streamed = rollups
    took = percentiles(rollup.sketch)
    is_stage = source.kind == STAGE
    return StatsRow(
        name=source.name,
        kind=source.kind,
        group={name: value or None for name, value in group.items()},
        count=rollup.count,
        per_minute=rollup.count / minutes,
        errors=rollup.errors,
        excluded=rollup.excluded,
        unit=None if is_stage else source.unit or None,
        cost_usd=rollup.cost_usd,
        duration_ms=took if is_stage else None,
        first_item_ms=percentiles(streamed.sketch) if streamed else None,
        value=None if is_stage else took,
    )


def percentiles(sketch: Sketch) -> Percentiles | None:
    """Return a sketch's percentiles; None without values."""
    found = sketch.quantiles(POINTS)
    if not found:
        return None
    p50, p90, p95, p99 = found
    return Percentiles(count=sketch.count, p50=p50, p90=p90, p95=p95, p99=p99)
