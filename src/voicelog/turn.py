"""A turn: from the user's speech to the bot's, with its marks and what they measure."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from voicelog import tracing
from voicelog.clean import clean, shown, text
from voicelog.client import Client, state
from voicelog.context import session_var
from voicelog.events import ANCHORS, TS_MAX_US, TS_MIN_US
from voicelog.failure import status_of
from voicelog.fields import fit
from voicelog.latency import END, NO_MARKS, STAGE_MARKS, START, Interval, Latency, measure
from voicelog.otel import Span
from voicelog.wire import Headers

if TYPE_CHECKING:
    from voicelog.session import Session

MAX_MARKS = 200
MAX_STAGES = 2000
MAX_AGO_MS = 86_400_000

StageRun = tuple[str, int, int | None, int, str, dict[str, Any] | None]
"""A finished stage: name; start, first item or None, end, monotonic nanoseconds; status; an stt's or tts's fields."""


class Turn:
    """One turn of a call: `with voicelog.turn() as turn`, `async with`, or session.start_turn() and turn.end().

    Safe from any thread; never blocks; raises nothing into the caller.
    """

    def __init__(self, session: Session | None, id: str | None = None) -> None:
        self._session = session
        self._given_id = text(id) or None if id is not None else None
        self.id: str | None = self._given_id
        self._client: Client | None = None
        self._number: int | None = None
        self.span: Span | None = None
        """The turn's OpenTelemetry span, the parent of its stages' spans."""
        self._start_ns = 0
        self._marks: dict[str, int] = {}
        self._stage_marks: dict[str, int] = {}
        self.runs: list[StageRun] = []
        """The stages that finished in the turn, in that order; each appends itself, up to MAX_STAGES."""
        self._attributes: dict[str, Any] = {}
        self._anchor: str | None = None
        self._interrupted = False
        self._failed = False

    @property
    def session(self) -> Session | None:
        """The session that the turn belongs to."""
        return self._session

    def mark(self, name: str, *, ago_ms: float = 0, anchor: str | None = None) -> None:
        """Set the mark `name` to now, or to `ago_ms` milliseconds ago: when it was, not when one hears of it.

        A mark that is set again moves. `anchor` says what user_speech_end was taken from: vad, stt_final,
        push_to_talk, manual (the default) or provider. Marks with a meaning: voicelog.latency.MARKS; others are kept.
        """
        client = self._client
        if client is None:
            return
        try:
            self._mark(client, name, ago_ms, anchor)
        except Exception as exc:
            client.fault("turn.mark", exc)

    def _mark(self, client: Client, name: str, ago_ms: float, anchor: str | None) -> None:
        ago = fit((float,), ago_ms)
        if not isinstance(name, str) or not name or ago is None or abs(ago) > MAX_AGO_MS:
            what = f"mark({shown(name)}, ago_ms={shown(ago_ms)})"
            client.invalid("mark", f"{what}: expected a name and milliseconds within a day")
            return
        if anchor is not None and not (isinstance(anchor, str) and anchor in ANCHORS):
            what = f"mark({shown(name)}, anchor={shown(anchor)})"
            client.invalid("mark.anchor", f"{what}: expected one of {', '.join(ANCHORS)}")
            anchor = None
        name = text(name)
        if name not in self._marks and len(self._marks) >= MAX_MARKS:
            client.invalid("mark.many", f"a turn keeps {MAX_MARKS} marks; mark({name!r}) is left out")
            return
        self._marks[name] = client.clock.now_ns() - int(ago * 1e6)
        if name == START:
            self._anchor = anchor or "manual"

    def set(self, /, **attributes: Any) -> None:
        """Keep attributes on the turn's event."""
        self._attributes.update(attributes)

    def interrupt(self, *, ago_ms: float = 0) -> None:
        """Say that the user spoke into the bot's speech: sets the mark interrupted_at and was_interrupted."""
        self._interrupted = True
        self.mark("interrupted_at", ago_ms=ago_ms)

    def stage_mark(self, name: str, at_ns: int) -> None:
        """Take a mark from a stage: the earliest of its name counts, and the user's own wins over it."""
        if at_ns < self._stage_marks.setdefault(name, at_ns):
            self._stage_marks[name] = at_ns

    def start(self) -> Self:
        """Open the turn and make it the session's current one; the turn that was current comes back at its end.

        A turn that is open stays as it is.
        """
        client, session = state.current, self._session
        if client is None or self._client is not None:
            return self
        if session is None or session.stream is None:
            client.no_session("a turn")
            return self
        if self._number is not None:
            self._forget()
        self._number = session.count_turn()
        self.id = self._given_id or f"{session.stream.stream_id[:8]}-{self._number}"
        self._start_ns = client.clock.now_ns()
        session.go_on(client)
        self.span = session.spans.turn(self._start_ns) if session.spans is not None else None
        self._client = client
        session.turn_opened(self)
        return self

    def _forget(self) -> None:
        """Begin anew: what was measured belongs to the run that ended."""
        self._marks, self._stage_marks, self.runs, self._attributes = {}, {}, [], {}
        self._anchor, self._interrupted, self._failed = None, False, False

    def end(self, *, end_reason: str | None = None) -> None:
        """Close the turn and emit its event; a second call does nothing."""
        session = self._session
        if session is None:
            return
        with session.lock:
            client, self._client = self._client, None
        if client is None:
            return
        try:
            self._emit(client, end_reason)
        except Exception as exc:
            client.fault("turn.end", exc)

    def _emit(self, client: Client, end_reason: str | None) -> None:
        session = self._session
        if session is None or session.stream is None:
            return
        session.turn_closed(self)
        stream, epoch_us = session.stream, session.stream.anchor.epoch_us
        self._mark_ends()
        marks = {name: epoch_us(at) for name, at in {**self._stage_marks, **self._marks}.items()}
        stages = [Interval(name, epoch_us(start), epoch_us(end)) for name, start, _, end, _, _ in self.runs]
        latency = measure(marks, stages, self._anchor)
        fields = self._fields(client, latency, marks, end_reason)
        headers = self._end_span(self.span, fields) if self.span is not None else tracing.stamp(fields)
        client.live().emit(stream, "turn", self._start_ns, fields, headers)

    def _mark_ends(self) -> None:
        for stage, _, _, end_ns, status, fields in self.runs:
            mark = STAGE_MARKS.get(stage, NO_MARKS)[2]
            if mark is not None and status == "ok" and (fields is None or fields.get("is_final") is not False):
                self.stage_mark(mark, end_ns)

    def _end_span(self, span: Span, fields: dict[str, Any]) -> Headers:
        headers = span.stamp(fields)
        span.end_turn(fields, self._start_ns + round(fields["duration_ms"] * 1e6))
        return headers

    def _fields(
        self, client: Client, latency: Latency, marks: dict[str, int], end_reason: str | None
    ) -> dict[str, Any]:
        whole = latency.figures.get("user_bot_latency_ms")
        fields: dict[str, Any] = {
            "turn_id": self.id,
            "turn_number": self._number,
            "duration_ms": (client.clock.now_ns() - self._start_ns) / 1e6,
            "marks": {name: at for name, at in marks.items() if TS_MIN_US <= at < TS_MAX_US},
            "figures": latency.figures,
            "contributions": latency.contributions,
            "user_bot_latency_ms": whole.value_ms if whole else None,
            "unattributed_ms": latency.unattributed_ms,
            "anchor": self._anchor if START in marks else None,
            "quality": self._quality(latency, marks),
            "was_interrupted": self._interrupted,
            "end_reason": self._end_reason(end_reason),
            "status": "error" if self._failed else "interrupted" if self._interrupted else "ok",
            "attributes": clean(self._attributes) if self._attributes else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _end_reason(self, given: str | None) -> str:
        found = text(given) if given is not None else ""
        return found or ("error" if self._failed else "interrupted" if self._interrupted else "completed")

    def _quality(self, latency: Latency, marks: dict[str, int]) -> str:
        if START not in marks or END in marks:
            return latency.quality
        return "interrupted" if self._interrupted else "no_anchor"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        status = "ok" if exc is None else status_of(exc)
        self._failed = status == "error"
        self._interrupted = self._interrupted or status == "cancelled"
        self.end()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def __bool__(self) -> bool:
        """Return whether the turn is open and recorded."""
        return self._client is not None


def turn(id: str | None = None) -> Turn:
    """Return a turn of the current session: `with voicelog.turn() as turn:`. Its id is counted when none is given."""
    return Turn(session_var.get(), id)


def current_turn() -> Turn:
    """Return the current session's open turn; without one, a turn that records nothing and is false."""
    session = session_var.get()
    found = session.current_turn if session is not None else None
    return found if found is not None else Turn(None)
