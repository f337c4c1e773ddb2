"""Rollups of a period, added up by group: what percentiles over months are read from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from voicelog_sink.errors import SinkError
from voicelog_sink.rollup import Rollup, names_of
from voicelog_sink.stores.base import Store
from voicelog_sink.tables import METRIC_NAMES, METRIC_ROLLUPS
from voicelog_sink.tiers import Reading, months_of
from voicelog_sink.total import Total

DIMENSIONS = ("service", "provider", "model", "variant")
"""What a name's figures can be told apart by."""

FIRST = ("stt", "llm", "tts", "turn.user_bot_latency_ms")
"""Names in the order in which a call meets them; the others follow by name."""
_KINDS = ("stage", "turn", "metric")

Key = tuple[str, ...]
"""The values of the dimensions that were asked for; absent is ''."""
Groups = dict[Key, Rollup]


class Source(NamedTuple):
    """What was measured: a stage, `turn.<figure>` or a custom metric, and its unit."""

    kind: str
    name: str
    unit: str

    @property
    def rollups(self) -> tuple[str, ...]:
        """Its names in metric_rollups: a stage has two, its duration and its first item."""
        return names_of(self.name, self.kind)


def sources(store: Store, found: Sequence[Reading], only: Collection[str] = ()) -> list[Source]:
    """Return what was measured in the months of these readings, in the order of a call: `only` those, if any is given.

    Blocks for one query a month. A metric with several units has the first of them.
    """
    months = [{"month": month} for month in months_of(found)]
    rows = store.tuples(METRIC_NAMES.name, ("kind", "source", "unit"), months)
    units: dict[tuple[str, str], str] = {}
    for kind, name, unit in rows:
        if not only or name in only:
            units[kind, name] = min(unit, units.get((kind, name), unit))
    return sorted((Source(kind, name, unit) for (kind, name), unit in units.items()), key=_order)


def rolled_up(
    store: Store, names: Sequence[str], found: Iterable[Reading], dimensions: Sequence[str]
) -> dict[str, Groups]:
    """Return each name's figures over all the readings, by the values of `dimensions`.

    Blocks while the store works, less for some names than for one after the other; holds one rollup a name and group in
    memory. Raises StoreError, and SinkError for a rollup that this version can't read.
    """
    groups: dict[str, defaultdict[Key, Total]] = {name: defaultdict(Total) for name in names}
    for reading in found:
        tier = reading.tier
        partitions = [{"name": name, "tier": tier, "period": period} for name in names for period in reading.periods]
        bounds = {"since_ms": reading.since_ms, "until_ms": reading.until_ms}
        for row in store.tuples(METRIC_ROLLUPS.name, ("name", *dimensions, "sketch"), partitions, **bounds):
            try:
                groups[row[0]][row[1:-1]].add(row[-1])
            except ValueError as exc:
                message = f"{row[0]}, by {tier}: {exc}"
                raise SinkError(message) from exc
    return {name: _sums(totals) for name, totals in groups.items()}


def _sums(totals: Mapping[Key, Total]) -> Groups:
    rollups = ((key, total.rollup()) for key, total in totals.items())
    return {key: rollup for key, rollup in rollups if rollup.count}


def _order(source: Source) -> tuple[int, int, str]:
    rank = FIRST.index(source.name) if source.name in FIRST else len(FIRST)
    return _KINDS.index(source.kind), rank, source.name
