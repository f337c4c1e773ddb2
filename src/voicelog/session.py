"""A session: one call. It opens a stream of events and is what turns, stages and other events belong to."""

from __future__ import annotations

import threading
from contextvars import Token
from itertools import count
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from opentelemetry.trace import SpanContext

from voicelog import tracing
from voicelog.clean import clean, shown, text
from voicelog.client import Client, state
from voicelog.clock import Anchor
from voicelog.context import restore, session_var
from voicelog.failure import describe, is_recorded, status_of
from voicelog.fields import fit
from voicelog.otel import Spans, spans_of
from voicelog.stream import Stream
from voicelog.turn import Turn

open_sessions: WeakSet[Session] = WeakSet()
"""The sessions that are recorded in this process; a forked child gives each a stream of its own."""


def those_open() -> list[Session]:
    """Return the sessions that are recorded in this process. Safe from any thread."""
    while True:
        try:
            return list(open_sessions)
        except RuntimeError:  # another thread has opened one meanwhile
            continue


class Session:
    """One call: `with voicelog.session("call-123") as session`, `async with`, or start() and end().

    Safe from any thread; never blocks; raises nothing into the caller.
    """

    __slots__ = ("__dict__", "__weakref__", "current_turn", "inherited_turn_id", "spans", "stream", "traced")
    # slots for what each stage reads: voicelog._hot reads them in place

    def __init__(
        self,
        id: str | None = None,
        user: str | None = None,
        *,
        variant: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.user = user
        self.variant = variant
        self.attributes = attributes
        self.stream: Stream | None = None
        self.current_turn: Turn | None = None
        self.inherited_turn_id: str | None = None
        self.inherited_span: SpanContext | None = None
        self.spans: Spans | None = None
        """Opens the call's OpenTelemetry spans; None while no tracer provider is set."""
        self.is_continued = False
        """Whether another process began the call, and handed it over."""
        self.inherited_reason: str | None = None
        """Why a sampled call was kept already in the process that it comes from."""
        self._client: Client | None = None
        self._open_turns: dict[Turn, None] = {}
        self._turns = count(1)
        self._entered = 0
        self.lock = threading.RLock()
        """Held while a session or turn is opened or closed; reentrant, since a finaliser may run within."""
        self._token: Token[Session | None] | None = None
        self._disconnect_reason: str | None = None
        self._renewed = False
        self.traced = False
        """Whether an OpenTelemetry span may be current in it; looked for when it or a turn begins."""
        self._start_ns = 0

    def start(self) -> Self:
        """Begin the session in this context: what runs in it, and in tasks started from it, belongs to the call.

        A session that is open stays as it is.
        """
        client = state.current
        try:
            if client is not None and self._client is None:
                self._open(client)
        except Exception as exc:
            if client is not None:
                client.fault("session.start", exc)
        if self._token is None:
            self._token = session_var.set(self)
        return self

    def _open(self, client: Client) -> None:
        self.id = _checked_id(client, self.id)
        who = {"user_id": _text(self.user), "variant": _text(self.variant)}
        base = {"session_id": self.id, **client.who, **{name: value for name, value in who.items() if value}}
        self.stream = self._sampled(client, Stream(client.ids.stream(), self.id, base, Anchor(client.clock)))
        self._client = client
        self._turns, self._disconnect_reason = count(1), None
        self._start_ns = self.stream.anchor.mono_ns
        open_sessions.add(self)
        self.traced = tracing.is_on()
        self.spans = None
        self.go_on(client)
        attributes = fit((dict,), self.attributes)
        fields: dict[str, Any] = {"attributes": clean(attributes)} if attributes else {}
        if attributes is None and self.attributes is not None:
            client.invalid(
                "session.attributes", f"attributes={client.shown('attributes', self.attributes)}: expected a dict"
            )
        client.emit(self.stream, "session_started", self._start_ns, fields, tracing.stamp(fields))

    def go_on(self, client: Client) -> None:
        """Take note of the event loop and of a tracer provider, at the session's start and at each turn's."""
        if client.background is not None:
            client.background.wake()
        if self.spans is None and self.stream is not None:
            self.spans = spans_of(client, self.stream, self.inherited_span)

    def _sampled(self, client: Client, stream: Stream, kept: str | None = None) -> Stream:
        """Give a new stream its hold where calls are sampled; `kept` is why another stream of the call is kept."""
        if client.sampler is not None:
            stream.hold = client.sampler.hold(self.id or "", kept or self.inherited_reason)
        return stream

    def renew_stream(self, client: Client) -> None:
        """Go on in a forked process, with a client and a stream of its own: the other one's counts are the parent's."""
        if self.stream is not None and self._client is not None:
            kept = self.stream.hold.reason if self.stream.hold is not None else None
            self.stream = self._sampled(client, self.stream.successor(client.ids.stream()), kept)
            self._client = client
            self._renewed = True
            self.spans = None
            self.go_on(client)
            self.lock = threading.RLock()  # another thread of the parent may have held the old one

    def start_turn(self, id: str | None = None) -> Turn:
        """Open a turn where no block fits; turn.end() closes it, and the session's end closes what is open."""
        return Turn(self, id).start()

    def turn_opened(self, turn: Turn) -> None:
        """Make an opened turn the current one."""
        self.traced = self.traced or tracing.is_on()
        with self.lock:
            self._open_turns[turn] = None
            self.current_turn = turn

    def turn_closed(self, turn: Turn) -> None:
        """Let go of a turn; the one that was opened last among the others is current."""
        with self.lock:
            self._open_turns.pop(turn, None)
            self.current_turn = next(reversed(self._open_turns), None)

    def count_turn(self) -> int:
        """Return the next turn's number, from 1."""
        return next(self._turns)

    @property
    def turn_id(self) -> str | None:
        """The open turn's id, or the one that came with extract()."""
        turn = self.current_turn  # read once: another thread may end it meanwhile
        return turn.id if turn is not None else self.inherited_turn_id

    def disconnected(self, reason: str) -> None:
        """Say why the call ends: user_hangup, agent_hangup, error, timeout, unknown, or a word of one's own."""
        self._disconnect_reason = reason

    def end(self, exc: BaseException | None = None) -> None:
        """End the session, with the exception that ended it if one did; a second call does nothing."""
        with self.lock:
            client, self._client = self._client, None
            token, self._token = self._token, None
        if token is not None:
            restore(session_var, token, self)
        if client is None:
            return
        open_sessions.discard(self)
        try:
            self._close(client.live(), exc)
        except Exception as fault:
            client.fault("session.end", fault)

    def end_at_exit(self) -> None:
        """End what the program's exit leaves open; in a forked process only a stream that it used, not the call."""
        if not self._renewed:
            self.end()
            return
        client, self._client = self._client, None
        if client is not None and self.stream is not None and self.stream.is_used():
            client.live().emit_last(self.stream, "session_ended", client.clock.now_ns(), {"status": "ok"})

    def _close(self, client: Client, exc: BaseException | None) -> None:
        stream = self.stream
        if stream is None:
            return
        for turn in reversed(self._open_turns.copy()):
            turn.end(end_reason="session_closed")
        status = "ok" if exc is None else status_of(exc)
        if exc is not None and status == "error" and not is_recorded(exc, stream.stream_id):
            error: dict[str, Any] = {"error": describe(exc), "status": "error"}
            client.emit(stream, "error", client.clock.now_ns(), error, tracing.stamp(error))
        fields = {
            "status": status,
            "duration_ms": (client.clock.now_ns() - self._start_ns) / 1e6,
            "disconnect_reason": _text(self._disconnect_reason) or ("error" if status == "error" else None),
        }
        present = {name: value for name, value in fields.items() if value is not None}
        client.emit_last(stream, "session_ended", client.clock.now_ns(), present)

    def __enter__(self) -> Self:
        if self._entered and state.current is not None:
            state.current.invalid("session.reentered", "a session is entered again while it is open: make a new one")
        self.start()
        self._entered += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._entered -= 1
        if not self._entered:
            self.end(exc)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def __bool__(self) -> bool:
        """Return whether the session is open and recorded."""
        return self._client is not None


def session(
    id: str | None = None,
    user: str | None = None,
    *,
    variant: str | None = None,
    attributes: dict[str, Any] | None = None,
) -> Session:
    """Return a session to enter: `with voicelog.session("call-123", variant="b"):`.

    `id` names the call (a UUID when none is given), `user` the person, `variant` the A/B variant; `attributes` are
    kept with the session's start. Entering it again, or in another process, is another stream of the same call.
    """
    return Session(id, user, variant=variant, attributes=attributes)


def current_session() -> Session:
    """Return the session of this context; without one, a session that records nothing and is false."""
    return session_var.get() or Session()


def _text(value: Any) -> str | None:
    return None if value is None else text(value)


def _checked_id(client: Client, given: Any) -> str:
    if given is None:
        return client.ids.session()
    if not issubclass(type(given), str):
        sentence = f"session id {shown(given)} is of type {type(given).__name__}: expected a text; taken as one"
        client.invalid("session.id", sentence)
    return text(given) or client.ids.session()
