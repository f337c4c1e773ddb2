"""How long to wait before the next try. Pure: it waits for nothing and reads no clock."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 0.1
CAP_S = 5.0


class Backoff:
    """Waits that double from 0.1 to 5 seconds, each cut by up to half at random, so that replicas do not march."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        """Begin anew; `chance` returns 0 to 1."""
        self._chance = chance
        self._next_s = FIRST_S

    def next_s(self) -> float:
        """Return the next wait in seconds."""
        wait_s = self._next_s * (1.0 - 0.5 * self._chance())
        self._next_s = min(self._next_s * 2, CAP_S)
        return wait_s
