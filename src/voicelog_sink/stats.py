"""How fast and how reliable: percentiles of stages, turns and metrics over a time, by group. Exact, from the rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import attrs

from voicelog.events import FINISHED_STAGES
from voicelog_sink.percentiles import percentiles
from voicelog_sink.rows import hour_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.tables import PERFORMANCE_METRICS
from voicelog_sink.tally import total

GROUPS = ("stage", "provider", "model", "variant", "service")
"""What figures can be told apart by; the stage, or the figure's name, always is."""

POINTS = (50, 90, 95, 99)
FIRST = ("stt", "llm", "tts", "turn.user_bot_latency_ms")
"""Names in the order in which a call meets them; the others follow by name."""


@attrs.frozen(kw_only=True)
class Percentiles:
    """Of how many values, and their percentiles by nearest rank."""

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
    figures whose quality is not ok.
    """

    name: str
    kind: str
    group: dict[str, str | None]
    count: int
    errors: int
    excluded: int
    unit: str | None
    duration_ms: Percentiles | None
    first_item_ms: Percentiles | None
    value: Percentiles | None
    cost_usd: float | None


def stats(store: Store, since_ms: int, until_ms: int, by: Sequence[str] = ("stage",)) -> list[StatsRow]:
    """Return the figures of the time from `since_ms` (inclusive) to `until_ms` (exclusive), told apart by `by`.

    Blocks while every measurement of that time is read; raises StoreError, and ValueError for an unknown group.
    """
    unknown = [name for name in by if name not in GROUPS]
    if unknown:
        message = f"{unknown[0]!r} is no group: expected some of {', '.join(GROUPS)}"
        raise ValueError(message)
    dimensions = tuple(name for name in by if name != "stage")
    groups: dict[tuple[str, ...], _Group] = {}
    for row in _measurements(store, since_ms, until_ms):
        key = (kind_of(row), row["name"], *(row.get(name) or "" for name in dimensions))
        groups.setdefault(key, _Group()).add(row)
    return [groups[key].row(key, dimensions) for key in sorted(groups, key=_order)]


def kind_of(row: Values) -> str:
    """Return what a row of performance_metrics was made from: stage, turn or metric."""
    return "stage" if row["type"] in FINISHED_STAGES else str(row["type"])


def _measurements(store: Store, since_ms: int, until_ms: int) -> Iterator[Values]:
    first, last = hour_of(since_ms * 1000), hour_of((until_ms - 1) * 1000)
    partitions = [p for p in store.partitions(PERFORMANCE_METRICS.name) if first <= p["hour"] <= last]
    return store.select(PERFORMANCE_METRICS.name, partitions, since_ms=since_ms, until_ms=until_ms)


def _order(key: tuple[str, ...]) -> tuple[object, ...]:
    kind, name, *dimensions = key
    rank = FIRST.index(name) if name in FIRST else len(FIRST)
    return (("stage", "turn", "metric").index(kind), rank, name, *dimensions)


class _Group:
    """What is gathered for one row of the answer."""

    def __init__(self) -> None:
        self.count = self.errors = self.excluded = 0
        self.unit: str | None = None
        self.costs_usd = array("d")
        self.values = {name: array("d") for name in ("duration_ms", "first_item_ms", "value")}

    def add(self, row: Values) -> None:
        self.count += 1
        self.errors += row["status"] == "error"
        self.unit = self.unit or row["unit"]
        if row["cost_usd"] is not None:
            self.costs_usd.append(row["cost_usd"])
        if not is_ok(row):
            self.excluded += 1
            return
        for name, values in self.values.items():
            if row[name] is not None:
                values.append(row[name])

    def row(self, key: tuple[str, ...], dimensions: tuple[str, ...]) -> StatsRow:
        kind, name, *group = key
        return StatsRow(
            name=name,
            kind=kind,
            group={dimension: value or None for dimension, value in zip(dimensions, group, strict=True)},
            count=self.count,
            errors=self.errors,
            excluded=self.excluded,
            unit=self.unit,
            cost_usd=total(self.costs_usd) if self.costs_usd else None,
            duration_ms=_percentiles(self.values["duration_ms"]),
            first_item_ms=_percentiles(self.values["first_item_ms"]),
            value=_percentiles(self.values["value"]),
        )


def is_ok(row: Values) -> bool:
    """Say whether a row's figures count: a turn's by their quality, a stage's by how it ended."""
    return row["quality"] in (None, "ok") if row["type"] == "turn" else row["status"] in (None, "ok")


def _percentiles(values: array[float]) -> Percentiles | None:
    if not values:
        return None
    p50, p90, p95, p99 = percentiles(values, POINTS)
    return Percentiles(count=len(values), p50=p50, p90=p90, p95=p95, p99=p99)
