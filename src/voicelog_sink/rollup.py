"""What is to be known of a metric in a minute, an hour or a day: from its rows, or merged from shorter times. Pure.

The same rows make the same rollup, to the last bit, whatever their order and however they are divided: counts and
costs are whole numbers, and so are a sketch's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import compress, islice
from typing import NamedTuple

import attrs
import msgspec

from voicelog_sink.parts import EXCLUDED, FAILED, METRIC, MINUTE_MS, MINUTE_US, STAGE, TURN, Group, Measurement
from voicelog_sink.rank import rank_of
from voicelog_sink.rows import hour_of
from voicelog_sink.sketch import Packed, Sketch
from voicelog_sink.stores.base import Row
from voicelog_sink.tables import METRIC_NAMES, METRIC_ROLLUPS

TIERS = ("minute", "hour", "day")
FORMAT = 1
"""The version of what the column `sketch` holds."""

CHUNK = 1_000
"""Measurements that are computed at once."""
_STAGE_FIGURES = ("duration_ms", "first_item_ms")
_ESCAPED = ("stage:", "metric:")

COST_UNITS = 10**12
MOST_USD = 10**6
"""A cost is counted in units of 1e-12 dollars, so that sums are exact; a single one beyond this counts as this."""

Dimensions = tuple[str, str, str, str]
"""service, provider, model, variant; absent is ''."""


class Name(NamedTuple):
    """A name in metric_rollups, and what it was made from: a stage, `turn.<figure>` or a custom metric; its unit."""

    name: str
    kind: str
    source: str
    unit: str


class Cell(NamedTuple):
    """Which rollup: a name, the minute (since the epoch) and the dimensions."""

    name: str
    minute: int
    dimensions: Dimensions


class PackedRollup(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The column `sketch`, as MessagePack: a list in this order. `usd` is null where no cost is known.

    Everything is in this one column, since in CQL two rows of the same version may mix, column by column.
    """

    format: int
    count: int
    errors: int
    excluded: int
    usd: int | None
    usd_rest: int
    values: Packed


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PackedRollup).decode


def unpack(blob: bytes) -> PackedRollup:
    """Return what the column `sketch` holds; raises ValueError where this version can't read it."""
    try:
        packed = _decode(blob)
    except msgspec.DecodeError as exc:
        message = f"a rollup that is not of format {FORMAT}: {exc}; a newer voicelog-sink may have written it"
        raise ValueError(message) from exc
    if packed.format != FORMAT:
        message = f"a rollup of format {packed.format}: this voicelog-sink reads format {FORMAT}; update it"
        raise ValueError(message)
    return packed


@attrs.define
class Rollup:
    """The figures of some measurements.

    `excluded` of the `count` are in no percentile: stages that did not end ok, figures whose quality is not ok.
    `errors` are those that failed. `cost` is in COST_UNITS, None where none is known.
    """

    count: int = 0
    errors: int = 0
    excluded: int = 0
    cost: int | None = None
    erasures: int = 0
    sketch: Sketch = attrs.Factory(Sketch)

    @property
    def rank(self) -> int:
        """What decides which of two rollups of the same time and dimensions wins."""
        return rank_of(self.count, self.erasures)

    @property
    def cost_usd(self) -> float | None:
        """The known costs, US dollars."""
        return None if self.cost is None else self.cost / COST_UNITS

    def add(self, values: Sequence[float | None], flags: Sequence[int], costs_usd: Sequence[float | None] = ()) -> None:
        """Add measurements, column by column: parts.py says what the flags are."""
        self.count += len(flags)
        self.errors += sum(map(flags.count, (FAILED, FAILED | EXCLUDED)))
        excluded = sum(map(flags.count, (EXCLUDED, FAILED | EXCLUDED)))
        counted = compress(values, [not flag & EXCLUDED for flag in flags]) if excluded else values
        numbers = [value for value in counted if value is not None]
        finite = numbers if math.isfinite(sum(numbers)) else [value for value in numbers if math.isfinite(value)]
        self.excluded += excluded + len(numbers) - len(finite)
        self.sketch.add(finite)
        known = [cost for cost in costs_usd if cost is not None]
        if known:
            self.cost = (self.cost or 0) + _units(known)

    def merge(self, packed: PackedRollup, erasures: int = 0) -> None:
        """Add what another rollup was made from: the same as adding its rows."""
        self.count += packed.count
        self.errors += packed.errors
        self.excluded += packed.excluded
        self.erasures += erasures
        if packed.usd is not None:
            self.cost = (self.cost or 0) + packed.usd * COST_UNITS + packed.usd_rest
        self.sketch.merge(packed.values)

    def packed(self) -> bytes:
        """Return the column `sketch`; the same rows give the same bytes."""
        usd, rest = (None, 0) if self.cost is None else divmod(self.cost, COST_UNITS)
        values = self.sketch.packed()
        return _encode(PackedRollup(FORMAT, self.count, self.errors, self.excluded, usd, rest, values))

    def row(self, name: str, tier: str, hour: str, start_ms: int, dimensions: Dimensions) -> Row:
        """Return its row of metric_rollups; `hour` is any hour of the tier's time."""
        service, provider, model, variant = dimensions
        key = {"name": name, "tier": tier, "period": period_of(tier, hour), "start": start_ms}
        who = {"service": service, "provider": provider, "model": model, "variant": variant}
        copies = {"count": self.count, "errors": self.errors, "excluded": self.excluded, "cost_usd": self.cost_usd}
        return Row(METRIC_ROLLUPS.name, {**key, **who, "sketch": self.packed(), **copies, "rows_read": self.rank})


