"""Event loops: how late asyncio's loops run what is due, measured from another thread. asyncio's own and uvloop's."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable


class Loops:
    """The loops that sessions and turns were opened in. Holds none of them; safe from any thread, never raises."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._probes: dict[int, _Probe] = {}

    def know(self) -> None:
        """Take note of the loop that runs in this thread, if one does."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        probe = self._probes.get(id(loop))
        if probe is None or not probe.is_for(loop):
            self._probes[id(loop)] = _Probe(loop, self._now_ns)

    def probe(self) -> None:
        """Ask each running loop to call back; let go of those that are closed."""
        for key, probe in self._probes.copy().items():
            if not probe.send():
                self._probes.pop(key, None)

    def take_lag_ms(self) -> float | None:
        """Return the longest wait for a call back since the last time, also one that goes on; None without any."""
        waits = [wait for probe in self._probes.copy().values() if (wait := probe.take_ns()) is not None]
        return max(waits) / 1e6 if waits else None


class _Probe:
    """Calls of one loop; the loop's own thread runs `_ran`."""

    __slots__ = ("_longest_ns", "_loop", "_now_ns", "_sent_ns")

    def __init__(self, loop: asyncio.AbstractEventLoop, now_ns: Callable[[], int]) -> None:
        self._loop = weakref.ref(loop)
        self._now_ns = now_ns
        self._sent_ns: int | None = None
        self._longest_ns: int | None = None

    def is_for(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether it is this loop's: an id() comes again once its owner is gone."""
        return self._loop() is loop

    def send(self) -> bool:
        """Ask for a call, if none is due and the loop runs; return whether the loop is still of use."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            return False
        if not loop.is_running():  # it rests between two run_until_complete(): nothing is late
            self._sent_ns = None
        elif self._sent_ns is None:
            self._sent_ns = self._now_ns()
            try:
                loop.call_soon_threadsafe(self._ran)
            except RuntimeError:  # closed since we looked
                return False
        return True

    def _ran(self) -> None:
        sent_ns, self._sent_ns = self._sent_ns, None
        if sent_ns is not None:
            self._longest_ns = max(self._longest_ns or 0, self._now_ns() - sent_ns)

    def take_ns(self) -> int | None:
        """Return the longest wait since the last time, or None where none was measured."""
        longest_ns, self._longest_ns = self._longest_ns, None
        sent_ns = self._sent_ns
        if sent_ns is None:
            return longest_ns
        return max(longest_ns or 0, self._now_ns() - sent_ns)
