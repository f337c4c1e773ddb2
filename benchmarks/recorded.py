"""Calls for the benchmark of reading: the recorded ones of `voicelog-sink demo`, each time with other lengths. Pure.

Time is stretched piece by piece, at each cut of a turn's latency by another factor. So every moment of a call, of its
stages, marks and contributions alike, stays in its order, and a turn's contributions still sum to its latency.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import attrs

from voicelog.events import Event, SttResult, Turn
from voicelog_sink.demo import named, recorded

SERVICES = ("front-desk", "orders", "support")
COMBINATIONS = 20
USERS = 5_000
SPREAD = 0.35
"""Standard deviation of the logarithm of a piece's factor."""
RARE_EVERY = 1_000
RARE_MODEL, RARE_TEXT = "rare-model", "porcupine"
"""What one call in RARE_EVERY has: its language model, and a word that its caller says."""


class Who(NamedTuple):
    """What tells calls apart."""

    session_id: str
    service: str
    variant: str
    user_id: str
    combination: int
    is_rare: bool

    @classmethod
    def of(cls, number: int, random: Random) -> Who:
        """Draw what the call of this number has."""
        combination = random.randrange(COMBINATIONS)
        user = f"user-{random.randrange(USERS):04d}"
        variant, service = "ab"[combination // 10], random.choice(SERVICES)
        return cls(f"call-{number:06d}", service, variant, user, combination, number % RARE_EVERY == RARE_EVERY // 2)

    def of_stage(self, event: Event) -> dict[str, Any]:
        """Return provider and model of a stage: 5 and 10 different ones of each that was recorded."""
        if event.model is None:
            return {}
        if self.is_rare and event.stage == "llm":
            return {"provider": event.provider, "model": RARE_MODEL}
        n = self.combination % 10
        return {"provider": f"{event.provider}-{n % 5}", "model": f"{event.model}-{n}"}


class Stretch:
    """A call's time, stretched: `at` is a moment's place in it, microseconds since the call's begin."""

    def __init__(self, knots: Sequence[tuple[int, float]]) -> None:
        """Take moments in their order, each with the factor of the time from it to the next."""
        self._xs = [x for x, _ in knots]
        self._factors = [factor for _, factor in knots]
        self._ys = [0.0]
        for (x, factor), (following, _) in pairwise(knots):
            self._ys.append(self._ys[-1] + (following - x) * factor)

    def at(self, us: float) -> int:
        """Return where a moment lies."""
        piece = bisect_right(self._xs, us) - 1
        return round(self._ys[piece] + (us - self._xs[piece]) * self._factors[piece])


class Template:
    """One recorded call, and how it becomes others."""

    def __init__(self, events: Sequence[Event]) -> None:
        """Take the events of one call."""
        self.events = events
        self.begin_us = min(event.ts for event in events)

    def varied(self, who: Who, begin_us: int, random: Random) -> list[Event]:
        """Return the call as another one that began at `begin_us`."""
        stretch = Stretch(list(self._knots(random, slowness(who.combination))))
        return [self._event(event, stretch, who, begin_us) for event in self.events]

    def _knots(self, random: Random, slow: float) -> Iterator[tuple[int, float]]:
        yield 0, 1.0
        for turn in self.events:
            if not isinstance(turn, Turn) or not turn.contributions or not turn.marks:
                continue
            at_us = turn.marks["user_speech_end"] - self.begin_us
            for part in turn.contributions:
                yield at_us, slow * random.lognormvariate(0, SPREAD)
                at_us += part.us
            yield at_us, 1.0

    def _event(self, event: Event, stretch: Stretch, who: Who, begin_us: int) -> Event:
        since_us = event.ts - self.begin_us
        ts = stretch.at(since_us)
        fields: dict[str, Any] = {"ts": begin_us + ts, "service": who.service, "variant": who.variant}
        fields |= {"user_id": who.user_id, "host": f"bot-{who.combination % 4}", **who.of_stage(event)}
        for name in ("duration_ms", "first_item_ms"):
            if (took_ms := getattr(event, name)) is not None:
                fields[name] = (stretch.at(since_us + took_ms * 1000) - ts) / 1000
        if event.duration_ms:
            grown = fields["duration_ms"] / event.duration_ms
            fields |= {n: v * grown for n in ("producer_ms", "longest_gap_ms") if (v := getattr(event, n)) is not None}
        if isinstance(event, Turn):
            fields |= self._turn(event, stretch, begin_us)
        if who.is_rare and isinstance(event, SttResult) and event.transcript:
            fields["transcript"] = f"{event.transcript} And my name is {RARE_TEXT.capitalize()}."
        return named(attrs.evolve(event, **fields), who.session_id)

    def _turn(self, turn: Turn, stretch: Stretch, begin_us: int) -> dict[str, Any]:
        def moment(us: int) -> int:
            return begin_us + stretch.at(us - self.begin_us)

        marks, parts = turn.marks or {}, turn.contributions or []
        cuts = [marks["user_speech_end"]]
        for part in parts:
            cuts.append(cuts[-1] + part.us)
        lengths = [moment(end) - moment(begin) for begin, end in pairwise(cuts)]
        latency_ms = sum(lengths) / 1000
        fields: dict[str, Any] = {
            "marks": {name: moment(us) for name, us in marks.items()},
            "contributions": [attrs.evolve(part, us=us) for part, us in zip(parts, lengths, strict=True)],
            "user_bot_latency_ms": latency_ms,
            "unattributed_ms": sum(us for p, us in zip(parts, lengths, strict=True) if p.key == "unattributed") / 1000,
        }
        grown = latency_ms / (turn.user_bot_latency_ms or 1)
        fields["figures"] = {
            name: attrs.evolve(figure, value_ms=fields.get(name, (figure.value_ms or 0) * grown))
            for name, figure in (turn.figures or {}).items()
        }
        if turn.barge_in and turn.barge_in.stop_us:
            onset_us, stop_us = moment(turn.barge_in.onset_us), moment(turn.barge_in.stop_us)
            stop_ms = (stop_us - onset_us) / 1000
            fields["barge_in"] = attrs.evolve(turn.barge_in, onset_us=onset_us, stop_us=stop_us, stop_ms=stop_ms)
        return fields


def slowness(combination: int) -> float:
    """Return how slow a combination's providers are: from 0.2 to 0.4 of the recorded ones, which shared two cores."""
    return 0.2 + zlib.crc32(f"model-{combination}".encode()) % 100 / 500


def templates() -> list[Template]:
    """Return the recorded calls."""
    calls: defaultdict[str | None, list[Event]] = defaultdict(list)
    for event in recorded():
        calls[event.session_id].append(event)
    return [Template(events) for events in calls.values()]


def calls(events: int, begin_us: int, end_us: int, seed: int = 1) -> Iterator[list[Event]]:
    """Yield calls with `events` events in all, or a few more, spread evenly from `begin_us` to `end_us`."""
    random, known = Random(seed), templates()
    mean = sum(len(template.events) for template in known) / len(known)
    step_us = (end_us - begin_us) / (events / mean)
    number = made = 0
    while made < events:
        at_us = int(begin_us + (number + random.random()) * step_us)
        call = random.choice(known).varied(Who.of(number, random), min(at_us, end_us), random)
        yield call
        number, made = number + 1, made + len(call)
