"""The watermark: up to where each partition's records are all seen through. Pure: no Kafka, no clock, no thread.

An offset may be committed when everything before it is stored or in the dead letters. Batches may be seen through in
any order; the watermark of a partition stands before the first record that is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from voicelog_sink.pipeline import Record

Place = tuple[str, int]
"""Topic and partition."""
Offsets = dict[Place, int]


@attrs.define(eq=False)
class _Chunk:
    """A batch's part of one partition; `end` is the offset after its last record."""

    place: Place
    end: int
    queue: deque[_Chunk]
    done: bool = False


Ticket = list[_Chunk]
"""What `track` gives for a batch, and `finish` takes."""


class Watermark:
    """Follows the batches of every partition that is owned. Used by one thread."""

    def __init__(self) -> None:
        self._queues: dict[Place, deque[_Chunk]] = {}

    def assign(self, places: Iterable[Place]) -> None:
        """Begin to follow partitions; what was followed of them before, by an earlier assignment, counts no more."""
        for place in places:
            self._queues[place] = deque()

    def forget(self, places: Iterable[Place]) -> None:
        """Stop following partitions that are no longer owned: a batch that ends later releases nothing of them."""
        for place in places:
            self._queues.pop(place, None)

    def track(self, records: Iterable[Record]) -> Ticket:
        """Take a batch's records, in the order in which the broker gave them.

        Offsets may have gaps, as after compaction. Records of a partition that is not followed are left out.
        """
        ticket = []
        for place, end in next_offsets(records).items():
            queue = self._queues.get(place)
            if queue is not None:
                chunk = _Chunk(place, end, queue)
                queue.append(chunk)
                ticket.append(chunk)
        return ticket

    def finish(self, ticket: Ticket) -> Offsets:
        """Note that a batch is seen through; return the offsets that may be committed now, where any moved."""
        moved: Offsets = {}
        for chunk in ticket:
            chunk.done = True
            queue = chunk.queue
            if self._queues.get(chunk.place) is not queue:
                continue
            while queue and queue[0].done:
                moved[chunk.place] = queue.popleft().end
        return moved

    def is_waiting(self, places: Iterable[Place] | None = None) -> bool:
        """Return whether any record of these partitions, or of any, is not seen through yet."""
        return any(self._queues.get(place) for place in (self._queues if places is None else places))


def next_offsets(records: Iterable[Record]) -> Offsets:
    """Return, for each topic and partition, the offset after the last of these records: what a commit names."""
    offsets: Offsets = {}
    for record in records:
        place = (record.topic, record.partition)
        offsets[place] = max(offsets.get(place, 0), record.offset + 1)
    return offsets
