"""Rollups of a period, added up by group: what percentiles over months are read from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from voicelog_sink.errors import SinkError
from voicelog_sink.parts import TURN
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


def shown_name(name: str, kind: str) -> str:
    """Return a name as tables print it: a turn's figure without `turn.` and its unit."""
    return name.removeprefix("turn.").removesuffix("_ms") if kind == TURN else name


class Source(NamedTuple):
    """What was measured: a stage, `turn.<figure>` or a custom metric, and its unit."""

    kind: str
    name: str
    unit: str

    @property
    def rollups(self) -> tuple[str, ...]:
        """Its names in metric_rollups: a stage has two, its duration and its first item."""
        return names_of(self.name, self.kind)

    @property
    def shown(self) -> str:
        """Its name as tables print it."""
        return shown_name(self.name, self.kind)

    def is_called(self, name: str) -> bool:
        """Say whether `name` means it: its own, the one that tables print, and a turn's figure as events have it."""
        return name in (self.name, self.shown) or (self.kind == TURN and f"turn.{name}" == self.name)


class UnknownName(SinkError):
    """Nothing of that name was measured in any month of the period; `known` are the names that were, as printed."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        """Keep the names beside the sentence."""
        super().__init__(f"no figure {name!r} was measured; there are: {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


def sources(store: Store, found: Sequence[Reading], only: Collection[str] = ()) -> list[Source]:
    """Return what was measured in the months of these readings, in the order of a call: `only` those, if any is given.

    Blocks for one query a month. A metric with several units has the first of them. Raises UnknownName for a name in
    `only` that is none of them, where there are any.
    """
    months = [{"month": month} for month in months_of(found)]
    rows = store.tuples(METRIC_NAMES.name, ("kind", "source", "unit"), months)
    units: dict[tuple[str, str], str] = {}
    for kind, name, unit in rows:
        units[kind, name] = min(unit, units.get((kind, name), unit))
    return _chosen(sorted((Source(kind, name, unit) for (kind, name), unit in units.items()), key=_order), only)


def _chosen(known: list[Source], only: Collection[str]) -> list[Source]:
    for name in only if known else ():
        if not any(source.is_called(name) for source in known):
            raise UnknownName(name, list(dict.fromkeys(source.shown for source in known)))
    return [source for source in known if not only or any(map(source.is_called, only))]


def rolled_up(
    store: Store, names: Sequence[str], found: Iterable[Reading], dimensions: Sequence[str]
) -> dict[str, Groups]:
    """Return each name's figures over all the readings, by the values of `dimensions`.

    Blocks while the store works, less for some names than for one after the other; holds one rollup a name and group in
    memory. Raises StoreError, and SinkError for a rollup that this version can't read.
    """
    groups: dict[str, defaultdict[Key, Total]] = {name: defaultdict(Total) for name in names}
    for tier, row in _rows(store, names, found, (*dimensions, "sketch")):
        try:
            groups[row[0]][row[1:-1]].add(row[-1])
        except ValueError as exc:
            message = f"{row[0]}, by {tier}: {exc}"
            raise SinkError(message) from exc
    return {name: _sums(totals) for name, totals in groups.items()}


def values_seen(
    store: Store, names: Sequence[str], found: Iterable[Reading], dimension: str, where: Mapping[str, str]
) -> list[str]:
    """Return the values of `dimension` that have figures, where the other dimensions are as in `where`; absent is ''.

    Blocks while the store reads the rollups that `rolled_up` would, without their sketches.
    """
    rows = _rows(store, names, found, (dimension, *where, "count"))
    return sorted({row[1] for _, row in rows if row[-1] and row[2:-1] == tuple(where.values())})


def _rows(
    store: Store, names: Sequence[str], found: Iterable[Reading], columns: Sequence[str]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the tier and the row of each rollup of these names: its name, and these columns."""
    for reading in found:
        partitions = [{"name": n, "tier": reading.tier, "period": period} for n in names for period in reading.periods]
        bounds = {"since_ms": reading.since_ms, "until_ms": reading.until_ms}
        for row in store.tuples(METRIC_ROLLUPS.name, ("name", *columns), partitions, **bounds):
            yield reading.tier, row


def _sums(totals: Mapping[Key, Total]) -> Groups:
    rollups = ((key, total.rollup()) for key, total in totals.items())
    return {key: rollup for key, rollup in rollups if rollup.count}


def _order(source: Source) -> tuple[int, int, str]:
    rank = FIRST.index(source.name) if source.name in FIRST else len(FIRST)
    return _KINDS.index(source.kind), rank, source.name
