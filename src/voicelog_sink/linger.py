"""How long to gather events before they are written, and how many: few and soon when idle, many under load. Pure.

A call sends about an event a second, so that with thousands of calls nearly every row is alone in its partition, and
costs a request of its own, unless rows are gathered for longer. An idle sink writes what it has at once.
"""

from __future__ import annotations

from typing import NamedTuple

LONGEST_S = 0.25
"""How long is gathered under load: what an event waits for at most before its write begins."""
LEAST = 500
"""Events that are taken at once while the writer keeps up: more would make a write longer than it has to be."""
GROW = 1.5
SHRINK = 0.9


class Take(NamedTuple):
    """What to ask the broker for: up to `max_events`, for up to `wait_s`."""

    max_events: int
    wait_s: float


class Linger:
    """Adapts to how the writer keeps up. Used by one thread."""

    def __init__(self, most: int, shortest_s: float, longest_s: float = LONGEST_S) -> None:
        """Take up to `most` events; gather for `shortest_s` when idle, for up to `longest_s` under load."""
        self._most = most
        self._shortest_s = shortest_s
        self._longest_s = max(shortest_s, longest_s)
        self._wait_s = shortest_s
        self._events = float(min(LEAST, most))

    def next(self) -> Take:
        """Return what to take now."""
        return Take(int(self._events), self._wait_s)

    def note(self, taken: int, behind: bool) -> None:
        """Note what was taken, and whether the writer is still busy with what was taken before.

        Gathers longer while the writer is behind. Takes more at once while it is behind, or all that was asked for was
        there.
        """
        factor = GROW if behind else SHRINK
        self._wait_s = min(max(self._wait_s * factor, self._shortest_s), self._longest_s)
        full = taken >= int(self._events)
        wanted = self._events * 2 if behind or full else self._events * SHRINK
        self._events = min(max(wanted, float(min(LEAST, self._most))), float(self._most))
