"""A stream: events counted from 1 by one producer, so that a gap or a duplicate can be proven."""

from __future__ import annotations

from copy import copy
from itertools import count
from typing import Any

from voicelog.clock import Anchor
from voicelog.events import SCHEMA_VERSION
from voicelog.sampling import Hold
from voicelog.wire import encode_value

FIRST_SPAN = 10_000_000
"""Stages are numbered from here: eight decimal digits are hex digits too, and quicker written than hex."""


class Stream:
    """The identity of a run of events, and the fields they all share."""

    __slots__ = (
        "_seq", "anchor", "base", "heads", "hold", "key", "next_seq", "next_span", "span_prefix",
        "stream_id",
    )  # fmt: skip

    def __init__(self, stream_id: str, key: str, base: dict[str, Any], anchor: Anchor) -> None:
        self.stream_id = stream_id
        self.key = key.encode("utf-8", "replace")
        self.base = {**base, "stream_id": stream_id}
        self.anchor = anchor
        self.hold: Hold | None = None
        """Where the messages go until it is known whether the call is kept; None without sampling."""
        self.heads: dict[str, bytes] = {}
        """By event type: the JSON of what the stream's events share, written once."""
        self._seq = count(1)
        self.next_seq = self._seq.__next__
        """Returns the next count; taken before the event can be dropped. Safe from any thread."""
        self.span_prefix = stream_id[:8]
        self.next_span = count(FIRST_SPAN).__next__
        """Returns the second half of a stage's span_id, 8 digits; span_prefix is the first. Safe from any thread."""

    def successor(self, stream_id: str) -> Stream:
        """Return a stream of the same call with an id and counts of its own, for a forked process."""
        return Stream(stream_id, self.key.decode(), {**self.base, "stream_id": stream_id}, self.anchor)

    def varied(self, own: dict[str, Any]) -> Stream:
        """Return this stream for an event whose `own` values take the place of shared ones."""
        other = copy(self)
        other.base, other.heads = {**self.base, **own}, {}
        return other

    def head(self, kind: str) -> bytes:
        """Return the beginning of the JSON of a `kind` event: what the stream's events share, and a comma."""
        head = encode_value({"v": SCHEMA_VERSION, "type": kind, **self.base})[:-1] + b","
        self.heads[kind] = head
        return head

    def is_used(self) -> bool:
        """Return whether an event was counted."""
        return repr(self._seq) != "count(1)"
