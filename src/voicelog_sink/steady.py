"""A wall clock that does not jump: it is read once, and from then on advances as time does."""

from __future__ import annotations

import time
from collections.abc import Callable


def steady_clock(
    wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], int]:
    """Return a function that returns epoch milliseconds: what is due in a minute is so when a minute is over.

    Whatever sets the machine's clock meanwhile is not followed. Safe for any thread.
    """
    start_ms = (wall() - monotonic()) * 1000
    return lambda: int(start_ms + monotonic() * 1000)
