"""What a fleet of bots sends: calls of several services and variants at once, events of every type, and their fates."""

from __future__ import annotations

import time
from collections.abc import Iterable
from operator import itemgetter
from random import Random
from typing import NamedTuple

from tests.builders import CallBuilder, realistic_call, troubled_call
from tests.calls import STACK, a_call
from tests.running import Raw, message_of

from voicelog.events import Error, ErrorInfo, Event, Health, Log, Metric, StageStarted

STORED = "stored"
EXPIRED = "expired"
EITHER = "stored or dead-lettered"
"""Fates of a message; any other is the reason under which it must be in the dead letters."""


class Sent(NamedTuple):
    """A message and what must become of it: `event` is what must be found in the store, None where it must not."""

    message: Raw
    fate: str = STORED
    event: Event | None = None


def sent(events: Iterable[Event]) -> list[Sent]:
    """Return the events as messages that must be stored."""
    return [Sent(message_of(event), STORED, event) for event in events]


def fleet(random: Random, count: int, tag: str = "call") -> list[Event]:
    """Return the events of `count` calls that go on at once, and what their processes send beside them.

    Each call's events are in order, the calls are mixed. They began within the last minute.
    """
    now_us = int(time.time() * 1e6)
    streams = [_call(random, f"{tag}-{n}", now_us - random.randrange(60_000_000)) for n in range(count)]
    streams.append(_process(f"{tag}-process", now_us, 4 + count // 4))
    return mixed(random, streams)


def mixed(random: Random, streams: Iterable[list[Event]]) -> list[Event]:
    """Return all events, each stream's in its order; streams begin and end throughout."""
    timed = []
    for number, stream in enumerate(streams):
        begin = random.random()
        moments = sorted(random.uniform(begin, begin + 0.25) for _ in stream)
        timed += [(moment, number, event) for moment, event in zip(moments, stream, strict=True)]
    return [event for _, _, event in sorted(timed, key=itemgetter(0))]


def _call(random: Random, session_id: str, start_us: int) -> list[Event]:
    number = random.randrange(1, 2**31)
    who = {
        "service": random.choice(["front-desk", "billing", "überweisung"]), "host": f"bot-{number % 5}",
        "variant": random.choice(["a", "b", None]), "user_id": f"user-{number % 40}", "start_us": start_us,
    }  # fmt: skip
    kind = random.choice(["whole", "whole", "every type", "two streams", "troubled"])
    if kind == "every type":
        return a_call(session_id, random.randrange(9, 40), start_us)
    if kind == "troubled":
        return troubled_call(session_id, seed=number, **who).events
    call = realistic_call(session_id, seed=number, turns=random.randrange(1, 6), **who)
    return call.events + (_telephony(session_id, number, start_us) if kind == "two streams" else [])


def _telephony(session_id: str, number: int, start_us: int) -> list[Event]:
    """Return the same call's events from another process."""
    call = CallBuilder(session_id, stream_id=f"tel{number:08x}", start_us=start_us, service="telephony", host="sip-1")
    call.started()
    call.add(StageStarted, 20, stage="transfer", span_id=f"{number:016x}")
    call.add(Log, 30, level="ERROR", message="no ringback", logger="sip", attributes={"code": 486})
    call.ended(9_000, disconnect_reason="user_hangup")
    return call.events


def _process(stream_id: str, at_us: int, count: int) -> list[Event]:
    """Return what a process sends outside of any call."""
    who = {"stream_id": stream_id, "service": "front-desk", "host": "bot-0"}
    failure = ErrorInfo(type="builtins.OSError", message="no disk", stack=STACK)

    def event(seq: int) -> Event:
        common = {**who, "seq": seq, "ts": at_us + seq * 1000}
        kinds = (
            lambda: Health(**common, component=f"library-{stream_id}", state="ok", attributes={"queued": seq}),
            lambda: Metric(**common, name=f"{stream_id}.depth", value=seq / 7, unit="1"),
            lambda: Log(**common, level=("INFO", "WARNING")[seq % 2], message=f"line {seq}", logger="bot"),
            lambda: Error(**common, status="error", error=failure),
        )
        return kinds[seq % len(kinds)]()

    return [event(seq) for seq in range(1, count + 1)]
