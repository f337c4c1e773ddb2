"""Rollups added up from how they are stored: in C where the extension `voicelog_sink._total` was built, or in Python.

The sums are the same either way. C takes what is written commonly, and leaves the rest to Python, rollup by rollup.
VOICELOG_PURE_PYTHON=1 in the environment chooses Python; it is read once, at the import.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from voicelog.settings import runs_in_python
from voicelog_sink.rollup import COST_UNITS, Rollup, unpack

CONTRACT = 1
"""What this version expects of the extension; another one was built from other sources, and is not used."""


def _extension() -> ModuleType | None:
    """Return the extension where it was built from these sources and is wanted."""
    if runs_in_python():
        return None
    try:
        from voicelog_sink import _total
    except ImportError:  # not built: no compiler was there, or another kind of Python
        return None
    return _total if _total.CONTRACT == CONTRACT else None


_quick = _extension()


def _nothing(_: bytes) -> bool:
    """Leave everything to Python."""
    return False


class Total:
    """The sum of some rollups: the same as one rollup of all their rows. Used by one thread."""

    __slots__ = ("_add", "_counted", "_read")

    def __init__(self) -> None:
        """Begin with none."""
        self._counted = _quick.Total() if _quick else None
        self._add: Callable[[bytes], bool] = self._counted.add if self._counted else _nothing
        self._read = Rollup()

    def add(self, blob: bytes, erasures: int = 0) -> None:
        """Add what the column `sketch` of a rollup holds; raises ValueError where this version can't read it."""
        if not self._add(blob):
            self._read.merge(unpack(blob))
        self._read.erasures += erasures

    def rollup(self) -> Rollup:
        """Return the sum; nothing is to be added afterwards."""
        if self._counted is None:
            return self._read
        count, errors, excluded, cost, ends, zeros, bins, negative_bins = self._counted.sums()
        rollup = self._read
        rollup.count += count
        rollup.errors += errors
        rollup.excluded += excluded
        if cost is not None:
            rollup.cost = (rollup.cost or 0) + cost[0] * COST_UNITS + cost[1]
        if ends is not None:
            least, most = ends
            rollup.sketch.add_counts(least, most, zeros, bins.items(), negative_bins.items())
        return rollup
