"""The clock: durations from the monotonic clock, the wall clock only to say when."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the library takes its time from; `voicelog.testing.StepClock` is the other one."""

    def now_ns(self) -> int:
        """Return the monotonic time, nanoseconds from an arbitrary point."""

    def wall_us(self) -> int:
        """Return the wall clock's time, microseconds since the epoch, UTC."""


class SystemClock:
    """The machine's clocks."""

    now_ns = staticmethod(time.perf_counter_ns)

    @staticmethod
    def wall_us() -> int:
        """Return the wall clock's time, microseconds since the epoch, UTC."""
        return time.time_ns() // 1000


class Anchor:
    """Both clocks read at one moment, so that later times are one subtraction and never run backwards."""

    __slots__ = ("mono_ns", "wall_us")

    def __init__(self, clock: Clock) -> None:
        self.mono_ns = clock.now_ns()
        self.wall_us = clock.wall_us()

    def epoch_us(self, mono_ns: int) -> int:
        """Return a monotonic time as epoch microseconds."""
        return self.wall_us + (mono_ns - self.mono_ns) // 1000
