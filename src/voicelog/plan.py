"""Plans: what a stage's name decides about its event, worked out once a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from voicelog.barge_in import Speech, speech_of
from voicelog.events import STAGE_TYPES, StageEvent
from voicelog.fields import SETTABLE
from voicelog.marks import NO_MARKS, STAGE_MARKS


@attrs.frozen  # with slots: read faster than a named tuple
class Plan:
    """The event of a stage, the fields it knows, and the marks that it sets in its turn."""

    kind: str
    known: dict[str, type]
    """Typed fields by the exact type that needs no conversion; what is of another type goes the slower way."""
    start_mark: str | None
    first_mark: str | None
    end_mark: str | None
    tell: Callable[[dict[str, Any]], Speech | bool | None] | None
    """What its turn is told of the event's fields: whether a transcript is final, what was spoken and what it cost."""


def _is_final(fields: dict[str, Any]) -> bool | None:
    found: bool | None = fields.get("is_final")
    return found


TELL: dict[str, Callable[[dict[str, Any]], Speech | bool | None]] = {"stt_result": _is_final, "tts_result": speech_of}


def _plan(name: str) -> Plan:
    kind = STAGE_TYPES.get(name, StageEvent).TYPE
    known = {field: accepted[0] for field, accepted in SETTABLE[kind].items()}
    return Plan(kind, known, *STAGE_MARKS.get(name, NO_MARKS), tell=TELL.get(kind))


OTHER = _plan("")
"""The plan of any stage that has no event of its own."""
PLANS: dict[str, Plan] = {name: _plan(name) for name in {*STAGE_TYPES, *STAGE_MARKS}}
