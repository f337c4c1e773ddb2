"""The rows of derived_pending: what they say, and when one is written anew. In memory, without I/O.

A key's row stays for as long as something is going on there and is refreshed in place, so that a key costs one row and
one deletion and not one a minute. A row's sink_id ends in a number: a row that is being deleted and the next one of
the same key are two rows.
"""

from __future__ import annotations

from voicelog.events import SHARDS, shard_of
from voicelog_sink.stores.base import Values

ROLLUP_BUCKETS = SHARDS
BUCKETS = 2 * SHARDS
"""Calls are in the buckets below ROLLUP_BUCKETS, the hours of metrics in those from it on: their keys never collide."""

ADOPT_AFTER_MS = 50_000
"""A row that was not refreshed for so long belongs to a sink that died: what it stands for is late by now."""

REFRESH_AFTER_MS = 20_000
"""A row is refreshed in place for as long after this as before ADOPT_AFTER_MS, which leaves clocks room to differ."""


def key_of(row: Values) -> Values:
    """Return a derived_pending row's key."""
    return {name: row[name] for name in ("bucket", "key", "sink_id")}


def owner_of(row: Values) -> str:
    """Return the sink that wrote a derived_pending row."""
    sink_id: str = row["sink_id"]
    return sink_id.rpartition(".")[0] or sink_id


class Announcer:
    """Makes one sink's rows of derived_pending."""

    def __init__(self, sink_id: str, first_bucket: int) -> None:
        """Put them into the sixteen buckets from `first_bucket` on."""
        self._sink_id = sink_id
        self._first_bucket = first_bucket
        self._generation = 0

    def new(self, key: str, now_ms: int) -> Values:
        """Return a row for a key that has none."""
        self._generation += 1
        bucket = self._first_bucket + shard_of(key)
        return {"bucket": bucket, "key": key, "sink_id": f"{self._sink_id}.{self._generation}", "added_at": now_ms}

    def renewed(self, rows: list[Values], key: str, now_ms: int) -> Values | None:
        """Return the row to write now for a key that has `rows`, None where those will do; keeps `rows` up to date."""
        own = rows[-1] if rows and owner_of(rows[-1]) == self._sink_id else None
        age_ms = now_ms - own["added_at"] if own else ADOPT_AFTER_MS
        if age_ms < REFRESH_AFTER_MS:
            return None
        if own and age_ms < ADOPT_AFTER_MS - REFRESH_AFTER_MS:
            own["added_at"] = now_ms
        else:
            own = self.new(key, now_ms)
            rows.append(own)
        return dict(own)
