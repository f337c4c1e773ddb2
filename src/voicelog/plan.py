"""Plans: what a stage's name decides about its event, worked out once a name."""

from __future__ import annotations

from typing import NamedTuple

from voicelog.events import STAGE_TYPES, StageEvent
from voicelog.fields import SETTABLE
from voicelog.latency import NO_MARKS, STAGE_MARKS


class Plan(NamedTuple):
    """The event of a stage, the fields it knows, and the marks that it sets in its turn."""

    kind: str
    known: dict[str, type]
    """Typed fields by the exact type that needs no conversion; what is of another type goes the slower way."""
    start_mark: str | None
    first_mark: str | None
    end_mark: str | None
    told: bool
    """Whether its turn is told the event's fields: what was final, what was spoken and what it cost."""


TOLD = frozenset({"stt_result", "tts_result"})


def _plan(name: str) -> Plan:
    kind = STAGE_TYPES.get(name, StageEvent).TYPE
    known = {field: accepted[0] for field, accepted in SETTABLE[kind].items()}
    return Plan(kind, known, *STAGE_MARKS.get(name, NO_MARKS), told=kind in TOLD)


OTHER = _plan("")
"""The plan of any stage that has no event of its own."""
PLANS: dict[str, Plan] = {name: _plan(name) for name in {*STAGE_TYPES, *STAGE_MARKS}}
