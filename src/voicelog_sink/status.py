"""What the daemon says of itself: whether it lives, and whether it can do its work."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

HEARTBEAT_TIMEOUT_S = 120.0
"""Longer than any single request takes, the store's and the broker's timeouts included."""


@attrs.define
class Status:
    """Written by the daemon's two threads, read by the HTTP thread; each attribute is set as a whole."""

    clock: Callable[[], float] = time.monotonic
    beats_s: dict[str, float] = attrs.Factory(dict)
    """When each thread was last alive, monotonic seconds."""
    started_s: float = attrs.field(default=attrs.Factory(lambda self: self.clock(), takes_self=True))
    joined: bool = False
    store_up: bool = False
    dead_letters_up: bool = False
    stopping: bool = False

    def beat(self, thread: str) -> None:
        """Note that a thread, `loop` or `writer`, is alive."""
        self.beats_s[thread] = self.clock()

    def age_s(self) -> float:
        """Return how long ago the thread that was silent for longest was alive, in seconds."""
        return self.clock() - min(self.beats_s.copy().values(), default=self.started_s)

    def is_alive(self) -> bool:
        """Return whether both threads go round; false means that only a restart helps.

        A write that goes on for long is no reason while requests of it are answered.
        """
        return self.age_s() < HEARTBEAT_TIMEOUT_S

    def conditions(self) -> dict[str, bool]:
        """Return each condition of readiness by its name."""
        return {
            "joined": self.joined,
            "store_up": self.store_up,
            "dead_letters_up": self.dead_letters_up,
            "not_stopping": not self.stopping,
        }

    def is_ready(self) -> bool:
        """Return whether every condition holds."""
        return all(self.conditions().values())
