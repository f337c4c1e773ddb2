"""A call as it is read: its turns with what was said, its stages and what went wrong. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from voicelog.events import FINISHED_STAGES, Error, Event, LlmRequest, StageStarted, SttResult, TtsResult, Turn
from voicelog_sink.summary import Summary


@attrs.frozen(kw_only=True)
class CallTurn:
    """One turn; `event` is None while it goes on, or where its event was lost.

    `stages` holds finished stages, and stage_started for those that are still open, by their start. `others` are logs,
    errors and metrics of the turn.
    """

    turn_id: str
    event: Turn | None
    stages: tuple[Event, ...]
    others: tuple[Event, ...]

    @classmethod
    def of(cls, events: Sequence[Event], turn_id: str = "", event: Turn | None = None) -> CallTurn:
        """Return the turn that holds these events, which are in order."""
        stages = tuple(e for e in events if e.TYPE in FINISHED_STAGES or isinstance(e, StageStarted))
        others = tuple(e for e in events if e.TYPE not in FINISHED_STAGES and not isinstance(e, StageStarted))
        return cls(turn_id=turn_id, event=event, stages=stages, others=others)

    @property
    def started_us(self) -> int:
        """When the first thing of it began, epoch microseconds."""
        return min(event.ts for event in (self.event, *self.stages, *self.others) if event)

    @property
    def heard(self) -> tuple[SttResult, ...]:
        """What the user said, final results in order."""
        found = [e for e in self.stages if isinstance(e, SttResult) and e.transcript and e.is_final is not False]
        return tuple(found)

    @property
    def spoken(self) -> tuple[LlmRequest | TtsResult, ...]:
        """What the bot said: what was synthesised, in order; where nothing was, what the model answered."""
        synthesised = tuple(e for e in self.stages if isinstance(e, TtsResult) and e.text)
        return synthesised or tuple(e for e in self.stages if isinstance(e, LlmRequest) and e.response)

    @property
    def failed(self) -> tuple[Event, ...]:
        """Stages that failed and errors of the turn."""
        return tuple(e for e in (*self.stages, *self.others) if is_failure(e))


@attrs.frozen(kw_only=True)
class Call:
    """A whole call; `outside` are the events of no turn."""

    summary: Summary
    turns: tuple[CallTurn, ...]
    outside: tuple[Event, ...]


def is_failure(event: Event) -> bool:
    """Say whether the event is an error or a stage that failed."""
    return isinstance(event, Error) or (event.TYPE in FINISHED_STAGES and event.status == "error")


def call_of(summary: Summary, events: Sequence[Event]) -> Call:
    """Return the call that its events make, sorted into turns; the order of `events` does not matter."""
    ordered = sorted(events, key=lambda event: (event.ts, event.stream_id, event.seq))
    finished = {(e.stream_id, e.span_id) for e in ordered if e.span_id and not isinstance(e, StageStarted)}
    kept = [e for e in ordered if not isinstance(e, StageStarted) or (e.stream_id, e.span_id) not in finished]
    by_turn: dict[str, list[Event]] = {}
    for event in kept:
        if event.turn_id:
            by_turn.setdefault(event.turn_id, []).append(event)
    turns = [turn for turn_id, its in by_turn.items() for turn in _turns(turn_id, its)]
    outside = tuple(event for event in kept if not event.turn_id)
    return Call(summary=summary, turns=tuple(sorted(turns, key=lambda turn: turn.started_us)), outside=outside)


def _turns(turn_id: str, events: Sequence[Event]) -> list[CallTurn]:
    """Return the turns of one id: one, unless the program gave several turns the same."""
    heads = [event for event in events if isinstance(event, Turn)]
    others = [event for event in events if not isinstance(event, Turn)]
    if not heads:
        return [CallTurn.of(others, turn_id)]
    groups: list[list[Event]] = [[] for _ in heads]
    for event in others:
        groups[max(sum(head.ts <= event.ts for head in heads) - 1, 0)].append(event)
    return [CallTurn.of(group, turn_id, head) for head, group in zip(heads, groups, strict=True)]
