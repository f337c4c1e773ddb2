"""A turn: from the user's speech to the bot's, with its marks and what they measure."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from voicelog import tracing
from voicelog.barge_in import Speech, ledger
from voicelog.clean import clean, shown, text
from voicelog.client import Client, state
from voicelog.context import session_var
from voicelog.events import TS_MAX_US, TS_MIN_US
from voicelog.failure import status_of
from voicelog.fields import fit
from voicelog.figures import INTERRUPTED, SESSION_START
from voicelog.latency import Latency, measure
from voicelog.marks import END, START, Interval, StageMark, intervals
from voicelog.otel import Span
from voicelog.stream import Stream
from voicelog.turn_marks import TurnMarks
from voicelog.wire import Headers

if TYPE_CHECKING:
    from voicelog.session import Session

MAX_STAGES = 2000
MAX_STAGE_MARKS = 3 * MAX_STAGES
NOTHING = Speech()

StageRun = tuple[str, int, int | None, int, str, Speech | bool | None]
"""A finished stage: name; start, first item or None, end, monotonic nanoseconds; status; and what Plan.tell told."""


class Turn:
    """One turn of a call: `with voicelog.turn() as turn`, `async with`, or session.start_turn() and turn.end().

    Safe from any thread; never blocks; raises nothing into the caller.
    """

    __slots__ = ("__dict__", "__weakref__", "id", "runs")
    # slots for what each stage reads: voicelog._hot reads them in place

    def __init__(self, session: Session | None, id: str | None = None) -> None:
        self._session = session
        self._given_id = text(id) or None if id is not None else None
        self.id: str | None = self._given_id
        self._client: Client | None = None
        self._number: int | None = None
        self.span: Span | None = None
        """The turn's OpenTelemetry span, the parent of its stages' spans."""
        self._start_ns = 0
        self._entered = 0
        self._forget()

    def _forget(self) -> None:
        """Begin anew: what was measured belongs to the run that ended."""
        self._marks = TurnMarks()
        self._stage_marks: list[StageMark] = []
        self.runs: list[StageRun] = []
        """The stages that finished in the turn, in that order; each appends itself, up to MAX_STAGES."""
        self._played = NOTHING
        self._attributes: dict[str, Any] = {}
        self._interrupted = False
        self._failed = False

    @property
    def session(self) -> Session | None:
        """The session that the turn belongs to."""
        return self._session

    def mark(self, name: str, *, ago_ms: float = 0, at_us: float | None = None, anchor: str | None = None) -> None:
        """Set the mark `name` to now, or to `ago_ms` milliseconds ago: when it was, not when one hears of it.

        `at_us`, epoch microseconds, is for a mark that another process took by its own clock, as a browser does when
        it begins to play: figures that use it are `estimated`. A mark that is set again moves. `anchor` says what
        user_speech_end was taken from: vad, stt_final, push_to_talk, manual (the default) or provider. Marks with a
        meaning: voicelog.latency.MARKS; others are kept.
        """
        client = self._client
        if client is None:
            return
        try:
            self._marks.take(client, name, ago_ms=ago_ms, at_us=at_us, anchor=anchor)
        except Exception as exc:
            client.fault("turn.mark", exc)

    def set(self, /, **attributes: Any) -> None:
        """Keep attributes on the turn's event."""
        self._attributes.update(attributes)

    def interrupt(self, *, ago_ms: float = 0) -> None:
        """Say that the user spoke into the bot's speech: sets the mark interrupted_at and was_interrupted.

        Set `user_speech_start` too, to when the user began to speak, and `audio_stopped` once the bot is silent.
        """
        self._interrupted = True
        self.mark(INTERRUPTED, ago_ms=ago_ms)

    def played(self, *, characters: float | None = None, audio_ms: float | None = None) -> None:
        """Say how much of the turn's speech the user has heard so far: its characters, its milliseconds, or both.

        The last call counts, so a player may tell its position again and again. Beside what was synthesised it says
        what a barge-in cut off.
        """
        client = self._client
        if client is None:
            return
        try:
            self._take_played(client, characters, audio_ms)
        except Exception as exc:
            client.fault("turn.played", exc)

    def _take_played(self, client: Client, characters: float | None, audio_ms: float | None) -> None:
        count, length = fit((int,), characters), fit((float,), audio_ms)
        is_fit = (count is None) == (characters is None) and (length is None) == (audio_ms is None)
        if not is_fit or (count is None and length is None) or (length or 0) < 0:
            what = f"played(characters={shown(characters)}, audio_ms={shown(audio_ms)})"
            client.invalid("played", f"{what}: expected a whole number of characters, or milliseconds, from 0 on")
            return
        self._played = Speech(count, length)

    def stage_mark(self, name: str, at_ns: int) -> None:
        """Take a mark from a stage, monotonic nanoseconds."""
        if len(self._stage_marks) < MAX_STAGE_MARKS:
            self._stage_marks.append((name, at_ns))

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
        latency = self._measure(session.stream, is_first=self._number == 1 and not session.is_continued)
        fields = self._fields(client, latency, end_reason)
        headers = self._end_span(self.span, fields) if self.span is not None else tracing.stamp(fields)
        client.live().emit(session.stream, "turn", self._start_ns, fields, headers)

    def _measure(self, stream: Stream, is_first: bool) -> Latency:
        given = self._marks.epoch_us(stream.anchor)
        if is_first and END in given:
            given.setdefault(SESSION_START, stream.anchor.wall_us)
        epoch_us = stream.anchor.epoch_us
        ended = [
            Interval(
                name,
                epoch_us(start),
                epoch_us(end),
                first if first is None else epoch_us(first),
                status,
                told is not False,
            )
            for name, start, first, end, status, told in self.runs.copy()
        ]
        marked = [(name, epoch_us(at)) for name, at in self._stage_marks.copy()]
        return measure(
            given,
            intervals(ended, marked),
            self._marks.anchor,
            foreign=self._marks.foreign_us.copy(),
            is_interrupted=self._interrupted,
        )

    def _end_span(self, span: Span, fields: dict[str, Any]) -> Headers:
        headers = span.stamp(fields)
        span.end_turn(fields, self._start_ns + round(fields["duration_ms"] * 1e6))
        return headers

    def _fields(self, client: Client, latency: Latency, end_reason: str | None) -> dict[str, Any]:
        marks = {name: at for name, at in latency.marks.items() if TS_MIN_US <= at < TS_MAX_US}
        barge_in = ledger(marks, self._synthesised(), self._played)
        self._interrupted = self._interrupted or barge_in is not None
        fields: dict[str, Any] = {
            "turn_id": self.id,
            "turn_number": self._number,
            "duration_ms": (client.now_ns() - self._start_ns) / 1e6,
            "marks": marks,
            "figures": latency.figures,
            "contributions": latency.contributions,
            "user_bot_latency_ms": latency.user_bot_latency_ms,
            "unattributed_ms": latency.unattributed_ms,
            "anchor": self._marks.anchor if START in marks else None,
            "quality": latency.quality,
            "was_interrupted": self._interrupted,
            "barge_in": barge_in,
            "end_reason": self._end_reason(end_reason),
            "status": "error" if self._failed else "interrupted" if self._interrupted else "ok",
            "attributes": clean(self._attributes) if self._attributes else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _synthesised(self) -> list[Speech]:
        """Return what the finished tts stages synthesised; a failed one synthesised nothing."""
        return [told for *_, status, told in self.runs.copy() if isinstance(told, Speech) and status != "error"]

    def _end_reason(self, given: str | None) -> str:
        found = text(given) if given is not None else ""
        return found or ("error" if self._failed else "interrupted" if self._interrupted else "completed")

    def __enter__(self) -> Self:
        if self._entered and self._client is not None:
            self._client.invalid("turn.reentered", "a turn is entered again while it is open: make a new one")
        self.start()
        self._entered += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._entered -= 1
        if self._entered:
            return
        status = "ok" if exc is None else status_of(exc)
        self._failed = status == "error"
        self._interrupted = self._interrupted or status == "cancelled"
        self.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

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
