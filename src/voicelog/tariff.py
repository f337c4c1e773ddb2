"""A tariff: what a provider takes for a model, and what a use of it costs. Exact until the end, and nothing raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import attrs

from voicelog.usage import USAGE

UNIT_OF = {row.name: row.unit for row in USAGE}
INSTEAD = {"reasoning_tokens": "output_tokens"}
"""The price of a part that has none of its own: reasoning is written, and costs what is written."""


def _parts() -> dict[str, tuple[str, ...]]:
    """Return for each name all that is part of it; parts come before their wholes."""
    found: dict[str, tuple[str, ...]] = {}
    for row in USAGE:
        own = [other.name for other in USAGE if row.name in other.part_of]
        deeper = [other.name for other in USAGE if set(other.part_of) & set(own)]
        found[row.name] = tuple(dict.fromkeys(own + deeper))
    return dict(sorted(found.items(), key=lambda item: len(item[1])))


PARTS = _parts()


@attrs.frozen
class Tariff:
    """One entry of the price table: US dollars for one of each thing that is counted, and for the request itself."""

    provider: str
    model: str
    """The model's name, or its beginning with `*` behind it."""
    usd_per_unit: Mapping[str, Fraction]
    usd_per_request: Fraction = Fraction(0)
    units: frozenset[str] = attrs.field(init=False)
    """What it is charged by: tokens, characters, seconds; empty where only the request costs."""
    _scale: int = attrs.field(init=False, eq=False)
    _scaled: dict[str, int] = attrs.field(init=False, eq=False)
    """The prices times `_scale`, which makes all of them whole: whole counts are then charged in whole numbers."""

    @units.default
    def _units(self) -> frozenset[str]:
        return frozenset(UNIT_OF[name] for name in self.usd_per_unit)

    @_scale.default
    def _common(self) -> int:
        return math.lcm(*(price.denominator for price in (*self.usd_per_unit.values(), self.usd_per_request)))

    @_scaled.default
    def _whole(self) -> dict[str, int]:
        instead = {part: self.usd_per_unit[whole] for part, whole in INSTEAD.items() if whole in self.usd_per_unit}
        return {name: int(price * self._scale) for name, price in (instead | dict(self.usd_per_unit)).items()}

    def matches(self, model: str) -> bool:
        """Say whether the tariff is for this model."""
        return model.startswith(self.model[:-1]) if self.model.endswith("*") else model == self.model

    def cost(self, used: Mapping[str, float]) -> float | str:
        """Return US dollars for what was used, rounded once; or what is missing for it, as the end of a sentence.

        Each name is charged without its parts, so that nothing is charged twice; a whole that is not given costs
        what its parts do.
        """
        counts, share = _whole_counts(used, self.units)
        total = int(self.usd_per_request * self._scale) * share
        own: dict[str, int] = {}
        for name, parts in PARTS.items():
            if name not in counts:
                continue
            count = counts[name]
            for part in parts:
                if part in own:
                    count -= own[part]
            own[name] = count
            if count < 0:
                return f"the parts of {name} are more than {name}, which has to include them"
            if name in self._scaled:
                total += self._scaled[name] * count
            elif count:
                return f"the price table has no price for {name}"
        if self.units and not own:
            return f"the usage has none of {', '.join(self.usd_per_unit)}, which it is charged by"
        return _divided(total, self._scale * share)


def _whole_counts(used: Mapping[str, float], units: frozenset[str]) -> tuple[dict[str, int], int]:
    """Return the counts in these units as whole numbers of one share of a unit, and how many shares a unit has."""
    counts = {name: count for name, count in used.items() if UNIT_OF.get(name) in units}
    if float not in map(type, counts.values()):
        return cast("dict[str, int]", counts), 1
    ratios = {name: count.as_integer_ratio() for name, count in counts.items()}
    shares = max(shares for _, shares in ratios.values())  # powers of two, so the others divide it
    return {name: number * (shares // own) for name, (number, own) in ratios.items()}, shares


def _divided(total: int, scale: int) -> float | str:
    try:
        return total / scale  # of whole numbers: Python rounds it once, to the nearest
    except OverflowError:
        return "its usage is beyond all measure"
