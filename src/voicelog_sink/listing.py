"""Where the calls of a time or of a person are: rows of `started_at` and `session_id`, newest first.

Every function blocks while it reads, and raises StoreError as the store does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import attrs

from voicelog.events import SHARDS
from voicelog_sink.rows import DAY_MS, day_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.stores.lifetime import wall_ms
from voicelog_sink.stores.query import Condition
from voicelog_sink.tables import SESSION_SUMMARIES, SESSIONS_BY_DAY

PAGE = 32
"""Rows of a day and shard that are read first, and then twice as many each time."""
DAYS = 16
"""Most days that are read at once, where there is little in each."""

NAMES = ("day", "shard", "started_at", "session_id")


def newest_first(row: Values) -> tuple[int, str]:
    """Return what the list is sorted by."""
    return -row["started_at"], row["session_id"]


def listed(store: Store, since_ms: int, until_ms: int, where: Sequence[Condition] = ()) -> Iterator[Values]:
    """Yield the list's rows from `since_ms` (inclusive) to `until_ms` (exclusive) for which `where` holds.

    Most lists end long before a day does: of a day only the first rows of each shard are read ahead. Where few rows of
    a day fit, more days are asked for at once, with fewer rows of each. So some hundred rows are held at a time. Days
    before the first that can have rows are not asked for.
    """
    since_ms = max(since_ms, _first_ms(store, since_ms))
    day_ms, days = (until_ms - 1) // DAY_MS * DAY_MS, 1
    while day_ms + DAY_MS > since_ms:
        last_ms = max(day_ms - (days - 1) * DAY_MS, since_ms // DAY_MS * DAY_MS)
        names = [day_of(each_ms * 1000) for each_ms in range(day_ms, last_ms - 1, -DAY_MS)]
        ahead = {(name, shard): list[Values]() for name in names for shard in range(SHARDS)}
        asked = Asked(store, since_ms, where)
        for row in asked.read(list(ahead), until_ms, PAGE // days):
            ahead[row["day"], row["shard"]].append(row)
        few = sum(map(len, ahead.values())) < PAGE
        for name in names:
            shards = [asked.shard((name, n), ahead.pop((name, n)), PAGE // days) for n in range(SHARDS)]
            yield from heapq.merge(*shards, key=newest_first)
        day_ms = last_ms - DAY_MS
        days = min(days * 2, DAYS) if where and few else 1


def _first_ms(store: Store, since_ms: int) -> int:
    """Return the moment before which the list has no rows, or `since_ms` where that is no longer ago than they live.

    No rule keeps them for longer than the table's own lifetime. Where rows do not carry their expiry, older ones are
    there until a sink takes them out, for ever in a file that none works on: there the first day is looked up.
    """
    kept_ms = wall_ms() - ((SESSIONS_BY_DAY.lifetime_days or 0) + 1) * DAY_MS
    if since_ms >= kept_ms:
        return since_ms
    if store.writes_expiry:
        return kept_ms
    first: str | None = min((row["day"] for row in store.partitions(SESSIONS_BY_DAY.name)), default=None)
    return min(kept_ms, int(datetime.fromisoformat(first).replace(tzinfo=UTC).timestamp() * 1000)) if first else kept_ms


def of_user(store: Store, user: str, since_ms: int, until_ms: int) -> list[Values]:
    """Return a person's calls of that time, as their summaries know them: where they are is held for all of them."""
    found = store.select(SESSION_SUMMARIES.name, [{"user_id": user}], names=("started_at", "session_id"))
    return sorted((row for row in found if since_ms <= row["started_at"] < until_ms), key=newest_first)


@attrs.frozen
class Asked:
    """What is asked of each partition, a day and a shard."""

    store: Store
    since_ms: int
    where: Sequence[Condition]

    def read(self, partitions: Sequence[tuple[str, int]], until_ms: int, limit: int) -> Iterator[Values]:
        """Yield the first rows of each partition before `until_ms`, at most `limit`."""
        given = [{"day": day, "shard": shard} for day, shard in partitions]
        bounds = {"since_ms": self.since_ms, "until_ms": until_ms, "limit": limit}
        return self.store.select(SESSIONS_BY_DAY.name, given, where=self.where, names=NAMES, **bounds)

    def shard(self, partition: tuple[str, int], page: list[Values], limit: int) -> Iterator[Values]:
        """Yield a partition's rows, of which the first `page` was read with `limit`; later pages are ever larger."""
        seen = set[str]()
        while True:
            yield from (row for row in page if row["session_id"] not in seen)
            if len(page) < limit:
                return
            until_ms = page[-1]["started_at"] + 1
            seen = {row["session_id"] for row in page if row["started_at"] == until_ms - 1}
            limit *= 2
            page = list(self.read([partition], until_ms, limit))
