"""The recorded calls that `voicelog-sink demo` plays: real ones of the example, moved to another time. Pure.

`examples/record.py` records them anew, as the example's bot produced them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import attrs

from voicelog import wire
from voicelog.events import BargeIn, Event

RECORDED = "demo_calls.jsonl"


@attrs.frozen(kw_only=True)
class Played:
    """What became of the calls: how many events were produced, and how many of these the store gives back."""

    store: str
    sessions: tuple[str, ...]
    produced: int
    stored: int


def recorded() -> list[Event]:
    """Return the events of the recorded calls, call after call, each call's in the order of their `seq`."""
    lines = (files(__package__) / RECORDED).read_bytes().splitlines()
    return [wire.decode(line) for line in lines]


def anew(events: Sequence[Event], begin_us: int, run: str) -> list[Event]:
    """Return the calls as if the first of them had begun at `begin_us` (epoch microseconds), under ids of their own.

    `run` is what tells their ids from those of the same calls played before: a call is named `<name>-<run>`.
    """
    by_us = begin_us - min(event.ts for event in events)
    return [named(moved(event, by_us), f"{event.session_id}-{run}") for event in events]


def moved(event: Event, by_us: int) -> Event:
    """Return the event as it would have been so many microseconds later."""
    fields: dict[str, Any] = {"ts": event.ts + by_us}
    marks: dict[str, int] | None = getattr(event, "marks", None)
    if marks:
        fields["marks"] = {name: at_us + by_us for name, at_us in marks.items()}
    barge_in: BargeIn | None = getattr(event, "barge_in", None)
    if barge_in:
        stop_us = None if barge_in.stop_us is None else barge_in.stop_us + by_us
        fields["barge_in"] = attrs.evolve(barge_in, onset_us=barge_in.onset_us + by_us, stop_us=stop_us)
    return attrs.evolve(event, **fields)


def named(event: Event, session_id: str) -> Event:
    """Return the event as one of another call's: its stream, turn and spans have ids that follow from the call's."""
    stream_id = blake2b(f"{session_id} {event.stream_id}".encode(), digest_size=8).hexdigest()
    old, new = event.stream_id[:8], stream_id[:8]  # what the library begins the ids of turns and spans with
    ids: dict[str, Any] = {
        name: value.replace(old, new, 1)
        for name in ("turn_id", "span_id", "parent_id")
        if (value := getattr(event, name))
    }
    return attrs.evolve(event, session_id=session_id, stream_id=stream_id, **ids)


def sent_us(event: Event) -> int:
    """Return when the event was produced, epoch microseconds: at the end of what it tells of."""
    return event.ts + round((event.duration_ms or 0) * 1000)
