"""Marks: the moments of a turn, and those that its stages set. Pure: integer microseconds, one clock.

What a stage did outside of the turn's latency sets no mark: it was over before the user fell silent, or began when the
bot spoke already. The rules are in docs/explanation/latency.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

START = "user_speech_end"
END = "playback_start"
"""Between these two lies a turn's latency."""

TOOL = "tool"
STAGE_MARKS: dict[str, tuple[str | None, str | None, str | None]] = {
    "stt": (None, None, "stt_final"),
    "llm": ("llm_request", "llm_first_token", None),
    "tts": ("tts_request", "tts_first_byte", None),
}
"""The marks that a stage sets at its start, its first item and its end."""
NO_MARKS = (None, None, None)


class Interval(NamedTuple):
    """A stage of the turn. `start_us` is None where it is not known, `end_us` where the stage is still open."""

    stage: str
    start_us: int | None
    end_us: int | None
    first_us: int | None = None
    status: str = "ok"
    is_final: bool = True
    """Of recognition: whether its end is the end of recognition."""

    @property
    def began_us(self) -> int | None:
        """The earliest moment that is known of it."""
        known = (self.start_us, self.first_us, self.end_us)
        return next((moment for moment in known if moment is not None), None)


StageMark = tuple[str, int]
"""A mark as a stage sets it while it runs: name and moment."""


def intervals(ended: Iterable[Interval], told: Iterable[StageMark]) -> list[Interval]:
    """Return a turn's stages from those that have ended, and from the marks that all of them told.

    A mark that belongs to no ended stage is that of an open one. A stage that told no mark of its start does not know
    it: its result was published without a duration.
    """
    left = Counter(told)
    found = [_ended(stage, left) for stage in ended]
    for name, (request, answer, _) in STAGE_MARKS.items():
        if request is not None and answer is not None:
            found += _open(name, _moments(left, request), _moments(left, answer))
    return found


def _ended(stage: Interval, left: Counter[StageMark]) -> Interval:
    request, answer, _ = STAGE_MARKS.get(stage.stage, NO_MARKS)
    if request is not None and not _take(left, request, stage.start_us):
        return stage._replace(start_us=None, first_us=None)
    if answer is not None:
        _take(left, answer, stage.first_us)
    return stage


def _take(left: Counter[StageMark], name: str, at: int | None) -> bool:
    if at is None or left[name, at] == 0:
        return False
    left[name, at] -= 1
    return True


def _moments(left: Counter[StageMark], name: str) -> list[int]:
    return sorted(at for (other, at), times in left.items() if other == name for _ in range(times))


def _open(stage: str, starts: list[int], firsts: list[int]) -> Iterator[Interval]:
    """Yield open stages: a first item is that of the latest stage which had begun, and had none."""
    for start in reversed(starts):
        place = bisect_left(firsts, start)
        yield Interval(stage, start, None, firsts.pop(place) if place < len(firsts) else None)
    yield from (Interval(stage, None, None, first) for first in firsts)


def within(stages: Iterable[Interval], marks: Mapping[str, int], foreign: Collection[str]) -> list[Interval]:
    """Return the stages between the end of the user's speech and the bot's, as they stood when the bot spoke.

    A bound that is missing, or was taken by another clock, bounds nothing; nor do both where they are out of order.
    """
    since, until = (marks.get(name) if name not in foreign else None for name in (START, END))
    if since is not None and until is not None and until < since:
        since = until = None
    inside = (stage for stage in stages if not _is_outside(stage, since, until))
    return [_as_of(stage, until) for stage in inside]


def _is_outside(stage: Interval, since: int | None, until: int | None) -> bool:
    is_early = since is not None and stage.end_us is not None and stage.end_us < since
    return is_early or (until is not None and stage.began_us is not None and stage.began_us > until)


def _as_of(stage: Interval, until: int | None) -> Interval:
    """Return the stage without what came after `until`: how it ended then says nothing of what was heard."""
    if until is None:
        return stage
    if stage.first_us is not None and stage.first_us > until:
        stage = stage._replace(first_us=None)
    if stage.end_us is not None and stage.end_us > until:
        stage = stage._replace(end_us=None, status="ok", is_final=False)
    return stage


def asked(stages: Iterable[Interval], name: str) -> list[Interval]:
    """Return the stages of that name that an answer was waited for from: the cancelled ones only if there is no other.

    A program that withdraws a request, as it does with a guess at the user's last words, does not wait for it.
    """
    named = [stage for stage in stages if stage.stage == name]
    return [stage for stage in named if stage.status != "cancelled"] or named


def stage_marks(stages: Sequence[Interval]) -> dict[str, int]:
    """Return the marks that these stages set, the earliest of each name."""
    found: dict[str, int] = {}
    for name, (request, answer, final) in STAGE_MARKS.items():
        mine = asked(stages, name)
        moments = {request: [s.start_us for s in mine], answer: _firsts(mine), final: _finals(mine)}
        for mark, at in moments.items():
            known = [moment for moment in at if moment is not None]
            if mark is not None and known:
                found[mark] = min(known)
    return found


def _firsts(stages: Sequence[Interval]) -> list[int | None]:
    """Return the first items that may have been heard: those of a failed stage only where no other one answered."""
    answered = [stage for stage in stages if stage.first_us is not None]
    return [stage.first_us for stage in [s for s in answered if s.status != "error"] or answered]


def _finals(stages: Sequence[Interval]) -> list[int | None]:
    return [stage.end_us for stage in stages if stage.status == "ok" and stage.is_final]
