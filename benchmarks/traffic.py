"""Calls for the sink's benchmark: what a bot sends in a call, of as many calls at once as one likes. Pure."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import NamedTuple

import attrs
from tests.builders import CallBuilder, realistic_call

from voicelog import wire
from voicelog.events import FINISHED_STAGES, Event, Health, Log, Metric, StageEvent

HEALTH_EVERY = 500
"""Events to one sign of life of the bot's process."""
TEMPLATES = 64
"""Different calls; every call is one of them under its own ids, since making one takes long."""
TURNS = (2, 9)
MODELS = ("gpt-4o-mini", "gpt-4.1-nano")


class Sent(NamedTuple):
    """An event and its message."""

    event: Event
    message: wire.Message


def sent(count: int, active: int, begin_us: int, run: str) -> list[Sent]:
    """Return `count` events as `active` calls at once send them: each call's next one in turn, keyed by the call."""
    return [Sent(event, wire.encode(event)) for event in itertools.islice(events(active, begin_us, run), count)]


def events(active: int, begin_us: int, run: str) -> Iterator[Event]:
    """Yield events without end: `active` calls at different points, each followed by the next one when it is over."""
    numbers = itertools.count()
    slots = [_slot(numbers, begin_us, run) for _ in range(active)]
    for slot in slots:  # as many calls begin as end at any moment, so they are not all at their start
        for _ in range(Random(f"{run}-{next(numbers)}").randrange(30)):
            next(slot)
    seqs = itertools.count(1)
    for number, slot in enumerate(itertools.cycle(slots), 1):
        yield next(slot)
        if number % HEALTH_EVERY == 0:
            yield _health(next(seqs), begin_us, run)


def _slot(numbers: Iterator[int], begin_us: int, run: str) -> Iterator[Event]:
    while True:
        yield from call(f"{run}-{next(numbers):06d}", begin_us)


def call(session_id: str, begin_us: int) -> list[Event]:
    """Return one whole call with the fields that the library sends."""
    number = zlib.crc32(session_id.encode())
    stream_id = f"{number:08x}{len(session_id):02x}5e7a11"
    return [
        attrs.evolve(event, session_id=session_id, stream_id=stream_id) for event in _call(number % TEMPLATES, begin_us)
    ]


@lru_cache(maxsize=4 * TEMPLATES)
def _call(number: int, begin_us: int) -> list[Event]:
    random = Random(number)
    made = realistic_call(
        "template", seed=number, turns=random.randint(*TURNS), model=random.choice(MODELS),
        start_us=begin_us, user_id=f"user-{random.randrange(10_000)}", variant=random.choice("ab"),
    )  # fmt: skip
    ended = made.events.pop()
    _more(made, random, (ended.ts - begin_us) / 1000)
    made.ended((ended.ts - begin_us) / 1000, disconnect_reason="user_hangup")
    trace_id = f"{random.getrandbits(128):032x}"
    return [_timed(event, trace_id, random) for event in made.events]


def _more(made: CallBuilder, random: Random, at_ms: float) -> None:
    level = "WARNING" if random.random() < 0.2 else "INFO"
    made.add(Log, at_ms - 300, level=level, message="the caller said nothing for 4.2 s", logger="bot.silence")
    made.add(Metric, at_ms - 200, name="queue_depth", value=float(random.randrange(9)), unit="1")
    found = {"documents": random.randrange(9), "index": "menu-2026", "cached": random.random() < 0.5}
    made.add(
        StageEvent, at_ms - 100, stage="retrieval", duration_ms=random.uniform(5, 40), status="ok", attributes=found
    )


def _timed(event: Event, trace_id: str, random: Random) -> Event:
    if event.TYPE not in FINISHED_STAGES:
        return event
    timed = attrs.evolve(event, trace_id=trace_id)
    if event.first_item_ms is None:
        return timed
    return attrs.evolve(timed, producer_ms=random.uniform(100, 900), longest_gap_ms=random.uniform(20, 90))


def _health(seq: int, at_us: int, run: str) -> Health:
    figures = {"queue_bytes": 1200 + seq, "dropped": 0, "open_sessions": 12}
    return Health(
        stream_id=f"process-{run}", seq=seq, ts=at_us + seq, service="front-desk", host="bot-1",
        component="voicelog", state="ok", attributes=figures,
    )  # fmt: skip
