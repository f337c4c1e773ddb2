"""A stage: one timed part of the pipeline. Context manager, async context manager and decorator in one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from voicelog import tracing
from voicelog.clean import shown
from voicelog.client import Client, state
from voicelog.context import restore, session_var, stage_var
from voicelog.decorate import decorate
from voicelog.errors import ConfigError
from voicelog.events import STATUSES
from voicelog.failure import describe, recorded, status_of
from voicelog.given import UNNAMED, Given
from voicelog.items import Items
from voicelog.latency import NO_MARKS, STAGE_MARKS
from voicelog.session import Session
from voicelog.turn import Turn

F = TypeVar("F", bound=Callable[..., Any])


class Stage(Given):
    """One timed part: `with voicelog.stage("stt", provider="deepgram") as stt:`.

    Never blocks and raises nothing into the caller; an exception that leaves the block is recorded and goes on
    unchanged. One run at a time: the same object may be entered again after it was left.
    """

    __slots__ = (
        "_entered_again", "_first_ns", "_given_turn", "_items", "_parent_id", "_session", "_start_ns", "_status",
        "_token", "_turn", "_untimed", "span_id",
    )  # fmt: skip

    def __init__(self, name: str, turn: Turn | None = None, /, **fields: Any) -> None:
        Given.__init__(self, name)
        self.span_id: str | None = None
        self._given_turn = turn
        self._turn: Turn | None = None
        self._session: Session | None = None
        self._parent_id: str | None = None
        self._token: Token[Stage | None] | None = None
        self._entered_again = 0
        self._start_ns = 0
        self._status: str | None = None
        self._first_ns: int | None = None
        self._items: Items | None = None
        self._untimed = False
        if fields:
            self.set(**fields)

    def mark_first(self) -> None:
        """Say that the first item (token, audio chunk) is here: sets first_item_ms. Later calls do nothing."""
        client = self._client
        if client is not None and self._first_ns is None:
            self._first(client.clock.now_ns())

    def _first(self, at_ns: int) -> None:
        self._first_ns = at_ns
        mark = STAGE_MARKS.get(self.name, NO_MARKS)[1]
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

    def took_item(self, began_ns: int, now_ns: int) -> None:
        """Count an item of a stream that was waited for from `began_ns` to `now_ns`."""
        if self._items is not None:
            self._items.took(began_ns, now_ns)
            if self._first_ns is None:
                self._first(now_ns)

    def waited(self, began_ns: int, now_ns: int) -> None:
        """Add a wait for a stream that gave no item."""
        if self._items is not None:
            self._items.waited(began_ns, now_ns)

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
            self._items = Items()

    def _begin(self, client: Client, start_ns: int | None) -> None:
        if self._client is not None:
            self._reentered()
            return
        turn = self._given_turn
        if turn is not None and not isinstance(turn, Turn):
            self._invalid("stage.turn", f"turn={shown(turn)}: expected a turn, as voicelog.turn() gives it")
            turn = None
        session = turn.session if turn is not None else None
        if session is None:
            session, turn = session_var.get(), None
        if session is None or session.stream is None:
            client.no_session(f"stage {self.name!r}")
            return
        self._turn = turn if turn is not None else session.current_turn
        self._open(client, session, client.clock.now_ns() if start_ns is None else start_ns)
        if client.watcher is not None and start_ns is None:
            client.watcher.opened(self)

    def _reentered(self) -> None:
        self._invalid("stage.reentered", "it is entered again while it is open: make a new one with voicelog.stage()")

    def _open(self, client: Client, session: Session, start_ns: int) -> None:
        if self.span_id is not None:
            self._reset()
        if not self.name:
            self.name = UNNAMED
            self._invalid("stage.name", "it has no name; give one: voicelog.stage('name')")
        stream = session.stream
        parent = stage_var.get()
        self._parent_id = parent.span_id if parent is not None and parent._session is session else None
        self.span_id = stream.next_span() if stream is not None else None
        self._session, self._start_ns = session, start_ns
        self._client = client
        mark = STAGE_MARKS.get(self.name, NO_MARKS)[0]
        if mark is not None and self._turn is not None and not self._untimed:
            self._turn.stage_mark(mark, start_ns)

    def _reset(self) -> None:
        self._status = self._first_ns = self._items = None
        self._fields.pop("error", None)

    def finish(self, exc: BaseException | None = None, *, at_last_item: bool = False) -> None:
        """Stop the clock and emit the event; `exc` is what ended it. A second call does nothing."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            items = self._items
            at_ns = items.last_ns if at_last_item and items is not None else None
            self._finish(client, exc, client.clock.now_ns() if at_ns is None else at_ns)
        except Exception as fault:
            client.fault("stage.finish", fault)

    def _finish(self, client: Client, exc: BaseException | None, end_ns: int) -> None:
        if client.watcher is not None:
            client.watcher.closed(self)
        session = self._session
        if session is None or session.stream is None:
            return
        if exc is not None:
            self._take(exc, session.stream.stream_id)
        status = self._status or "ok"
        fields = self._event(session, end_ns, status)
        if self._turn is not None:
            self._tell_turn(self._turn, end_ns, status)
        if client.closed:
            client = client.live()
        headers = tracing.stamp(fields)
        for name in client.left_out:
            fields.pop(name, None)
        client.emit(session.stream, self._kind, self._start_ns, fields, headers)

    def _take(self, exc: BaseException, stream_id: str) -> None:
        status = status_of(exc)
        if status == "error":
            self._fields["error"] = describe(exc)
            recorded(exc, stream_id)
        self._status = self._status or status

    def _event(self, session: Session, end_ns: int, status: str) -> dict[str, Any]:
        start_ns, turn = self._start_ns, self._turn
        fields = {
            "stage": self.name,
            "span_id": self.span_id,
            "duration_ms": (end_ns - start_ns) / 1e6,
            "status": status,
            **self._fields,
        }
        if self._untimed:
            del fields["duration_ms"]
        if self._first_ns is not None:
            fields["first_item_ms"] = (self._first_ns - start_ns) / 1e6
        if self._items is not None:
            fields |= self._items.fields()
        if self._parent_id is not None:
            fields["parent_id"] = self._parent_id
        if self._usage:
            fields["usage"] = self._usage
        if self._attributes:
            fields["attributes"] = self._attributes
        turn_id = turn.id if turn is not None else session.inherited_turn_id
        if turn_id is not None:
            fields["turn_id"] = turn_id
        return fields

    def _tell_turn(self, turn: Turn, end_ns: int, status: str) -> None:
        turn.stage_ran(self.name, self._start_ns, end_ns)
        mark = STAGE_MARKS.get(self.name, NO_MARKS)[2]
        if mark is not None and status == "ok" and self._fields.get("is_final") is not False:
            turn.stage_mark(mark, end_ns)

    def publish(
        self,
        end_ns: int,
        duration_ms: float | None,
        first_ms: float | None,
        status: str | None,
        error: BaseException | None,
    ) -> None:
        """Emit the stage with times measured elsewhere; raises what goes wrong.

        `end_ns` is monotonic. Without a duration the start is not known: the event has none, and sets no mark of it.
        """
        client = state.current
        if client is None:
            return
        self._untimed = duration_ms is None
        start_ns = end_ns - int((duration_ms or 0) * 1e6)
        self._begin(client, start_ns)
        if self._client is None:
            return
        if first_ms is not None:
            self._publish_first(start_ns, duration_ms, first_ms)
        if error is not None:
            self.fail(error)
        if isinstance(status, str) and status in STATUSES:
            self._status = status
        elif status is not None:
            self._invalid("publish.status", f"status={shown(status)}: expected one of {', '.join(STATUSES)}")
        self._client = None
        self._finish(client, None, end_ns)

    def _publish_first(self, start_ns: int, duration_ms: float | None, first_ms: float) -> None:
        if duration_ms is None:
            self._first_ns = start_ns + int(first_ms * 1e6)
        elif first_ms > duration_ms:
            self._invalid(
                "publish.first_item_ms", f"first_item_ms={first_ms}: expected at most duration_ms={duration_ms}"
            )
        else:
            self._first(start_ns + int(first_ms * 1e6))

    def started_fields(self) -> dict[str, Any]:
        """Return the fields of a stage_started event for this open stage."""
        fields = {"stage": self.name, "span_id": self.span_id}
        fields |= {name: self._fields[name] for name in ("provider", "model") if name in self._fields}
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
            self._entered_again += 1
            return self
        if client is not None:
            try:
                self._begin(client, None)
            except Exception as exc:
                client.fault("stage.begin", exc)
            self._token = stage_var.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._entered_again:
            self._entered_again -= 1
            return
        token, self._token = self._token, None
        if token is not None:
            restore(stage_var, token, self)
        self.finish(exc)

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
        turn, fields = self._given_turn, self._given()
        return decorate(function, lambda: Stage(name, turn, **fields))

    def __bool__(self) -> bool:
        """Return whether the stage is open and recorded."""
        return self._client is not None


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
    given = {key: value for key, value in (("provider", provider), ("model", model)) if value is not None}
    if callable(name) and not isinstance(name, str):
        return Stage("", turn, **given, **fields)(name)
    return Stage("" if name is None else name, turn, **given, **fields)


def current_stage() -> Stage:
    """Return the stage that is open in this context; without one, a stage that records nothing and is false."""
    return stage_var.get() or Stage("none")
