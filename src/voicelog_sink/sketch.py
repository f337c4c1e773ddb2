"""Percentiles that can be merged: a sketch of values, with DDSketch's bins. The only file that imports ddsketch.

A value's bin is a function of the value alone, and a bin's count a whole number. So the same values in any order, in
one sketch or merged from many, make the same sketch, to the last bit; and each percentile is within RELATIVE_ERROR of
the exact one. Sketches that draw lots (KLL, REQ) or depend on the order (t-digest) do not have the first property.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

import attrs
import msgspec
from ddsketch.mapping import LogarithmicMapping

RELATIVE_ERROR = 0.01
"""A percentile of 100 ms is between 99 and 101. Never to be changed: sketches of two errors can't be merged."""

_MAPPING = LogarithmicMapping(RELATIVE_ERROR)
_BINS_PER_DOUBLING = 1 / math.log2(_MAPPING.gamma)
_SMALLEST = _MAPPING.min_possible
_LARGEST = _MAPPING.max_possible

Bins = dict[int, int]
"""Count by bin; bin k holds what is above gamma^(k-1), up to gamma^k."""
BinCount = tuple[int, int]


class Packed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A sketch as it is stored. A list of bins is in ascending order, the first as it is, each other as the step to it.

    `zeros` counts what is nearer to 0 than a double can tell apart. The bins of negative values are those of their
    absolute values.
    """

    least: float | None
    most: float | None
    zeros: int
    bins: list[int]
    counts: list[int]
    negative_bins: list[int]
    negative_counts: list[int]


@attrs.define
class Sketch:
    """How often which values occurred. Used by one thread."""

    least: float = math.inf
    most: float = -math.inf
    zeros: int = 0
    bins: Bins = attrs.Factory(dict)
    negative_bins: Bins = attrs.Factory(dict)

    @property
    def count(self) -> int:
        """The number of values."""
        return self.zeros + sum(self.bins.values()) + sum(self.negative_bins.values())

    def add(self, values: Sequence[float]) -> None:
        """Add values; each must be a number, and not infinite."""
        if not values:
            return
        least, most = min(values), max(values)
        self._reach(least, most)
        if least > _SMALLEST and most <= _LARGEST:
            _add(self.bins, _bins_of(values).items())
            return
        _add(self.bins, _bins_of([min(value, _LARGEST) for value in values if value > _SMALLEST]).items())
        _add(self.negative_bins, _bins_of([min(-value, _LARGEST) for value in values if value < -_SMALLEST]).items())
        self.zeros += sum(-_SMALLEST <= value <= _SMALLEST for value in values)

    def merge(self, packed: Packed) -> None:
        """Add what another sketch holds: the same as if each of its values were added."""
        if packed.least is None or packed.most is None:
            return
        bins = zip(accumulate(packed.bins), packed.counts, strict=True)
        negative = zip(accumulate(packed.negative_bins), packed.negative_counts, strict=True)
        self.add_counts(packed.least, packed.most, packed.zeros, bins, negative)

    def add_counts(
        self, least: float, most: float, zeros: int, bins: Iterable[BinCount], negative_bins: Iterable[BinCount]
    ) -> None:
        """Add counts by bin, of values of which these are the least and the largest."""
        self._reach(least, most)
        self.zeros += zeros
        _add(self.bins, bins)
        _add(self.negative_bins, negative_bins)

    def packed(self) -> Packed:
        """Return it as it is stored: the same values give the same."""
        empty = self.least > self.most
        return Packed(
            None if empty else self.least,
            None if empty else self.most,
            self.zeros,
            *_listed(self.bins),
            *_listed(self.negative_bins),
        )

    def quantiles(self, points: Iterable[float]) -> tuple[float, ...]:
        """Return the value at each point (0 to 1) by nearest rank, within RELATIVE_ERROR of it; () without values."""
        below, above = sorted(self.negative_bins, reverse=True), sorted(self.bins)
        counts = (*map(self.negative_bins.__getitem__, below), self.zeros, *map(self.bins.__getitem__, above))
        ranks = list(accumulate(counts))
        if not (count := ranks[-1]):
            return ()
        found = [max(math.ceil(point * count), 1) - 1 for point in points]
        return tuple(self._at_rank(rank, count, bisect_right(ranks, rank), below, above) for rank in found)

    def above(self, value: float) -> int:
        """Return how many values are above this one, those that are within RELATIVE_ERROR of it left out."""
        if value < -_SMALLEST:
            key = _MAPPING.key(-value)
            return self.count - sum(count for bin_, count in self.negative_bins.items() if bin_ >= key)
        if value <= _SMALLEST:
            return sum(self.bins.values())
        key = _MAPPING.key(value)
        return sum(count for bin_, count in self.bins.items() if bin_ > key)

    def _at_rank(self, rank: int, count: int, place: int, below: list[int], above: list[int]) -> float:
        if rank == 0:
            return self.least
        if rank >= count - 1:
            return self.most
        zeros = len(below)
        value = _MAPPING.value(above[place - zeros - 1]) if place > zeros else 0.0
        return max(self.least, min(self.most, -_MAPPING.value(below[place]) if place < zeros else value))

    def _reach(self, least: float, most: float) -> None:
        # Plus zero, since -0.0 and 0.0 are equal and not the same.
        self.least = min(self.least, least + 0.0)
        self.most = max(self.most, most + 0.0)


def quantile(sketches: Iterable[Packed], point: float) -> float | None:
    """Return the value at `point` (0 to 1) of all that the sketches hold together; None without values."""
    merged = Sketch()
    for packed in sketches:
        merged.merge(packed)
    return next(iter(merged.quantiles([point])), None)


def quantiles_of(packed: Packed, points: Iterable[float]) -> tuple[float, ...]:
    """Return what a sketch that holds this alone would, without making one: for the percentiles of many rows."""
    if packed.negative_bins or packed.least is None or packed.most is None:
        sketch = Sketch()
        sketch.merge(packed)
        return sketch.quantiles(points)
    ranks = list(accumulate(packed.counts, initial=packed.zeros))
    least, most, count = packed.least, packed.most, ranks[-1]
    found = []
    for point in points:
        rank = max(math.ceil(point * count), 1) - 1
        place = bisect_right(ranks, rank)
        value = _MAPPING.value(sum(packed.bins[:place])) if 0 < rank < count - 1 and place else 0.0
        found.append(least if rank == 0 else most if rank >= count - 1 else max(least, min(most, value)))
    return tuple(found)


def _bins_of(values: Iterable[float]) -> Counter[int]:
    """Return how many values fall into which bin: what the mapping's own `key` says, without three calls a value."""
    ceil, log2, scale = math.ceil, math.log2, _BINS_PER_DOUBLING
    return Counter([ceil(log2(value) * scale) for value in values])


def _add(bins: Bins, counts: Iterable[BinCount]) -> None:
    if not bins:
        bins.update(counts)
        return
    get = bins.get
    for key, count in counts:
        bins[key] = get(key, 0) + count


def _listed(bins: Bins) -> tuple[list[int], list[int]]:
    keys = sorted(bins)
    steps = [key - before for key, before in zip(keys, [0, *keys], strict=False)]
    return steps, [bins[key] for key in keys]