def period_of(tier: str, hour: str) -> str:
    """Return the partition that holds a tier's rollups of that hour: minutes by hour, hours by day, days by month."""
    return hour[: {"minute": 13, "hour": 10, "day": 7}[tier]]


def start_ms_of(tier: str, hour: str) -> int:
    """Return when the tier's time that holds the hour began, epoch milliseconds; `tier` is hour, day or month."""
    text = {"hour": f"{hour}:00", "day": f"{hour[:10]}T00:00", "month": f"{hour[:7]}-01T00:00"}[tier]
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1000


@lru_cache(maxsize=4096)
def names_of(source: str, kind: str) -> tuple[str, ...]:
    """Return what metric_rollups calls the measurements that performance_metrics has under `source`.

    A stage has its duration and its first item. Where the plain name could be that of another kind, as for a custom
    metric `llm.duration_ms`, it begins with its kind: `metric:llm.duration_ms`.
    """
    plain = not source.startswith(("turn.", *_ESCAPED))
    if kind == STAGE:
        stage = source if plain and source != TURN else f"{STAGE}:{source}"
        return tuple(f"{stage}.{figure}" for figure in _STAGE_FIGURES)
    plain = plain and not source.endswith(tuple(f".{figure}" for figure in _STAGE_FIGURES))
    return (source if plain or kind == TURN else f"{METRIC}:{source}",)


def name_row(name: Name, hour: str) -> Row:
    """Return the row that lists a name under its month."""
    key = {"month": period_of("day", hour), "name": name.name, "unit": name.unit}
    values = {**key, "start": start_ms_of("month", hour), "kind": name.kind, "source": name.source}
    return Row(METRIC_NAMES.name, values)


class Minutes:
    """The rollups of some minutes; `add` takes each measurement once."""

    def __init__(self) -> None:
        """Begin without measurements."""
        self.count = 0
        self.rollups: dict[Cell, Rollup] = {}
        self.names: set[Name] = set()

    def add(self, minute: int, group: Group, rows: Iterable[Measurement]) -> None:
        """Take measurements of one minute and group in."""
        source, kind, *_ = group
        names = names_of(source, kind)
        waiting = iter(rows)
        while chunk := list(islice(waiting, CHUNK)):
            self.count += len(chunk)
            _, _, flags, values, firsts, costs = zip(*chunk, strict=True)
            self._rollup(names[0], minute, group).add(values, flags, costs)
            streamed = [first is not None for first in firsts] if kind == STAGE else []
            if any(streamed):
                columns = list(compress(firsts, streamed)), list(compress(flags, streamed))
                self._rollup(names[1], minute, group).add(*columns)

    def _rollup(self, name: str, minute: int, group: Group) -> Rollup:
        source, kind, *_, unit = group
        cell = Cell(name, minute, group[2:6])
        rollup = self.rollups.get(cell)
        if rollup is None:
            rollup = self.rollups[cell] = Rollup()
        self.names.add(Name(name, kind, source, unit))
        return rollup

    def row(self, cell: Cell) -> Row:
        """Return a rollup's row."""
        hour = hour_of(cell.minute * MINUTE_US)
        return self.rollups[cell].row(cell.name, "minute", hour, cell.minute * MINUTE_MS, cell.dimensions)


def _units(costs_usd: list[float]) -> int:
    """Return the sum in COST_UNITS, each cost rounded by itself."""
    if min(costs_usd) < -MOST_USD or max(costs_usd) > MOST_USD:
        costs_usd = [max(-MOST_USD, min(MOST_USD, cost)) for cost in costs_usd]
    return sum([round(cost * COST_UNITS) for cost in costs_usd])
