"""A stage: one timed part of the pipeline. Context manager, async context manager and decorator in one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from voicelog import tracing
from voicelog.attempts import Attempt, Attempts, attempt_of
from voicelog.clean import shown
from voicelog.client import Client, state
from voicelog.context import leave_elsewhere, session_var, stage_var
from voicelog.decorate import decorate
from voicelog.errors import ConfigError
from voicelog.failure import describe, recorded, status_of
from voicelog.given import UNNAMED, YIELDED, Given
from voicelog.hot import accelerated
from voicelog.items import Items
from voicelog.more import More
from voicelog.otel import Span, Spans
from voicelog.plan import OTHER, PLANS
from voicelog.session import Session
from voicelog.turn import MAX_STAGES, Turn
from voicelog.wire import Headers

F = TypeVar("F", bound=Callable[..., Any])


class Stage(Given):
    """One timed part: `with voicelog.stage("stt", provider="deepgram") as stt:`.

    Never blocks and raises nothing into the caller; an exception that leaves the block is recorded and goes on
    unchanged. One run at a time: the same object may be entered again after it was left, and then has what it was
    given, but not what the run before has yielded: usage, cost, transcript, response and the like.
    """

    __slots__ = (
        "_first_ns", "_more", "_session", "_start_ns", "_status", "_token", "_turn", "span_id",
    )  # fmt: skip

    _first_ns: int | None
    _more: More | None
    _session: Session | None
    _start_ns: int
    _status: str | None
    _token: Token[Stage | None] | None
    _turn: Turn | None
    span_id: str | None

    def __init__(self, name: Any, fields: dict[str, Any], turn: Turn | None = None, fits: bool = False) -> None:
        """Take `fields` over; `fits` says that they are texts of fields that the stage knows."""
        plan = PLANS.get(name) if type(name) is str else None
        if plan is None:
            plan, name = OTHER, self._named(name)
        self.name = name
        self._plan = plan
        self._client = self._session = self._turn = self._token = self._status = self._first_ns = self._more = None
        self.span_id = None
        if fits:
            self._fields = fields
        else:
            self._fields = {}
            self.set(**fields)
        if turn is not None:
            self._extra().turn = turn

    def _extra(self) -> More:
        if self._more is None:
            self._more = More()
        return self._more

    def mark_first(self) -> None:
        """Say that the first item (token, audio chunk) is here: sets first_item_ms. Later calls do nothing."""
        client = self._client
        if client is not None:
            self.first_item(client.now_ns())

    def first_item(self, at_ns: int) -> None:
        """Take the moment of the first item, monotonic nanoseconds; later calls do nothing."""
        if self._first_ns is not None:
            return
        self._first_ns = at_ns
        mark = self._plan.first_mark
        if self._turn is not None and mark is not None:
            self._turn.stage_mark(mark, at_ns)

    def fail(self, exc: BaseException) -> None:
        """Record the stage as failed by `exc`, although no exception leaves it."""
        self._status = "error"
        self._fields["error"] = describe(exc)
        if self._session is not None and self._session.stream is not None:
            recorded(exc, self._session.stream.stream_id)

    def interrupt(self) -> None:
        """Record the stage as interrupted: cut short by the user or the program, which is no error."""
        self._status = "interrupted"

    def attempt(self, *, provider: str | None = None, model: str | None = None) -> Attempt:
        """Time one try at a provider, a retry or a failover: `with llm.attempt(provider="openai", model="gpt-4o"):`.

        What is not given is the stage's. The stage's event names who answered: the last attempt that was ok.
        """
        return attempt_of(self, self._client, provider, model)

    def attempts(self, client: Client) -> Attempts:
        """Return the attempts of this run of the stage; made with the first."""
        more = self._extra()
        if more.attempts is None:
            more.attempts = Attempts(client, self._start_ns)
        return more.attempts

    def begin(self, *, streaming: bool = False) -> None:
        """Start the clock without becoming the current stage, as a decorated generator does, step by step."""
        client = state.current
        if client is None:
            return
        try:
            self._begin(client, None)
        except Exception as exc:
            client.fault("stage.begin", exc)
        if streaming and self._client is not None:
            self._extra().items = Items()

    @property
    def items(self) -> Items | None:
        """What a streaming stage counts; None when it is not recorded."""
        return self._more.items if self._more is not None else None

    def _begin(self, client: Client, start_ns: int | None) -> None:
        if self._client is not None:
            self._reentered()
            return
        session = session_var.get()
        turn = session.current_turn if session is not None else None
        if self._more is not None and self._more.turn is not None:
            session, turn = self._given_place(self._more.turn, session, turn)
        stream = session.stream if session is not None else None
        if session is None or stream is None:
            client.no_session(f"stage {self.name!r}")
            return
        if self.span_id is not None:
            self._reset()
        if not self.name:
            self.name = UNNAMED
            self._invalid("stage.name", "it has no name; give one: voicelog.stage('name')")
        parent = stage_var.get()
        if parent is not None and parent._session is session:
            self._fields["parent_id"] = parent.span_id
        self.span_id = f"{stream.span_prefix}{stream.next_span()}"
        self._session, self._turn = session, turn
        self._client = client
        self._start_ns = at_ns = client.now_ns() if start_ns is None else start_ns
        if session.spans is not None:
            self._open_span(session.spans, at_ns)
        if client.watcher is not None and start_ns is None:
            client.watcher.open[self] = None
        mark = self._plan.start_mark
        if mark is not None and turn is not None and not (self._more is not None and self._more.untimed):
            turn.stage_mark(mark, at_ns)

    def _open_span(self, spans: Spans, at_ns: int) -> None:
        above = self._turn.span if self._turn is not None else None
        span = self._extra().span = spans.stage(self.name, at_ns, self._fields, above)
        if span is not None:
            self.span_id = span.span_id

    @property
    def span(self) -> Span | None:
        """Its OpenTelemetry span; None without one."""
        return self._more.span if self._more is not None else None

    def _given_place(
        self, given: Any, session: Session | None, turn: Turn | None
    ) -> tuple[Session | None, Turn | None]:
        if not issubclass(type(given), Turn):
            self._invalid("stage.turn", f"turn={shown(given)}: expected a turn, as voicelog.turn() gives it")
        elif given.session is not None:
            return given.session, given
        return session, turn

    def _reentered(self) -> None:
        self._invalid("stage.reentered", "it is entered again while it is open: make a new one with voicelog.stage()")

    def _reset(self) -> None:
        self._status = self._first_ns = None
        self._fields = {name: value for name, value in self._own().items() if name not in YIELDED}
        if self._more is not None:
            self._more.items = self._more.span = None
            if self._more.attempts is not None:
                self._more.attempts.restore(self._fields)
                self._more.attempts = None

    def finish(self, exc: BaseException | None = None, *, at_last_item: bool = False) -> None:
        """Stop the clock and emit the event; `exc` is what ended it. A second call does nothing."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            items = self.items
            at_ns = items.last_ns if at_last_item and items is not None else None
            self._finish(client, exc, client.now_ns() if at_ns is None else at_ns)
        except Exception as fault:
            client.fault("stage.finish", fault)

    def _finish(self, client: Client, exc: BaseException | None, end_ns: int) -> None:
        if client.watcher is not None:
            client.watcher.open.pop(self, None)
        session = self._session
        if session is None or session.stream is None:
            return
        if exc is not None:
            self._take(exc, session.stream.stream_id)
        start_ns, turn, fields = self._start_ns, self._turn, self._fields
        status = self._status or "ok"
        fields["stage"] = self.name
        fields["span_id"] = self.span_id
        fields["duration_ms"] = (end_ns - start_ns) / 1e6
        fields["status"] = status
        if self._first_ns is not None:
            fields["first_item_ms"] = (self._first_ns - start_ns) / 1e6
        if self._more is not None:
            self._more_fields(self._more, fields, end_ns)
        if client.prices is not None:
            client.prices.apply(fields)
        if turn is not None:
            fields["turn_id"] = turn.id
            if len(turn.runs) < MAX_STAGES:
                tell = self._plan.tell
                told = tell(fields) if tell is not None else None
                turn.runs.append((self.name, start_ns, self._first_ns, end_ns, status, told))
        elif session.inherited_turn_id is not None:
            fields["turn_id"] = session.inherited_turn_id
        if client.closed:
            client = client.live()
        if self._more is not None and self._more.span is not None:
            headers = self._end_span(self._more, fields, end_ns)
        else:
            headers = tracing.stamp(fields) if session.traced else None
        client.emit(session.stream, self._plan.kind, start_ns, fields, headers)

    def _end_span(self, more: More, fields: dict[str, Any], end_ns: int) -> Headers | None:
        span, more.span = more.span, None
        if span is None:
            return None
        headers = span.stamp(fields)
        span.end_stage(self.name, fields, end_ns)
        return headers

    def _more_fields(self, more: More, fields: dict[str, Any], end_ns: int) -> None:
        if more.items is not None:
            fields.update(more.items.fields())
        if more.attempts is not None:
            more.attempts.into(fields, end_ns)
        if more.untimed:
            del fields["duration_ms"]

    def _take(self, exc: BaseException, stream_id: str) -> None:
        status = status_of(exc)
        if status == "error":
            self._fields["error"] = describe(exc)
            recorded(exc, stream_id)
        self._status = self._status or status

    def started_fields(self) -> dict[str, Any]:
        """Return the fields of a stage_started event for this open stage."""
        mine = self._fields.copy()  # another thread may end the stage meanwhile
        fields = {"stage": self.name, "span_id": self.span_id}
        fields |= {name: mine[name] for name in ("provider", "model") if name in mine}
        if self._turn is not None and self._turn.id is not None:
            fields["turn_id"] = self._turn.id
        return fields

    @property
    def place(self) -> tuple[Session | None, int]:
        """The session of an open stage, and when the stage started, monotonic nanoseconds."""
        return self._session, self._start_ns

    def __enter__(self) -> Self:
        client = state.current
        if self._token is not None:
            self._reentered()
            self._extra().entered_again += 1
            return self
        if client is not None:
            try:
                self._begin(client, None)
            except Exception as exc:
                client.fault("stage.begin", exc)
            self._token = stage_var.set(self)
            if self._more is not None and self._more.span is not None:
                self._more.span.enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        token = self._token
        if token is None:
            return
        client = self._client
        end_ns = client.now_ns() if client is not None else 0
        if self._more is not None and self._more.entered_again:
            self._more.entered_again -= 1
            return
        self._token = None
        try:
            stage_var.reset(token)
        except ValueError:
            leave_elsewhere(stage_var, token, self)
        if self._more is not None and self._more.span is not None:
            self._more.span.leave()
        if client is None:
            return
        self._client = None
        try:
            self._finish(client, exc, end_ns)
        except Exception as fault:
            client.fault("stage.finish", fault)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function."""
        name = self.name or getattr(function, "__name__", "")
        if not name:
            message = f"@voicelog.stage on {function!r}: it has no name; give one: @voicelog.stage('name')"
            raise ConfigError(message)
        turn, given = self._more.turn if self._more is not None else None, self._given()
        known = PLANS.get(name, OTHER).known
        fits = all(known.get(field) is str and type(value) is str for field, value in given.items())
        return decorate(function, lambda: HotStage(name, given.copy(), turn, fits))

    def __bool__(self) -> bool:
        """Return whether the stage is open and recorded."""
        return self._client is not None


HotStage = accelerated(Stage)
"""The class of the stages that are made here: Stage itself, or its subclass in C."""


@overload
def stage(name: F, /) -> F: ...
@overload
def stage(
    name: str | None = None,
    *,
    provider: str | None = None,
    model: str | None = None,
    turn: Turn | None = None,
    **fields: Any,
) -> Stage: ...
def stage(
    name: Any = None,
    *,
    provider: str | None = None,
    model: str | None = None,
    turn: Turn | None = None,
    **fields: Any,
) -> Any:
    """Time a part of the pipeline, as a context manager or a decorator.

    `with stage("stt"):`, `async with stage("stt"):`, `@stage("llm", model="gpt-4o-mini")`, `@stage`.

    `stt`, `llm` and `tts` have events of their own; any other name is a `stage` event. A decorator without a name
    takes the function's. `turn` is for code that runs outside of the turn's context. Further fields are as in
    `Stage.set`. Never blocks; only decorating something that can't be timed raises ConfigError.
    """
    fits = not fields
    if provider is not None:
        fields["provider"] = provider
        fits = fits and type(provider) is str
    if model is not None:
        fields["model"] = model
        fits = fits and type(model) is str
    if type(name) is str:
        return HotStage(name, fields, turn, fits)
    if callable(name) and not issubclass(type(name), str):
        return HotStage("", fields, turn)(name)
    return HotStage("" if name is None else name, fields, turn)


def current_stage() -> Stage:
    """Return the stage that is open in this context; without one, a stage that records nothing and is false."""
    return stage_var.get() or HotStage("none", {})
