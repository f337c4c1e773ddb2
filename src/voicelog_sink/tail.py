"""Which live events are wanted, and in which order those of a moment are shown. Pure."""

from __future__ import annotations

from typing import cast

import attrs

from voicelog.events import Error, Event, Log
from voicelog_sink.rows import QUIET_LEVELS

MOST_EVENTS = 500
MOST_BYTES = 4 * 1024 * 1024
MOST_WAIT_S = 0.5
"""How many events wait to be put in order, how large, and how long: whichever comes first."""


@attrs.frozen
class TailFilter:
    """Which events; what is empty takes any."""

    sessions: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    errors: bool = False

    def takes(self, event: Event) -> bool:
        """Say whether the event is one of these; takes what `wire.read` gives as well."""
        return (
            (not self.sessions or event.session_id in self.sessions)
            and (not self.stages or event.stage in self.stages)
            and (not self.services or event.service in self.services)
            and (not self.types or event.TYPE in self.types)
            and (not self.errors or is_error(event))
        )


def is_error(event: Event) -> bool:
    """Say whether something went wrong: an error, whatever ended with one, a log record from WARNING up."""
    if event.TYPE == Log.TYPE:
        return cast("Log", event).level.upper() not in QUIET_LEVELS
    return event.TYPE == Error.TYPE or event.status == "error"


class Moment:
    """Events that came at about the same time, from several topics and partitions, to be put in order.

    Bounded: when it is full, whoever adds has to take.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._events: list[Event] = []
        self._bytes = 0
        self._began_s = 0.0

    def add(self, event: Event, size_bytes: int, now_s: float) -> None:
        """Keep an event whose message had so many bytes; `now_s` by any clock that does not go back."""
        if not self._events:
            self._began_s = now_s
        self._events.append(event)
        self._bytes += size_bytes

    def is_over(self, now_s: float) -> bool:
        """Say whether no more should wait for others."""
        full = len(self._events) >= MOST_EVENTS or self._bytes >= MOST_BYTES
        return bool(self._events) and (full or now_s - self._began_s >= MOST_WAIT_S)

    def take(self) -> list[Event]:
        """Return the events by their ts, those of one stream in its order, and begin anew."""
        events, self._events, self._bytes = self._events, [], 0
        return sorted(events, key=lambda event: (event.ts, event.stream_id, event.seq))
