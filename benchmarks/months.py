"""Rollups of many days for the benchmark of reading, with the recorded calls' values: what the sink would have made.

Each day has a row for every name and combination; so have the hours and minutes that a period's edges may touch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from benchmarks.recorded import COMBINATIONS, SPREAD, slowness

from voicelog_sink.demo import recorded
from voicelog_sink.parts import EXCLUDED, FAILED, STAGE, measurements
from voicelog_sink.rollup import Dimensions, Name, Rollup, name_row, names_of
from voicelog_sink.rows import DAY_MS, hour_of
from voicelog_sink.stores.base import Row

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
EDGE_MS = 1234 * MINUTE_MS
"""How far within the first and the last day a period of odd minutes begins and ends: 20:34 and 03:26."""
POOL = 5_000
USD = 0.0001


class Source(NamedTuple):
    """What was measured, by its name in performance_metrics, and the values that it had in the recorded calls."""

    name: str
    kind: str
    values: list[float]
    firsts: list[float]


def sources() -> list[Source]:
    """Return what the recorded calls measured."""
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    firsts: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for grouped in measurements(recorded()).values():
        for (name, kind, *_), rows in grouped.items():
            values[name, kind] += [row[3] for row in rows if row[3] is not None]
            firsts[name, kind] += [row[4] for row in rows if row[4] is not None]
    return [Source(name, kind, found, firsts[name, kind]) for (name, kind), found in sorted(values.items())]


def dimensions(combination: int) -> Dimensions:
    """Return service, provider, model and variant of one of COMBINATIONS."""
    n = combination % 10
    return "front-desk", f"local-{n % 5}", f"model-{n}", "ab"[combination // 10]


def starts(first_ms: int, days: int) -> Iterator[tuple[str, int, int]]:
    """Yield tier, start, and which part of a day it is (1 / that), of the rollups that are read."""
    for day in range(days):
        yield "day", first_ms + day * DAY_MS, 1
    until_ms = first_ms + days * DAY_MS
    for day_ms, edge_ms in ((first_ms, first_ms + EDGE_MS), (until_ms - DAY_MS, until_ms - EDGE_MS)):
        for hour in range(24):
            yield "hour", day_ms + hour * HOUR_MS, 24
        hour_ms = edge_ms // HOUR_MS * HOUR_MS
        for minute in range(60):
            yield "minute", hour_ms + minute * MINUTE_MS, 1440


def rollup_rows(first_ms: int, days: int, values: int, seed: int = 1) -> Iterator[Row]:
    """Yield the rows of metric_rollups and metric_names, with so many values a day, name and combination."""
    random = Random(seed)
    known = sources()
    pools = {name: pool for source in known for name, pool in _pools(source, random)}
    months: set[tuple[str, str]] = set()
    for tier, start_ms, part in starts(first_ms, days):
        hour = hour_of(start_ms * 1000)
        for source in known:
            for name in names_of(source.name, source.kind):
                if not pools[name]:
                    continue
                if (name, hour[:7]) not in months:
                    months.add((name, hour[:7]))
                    yield name_row(Name(name, source.kind, source.name, "ms"), hour)
                for combination in range(COMBINATIONS):
                    rollup = _rollup(pools[name], combination, max(values // part, 1), random)
                    yield rollup.row(name, tier, hour, start_ms, dimensions(combination))


def _pools(source: Source, random: Random) -> Iterator[tuple[str, list[float]]]:
    columns = (source.values, source.firsts) if source.kind == STAGE else (source.values,)
    for name, column in zip(names_of(source.name, source.kind), columns, strict=True):
        yield name, [random.choice(column) * random.lognormvariate(0, SPREAD) for _ in range(POOL if column else 0)]


def _rollup(pool: list[float], combination: int, count: int, random: Random) -> Rollup:
    slow, rollup = slowness(combination), Rollup()
    took = [value * slow for value in random.choices(pool, k=count)]
    flags = random.choices((0, EXCLUDED, EXCLUDED | FAILED), weights=(97, 2, 1), k=count)
    rollup.add(took, flags, [USD] * count)
    return rollup
