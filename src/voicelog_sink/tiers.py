"""Which rollups make up a period: days inside, hours and minutes at its edges. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from voicelog_sink.parts import MINUTE_MS
from voicelog_sink.rollup import period_of
from voicelog_sink.rows import DAY_MS, hour_of
from voicelog_sink.tables import METRIC_ROLLUPS

HOUR_MS = 60 * MINUTE_MS
_LENGTHS_MS = {"day": DAY_MS, "hour": HOUR_MS, "minute": MINUTE_MS}
_PARTITION_MS = {"day": DAY_MS, "hour": DAY_MS, "minute": HOUR_MS}
"""Steps that miss no partition: days are kept by month, and no month is shorter than a day."""


@attrs.frozen
class Reading:
    """Rollups of one tier from `since_ms` to `until_ms` (exclusive), and the partitions that hold them."""

    tier: str
    periods: tuple[str, ...]
    since_ms: int
    until_ms: int


def readings(since_ms: int, until_ms: int) -> list[Reading]:
    """Return the fewest rollups that make up the time, each moment once, the widest first.

    Minutes are the shortest there are: the first and the last count whole.
    """
    if since_ms >= until_ms:
        return []
    first, last = since_ms // MINUTE_MS * MINUTE_MS, -(-until_ms // MINUTE_MS) * MINUTE_MS
    return list(_cover(first, last, tuple(_LENGTHS_MS)))


def months_of(found: Sequence[Reading]) -> list[str]:
    """Return the months that they touch: those whose names are read."""
    return sorted({month for one in found for month in _periods("day", one.since_ms, one.until_ms)})


def oldest_ms(now_ms: int) -> int:
    """Return the moment before which no rollup is kept: to look further back costs queries and finds nothing."""
    return now_ms - ((METRIC_ROLLUPS.lifetime_days or 0) + 1) * DAY_MS


def open_end_ms(now_ms: int) -> int:
    """Return the end of tomorrow, UTC: a period without an end has whole days, and events of a clock that is ahead."""
    return (now_ms // DAY_MS + 2) * DAY_MS


def _cover(since_ms: int, until_ms: int, tiers: tuple[str, ...]) -> Iterator[Reading]:
    if since_ms >= until_ms:
        return
    tier, *shorter = tiers
    length_ms = _LENGTHS_MS[tier]
    first, last = -(-since_ms // length_ms) * length_ms, until_ms // length_ms * length_ms
    if first >= last:
        yield from _cover(since_ms, until_ms, tuple(shorter))
        return
    yield Reading(tier, _periods(tier, first, last), first, last)
    yield from _cover(since_ms, first, tuple(shorter))
    yield from _cover(last, until_ms, tuple(shorter))


def _periods(tier: str, since_ms: int, until_ms: int) -> tuple[str, ...]:
    step_ms = _PARTITION_MS[tier]
    starts = range(since_ms // step_ms * step_ms, until_ms, step_ms)
    return tuple(dict.fromkeys(period_of(tier, hour_of(at_ms * 1000)) for at_ms in starts))
