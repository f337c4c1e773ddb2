"""A stream: events counted from 1 by one producer, so that a gap or a duplicate can be proven."""

from __future__ import annotations

from itertools import count
from typing import Any

from voicelog.clock import Anchor


class Stream:
    """The identity of a run of events, and the fields they all share."""

    __slots__ = ("_seq", "_spans", "anchor", "base", "key", "stream_id")

    def __init__(self, stream_id: str, key: str, base: dict[str, Any], anchor: Anchor) -> None:
        self.stream_id = stream_id
        self.key = key.encode("utf-8", "replace")
        self.base = {**base, "stream_id": stream_id}
        self.anchor = anchor
        self._seq = count(1)
        self._spans = count(1)

    def successor(self, stream_id: str) -> Stream:
        """Return a stream of the same call with an id and counts of its own, for a forked process."""
        return Stream(stream_id, self.key.decode(), {**self.base, "stream_id": stream_id}, self.anchor)

    def next_seq(self) -> int:
        """Return the next count; taken before the event can be dropped. Safe from any thread."""
        return next(self._seq)

    def is_used(self) -> bool:
        """Return whether an event was counted."""
        return repr(self._seq) != "count(1)"

    def next_span(self) -> str:
        """Return an id for a stage: 16 hex digits, half of them the stream's."""
        return f"{self.stream_id[:8]}{next(self._spans):08x}"
