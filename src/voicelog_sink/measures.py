"""What is watched of each stage, turn figure and metric: percentiles, error rate, cost, count. One table. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from voicelog_sink.hourly import COST, COUNT, ERROR_RATE, POINTS
from voicelog_sink.parts import METRIC, STAGE
from voicelog_sink.rolled import Source

BY = ("provider", "model")
"""The dimensions that figures are told apart by where nothing else is asked for."""

FIGURES = ("duration_ms", "first_item_ms")
"""What a stage has; turns and metrics have `value`."""


@attrs.frozen
class Measure:
    """A measure: its name, the least that its spread is taken for, and the least change that counts, in its unit.

    `relative` says whether the change must also be a share of the median. `rising` and `falling` are what one calls it.
    """

    name: str
    rising: str
    falling: str
    least_spread: float = 0.0
    least_change: float = 0.0
    relative: bool = True


TIMES = tuple(Measure(name, "slower", "faster", least_spread=0.2, least_change=1.0) for name in POINTS)
"""Of milliseconds: times that differ by less than one are the same."""
OWN = tuple(Measure(name, "higher", "lower") for name in POINTS)
"""Of custom metrics."""
ERRORS = Measure(ERROR_RATE, "more errors", "fewer errors", least_spread=0.002, least_change=0.01, relative=False)
COSTS = Measure(COST, "dearer", "cheaper")
COUNTS = Measure(COUNT, "more", "missing")


@attrs.frozen
class Series:
    """A measure of a figure of what was measured."""

    source: Source
    figure: str
    measure: Measure


def series_of(source: Source, number: int) -> Iterator[Series]:
    """Yield the measures of a source's figure, `number` being its place among the source's rollups."""
    figure = FIGURES[number] if source.kind == STAGE else "value"
    measures = list(OWN if source.kind == METRIC else TIMES)
    if number == 0:
        measures += [ERRORS, COSTS, COUNTS] if source.kind == STAGE else [COUNTS]
    for measure in measures:
        yield Series(source, figure, measure)


def unit_of(source: Source, measure: Measure) -> str:
    """Return a measure's unit; that of shares and counts is 1."""
    units = {ERROR_RATE: "1", COST: "USD", COUNT: "1"}
    return units.get(measure.name, source.unit if source.kind == METRIC else "ms")


def is_worse(source: Source, measure: Measure, sign: float) -> bool | None:
    """Say whether it is bad that a measure went up (`sign` > 0) or down; None for a metric, of which nobody said."""
    if measure.name == COUNT:
        return sign < 0
    return None if source.kind == METRIC else sign > 0
