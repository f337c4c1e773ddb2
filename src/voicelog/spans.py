"""Spans of time: pairs of begin and end, of which any number may overlap. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[int, int]
FOREVER = 2**63
"""The end of what has none yet."""


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the time that the spans cover, as spans in order that neither touch nor overlap."""
    merged: list[Span] = []
    for begin, until in sorted(span for span in spans if span[0] < span[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], until))
        else:
            merged.append((begin, until))
    return merged


def clip(spans: Iterable[Span], begin: int, until: int) -> list[Span]:
    """Return the time between `begin` and `until` that the spans cover."""
    return union((max(span[0], begin), min(span[1], until)) for span in spans)


def covers(spans: Sequence[Span], at: int) -> bool:
    """Return whether a union of spans holds the moment; an end is no longer in its span."""
    place = bisect_right(spans, (at, FOREVER)) - 1
    return place >= 0 and at < spans[place][1]
