"""How much may wait for the store's answer at once: more while it answers, half where it is overloaded. Pure."""

from __future__ import annotations

from typing import NamedTuple

MOST = 128
"""Requests that wait for an answer at once, at most."""
START = 32
MAX_BYTES = 8 * 1024 * 1024
"""Their values, at most; a larger request goes alone."""


class Ticket(NamedTuple):
    """A request on its way; `epoch` is how often the window had been cut when it was sent."""

    size_bytes: int
    epoch: int


class Window:
    """The requests in flight, and how many there may be. Used by one thread.

    Grows by one for each answer up to where it was last cut to, from there on by one for as many answers as it is
    wide. Overload halves it, once for all requests that were sent before; after an outage it begins with one.
    """

    def __init__(self, most: int = MOST, max_bytes: int = MAX_BYTES, start: int = START) -> None:
        """Begin with `start` requests, allow up to `most`."""
        self._most = most
        self._max_bytes = max_bytes
        self._size = float(max(1, min(start, most)))
        self._quick_until = float(most)
        self._epoch = 0
        self.waiting = 0
        self.waiting_bytes = 0

    @property
    def size(self) -> int:
        """How many requests may wait for an answer now."""
        return int(self._size)

    def fits(self, size_bytes: int) -> bool:
        """Return whether a request may be sent now; one always may."""
        room = self.waiting < self.size and self.waiting_bytes + size_bytes <= self._max_bytes
        return room or not self.waiting

    def sent(self, size_bytes: int) -> Ticket:
        """Note a request that is being sent; its ticket goes to exactly one of `answered` and `overloaded`."""
        self.waiting += 1
        self.waiting_bytes += size_bytes
        return Ticket(size_bytes, self._epoch)

    def answered(self, ticket: Ticket) -> None:
        """Note a request that the store took, or refused for what is in it."""
        self._landed(ticket)
        grown = self._size + (1.0 if self._size < self._quick_until else 1.0 / self._size)
        self._size = min(grown, float(self._most))

    def overloaded(self, ticket: Ticket) -> None:
        """Note a request that the store had no time for, or never answered."""
        self._landed(ticket)
        if ticket.epoch == self._epoch:
            self._cut(self._size / 2)

    def outage(self) -> None:
        """Note that the store is not there: what comes after begins with one request."""
        self._cut(1.0)

    def _landed(self, ticket: Ticket) -> None:
        self.waiting -= 1
        self.waiting_bytes -= ticket.size_bytes

    def _cut(self, size: float) -> None:
        if self._size > 1.0:
            self._quick_until = max(1.0, self._size / 2)
        self._size = max(1.0, size)
        self._epoch += 1
