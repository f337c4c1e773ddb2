"""Duplicates: events that this process has stored before. In memory and bounded; what it forgot counts as new."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from voicelog.events import Event

MAX_STREAMS = 50_000
"""Streams that are remembered: those that had an event last."""
WINDOW = 512
"""Counts of one stream that may be out of order; what is so far behind the highest is taken as seen."""


class Duplicates:
    """Knows the counts that were seen of each stream. Used by one thread."""

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self._max_streams = max_streams
        self._streams: OrderedDict[str, _Seen] = OrderedDict()

    def note(self, events: Iterable[Event]) -> int:
        """Remember these events; return how many of them were there before."""
        streams, again = self._streams, 0
        for event in events:
            seen = streams.get(event.stream_id)
            if seen is None:
                seen = streams[event.stream_id] = _Seen()
                if len(streams) > self._max_streams:
                    streams.popitem(last=False)
            else:
                streams.move_to_end(event.stream_id)
            again += not seen.add(event.seq)
        return again


class _Seen:
    """The counts of one stream: all up to `upto`, and above it bit n of `mask` for the count `upto + 1 + n`."""

    __slots__ = ("mask", "upto")

    def __init__(self) -> None:
        self.upto = 0
        self.mask = 0

    def add(self, seq: int) -> bool:
        """Add a count; return whether it is new."""
        place = seq - self.upto - 1
        if place < 0:
            return False
        if place >= WINDOW:
            passed = place - WINDOW + 1
            self.upto += passed
            self.mask >>= passed
            place = WINDOW - 1
        bit = 1 << place
        if self.mask & bit:
            return False
        self.mask |= bit
        while self.mask & 1:
            self.mask >>= 1
            self.upto += 1
        return True
