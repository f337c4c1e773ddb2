"""A stage: one timed part of the pipeline. Context manager, async context manager and decorator in one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from voicelog import tracing
from voicelog.client import Client, state
from voicelog.context import session_var, stage_var
from voicelog.decorate import decorate
from voicelog.errors import ConfigError
from voicelog.events import STAGE_TYPES, STATUSES
from voicelog.failure import describe, status_of
from voicelog.fields import SETTABLE, fit
from voicelog.session import Session
from voicelog.turn import Turn
from voicelog.wire import encode_value

F = TypeVar("F", bound=Callable[..., Any])

MARKS: dict[str, tuple[str | None, str | None, str | None]] = {
    "stt": (None, None, "stt_final"),
    "llm": ("llm_request", "llm_first_token", None),
    "tts": ("tts_request", "tts_first_byte", None),
}
"""The turn's marks that a stage sets at its start, its first item and its end."""

_KINDS = {name: cls.TYPE for name, cls in STAGE_TYPES.items()}
_NO_MARKS = (None, None, None)


class Stage:
    """One timed part: `with voicelog.stage("stt", provider="deepgram") as stt:`.

    Never blocks and raises nothing into the caller; an exception that leaves the block is recorded and goes on
    unchanged. One run at a time: the same object may be entered again after it was left.
    """

    __slots__ = (
        "_attributes", "_client", "_fields", "_first_ns", "_given_turn", "_items", "_kind", "_last_ns", "_longest_ns",
        "_parent", "_producer_ns", "_session", "_start_ns", "_status", "_token", "_turn", "_usage", "name", "span_id",
    )  # fmt: skip

    def __init__(self, name: str, turn: Turn | None = None, **fields: Any) -> None:
        self.name = name
        self.span_id: str | None = None
        self._kind = _KINDS.get(name, "stage")
        self._given_turn = turn
        self._client: Client | None = None
        self._fields: dict[str, Any] = {}
        self._attributes: dict[str, Any] | None = None
        self._usage: dict[str, float] | None = None
        self._token: Token[Stage | None] | None = None
        self._reset()
        if fields:
            self.set(**fields)

    def _reset(self) -> None:
        self._status: str | None = None
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._items: int | None = None
        self._producer_ns = 0
        self._longest_ns = 0

    def set(self, **fields: Any) -> None:
        """Set fields of the event: those its type knows are typed fields, any other name becomes an attribute.

        A known field with a value of the wrong type is left out and counted.
        """
        accepted = SETTABLE[self._kind]
        for name, value in fields.items():
            kinds = accepted.get(name)
            if kinds is None:
                self._set_other(name, value)
            elif type(value) in kinds and kinds[0] is not int:
                self._fields[name] = value
            else:
                self._set_unfit(name, kinds, value)

    def _set_other(self, name: str, value: Any) -> None:
        if name == "usage" and isinstance(value, dict):
            self.usage(**{str(k): v for k, v in value.items()})
            return
        if self._attributes is None:
            self._attributes = {}
        self._attributes[name] = value

    def _set_unfit(self, name: str, kinds: tuple[type, ...], value: Any) -> None:
        if value is None:
            self._fields.pop(name, None)
            return
        if name == "prompt" and isinstance(value, (list, dict, tuple)):
            value = _as_json(value)
        found = fit(kinds, value)
        if found is None:
            self._invalid(f"stage.{name}", f"stage {self.name!r}: {name}={value!r:.200}: expected {kinds[0].__name__}")
        else:
            self._fields[name] = found

    def usage(self, **counts: float) -> None:
        """Set what was used: input_tokens, output_tokens, characters_count, audio_seconds, ...; the last value wins."""
        usage = self._usage = self._usage or {}
        for name, value in counts.items():
            number = fit((float,), value)
            if number is not None and number >= 0:
                usage[name] = int(number) if number.is_integer() else number
            elif value is not None:
                self._invalid(
                    f"usage.{name}", f"stage {self.name!r}: usage({name}={value!r:.200}): expected a number from 0 on"
                )

    def mark_first(self) -> None:
        """Say that the first item (token, audio chunk) is here: sets first_item_ms. Later calls do nothing."""
        client = self._client
        if client is not None and self._first_ns is None:
            self._first(client.clock.now_ns())

    def _first(self, at_ns: int) -> None:
        self._first_ns = at_ns
        mark = MARKS.get(self.name, _NO_MARKS)[1]
        if self._turn is not None and mark is not None:
            self._turn.stage_mark(mark, at_ns)

    def fail(self, exc: BaseException) -> None:
        """Record the stage as failed by `exc`, although no exception leaves it."""
        self._status = "error"
        self._fields["error"] = describe(exc)

    def interrupt(self) -> None:
        """Record the stage as interrupted: cut short by the user or the program, which is no error."""
        self._status = "interrupted"

    def took_item(self, began_ns: int, now_ns: int) -> None:
        """Count an item of a stream that was waited for from `began_ns` to `now_ns`."""
        waited = now_ns - began_ns
        self._producer_ns += waited
        self._last_ns = now_ns
        if self._items is None:
            self._items = 0
        self._items += 1
        if self._items > 1 and waited > self._longest_ns:
            self._longest_ns = waited
        if self._first_ns is None:
            self._first(now_ns)

    def begin(self, start_ns: int | None = None) -> None:
        """Start the clock, now or at `start_ns`, without becoming the current stage.

        A decorated generator becomes it step by step.
        """
        client = state.current
        if client is None:
            return
        turn = self._given_turn
        session = turn.session if turn is not None else session_var.get()
        if session is None or session.stream is None:
            client.no_session(f"stage {self.name!r}")
            return
        if self._client is not None:
            client.invalid("stage.reentered", f"stage {self.name!r} is entered again while it is open: make a new one")
            return
        self._open(client, session, turn, client.clock.now_ns() if start_ns is None else start_ns)

    def _open(self, client: Client, session: Session, turn: Turn | None, start_ns: int) -> None:
        if self.span_id is not None:
            self._reset()
        self._client, self._session = client, session
        self._turn = turn if turn is not None else session.current_turn
        self._parent = stage_var.get()
        stream = session.stream
        self.span_id = stream.next_span() if stream is not None else None
        self._start_ns = start_ns
        mark = MARKS.get(self.name, _NO_MARKS)[0]
        if mark is not None and self._turn is not None:
            self._turn.stage_mark(mark, start_ns)
        if client.watcher is not None:
            client.watcher.opened(self)

    def finish(self, exc: BaseException | None = None, *, at_last_item: bool = False) -> None:
        """Stop the clock and emit the event; `exc` is what ended it. A second call does nothing."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            self._finish(client, exc, at_last_item)
        except Exception as fault:
            client.fault("stage.finish", fault)

    def _finish(self, client: Client, exc: BaseException | None, at_last_item: bool) -> None:
        end_ns = self._last_ns if at_last_item and self._last_ns is not None else client.clock.now_ns()
        if client.watcher is not None:
            client.watcher.closed(self)
        if exc is not None:
            self._take(exc)
        session, stream = self._session, self._session.stream
        if stream is None:
            return
        status = self._status or "ok"
        fields = self._timings(end_ns, status)
        turn_id = self._turn.id if self._turn is not None else session.inherited_turn_id
        if turn_id is not None:
            fields["turn_id"] = turn_id
        if self._turn is not None:
            self._tell_turn(self._turn, end_ns, status)
        context = tracing.current()
        if context is not None:
            fields["trace_id"] = f"{context.trace_id:032x}"
            fields.setdefault("parent_id", f"{context.span_id:016x}")
        for name in client.left_out:
            fields.pop(name, None)
        headers = tracing.traceparent(context) if context is not None else None
        client.emit(stream, self._kind, self._start_ns, fields, headers)

    def _take(self, exc: BaseException) -> None:
        status = status_of(exc)
        if status == "error":
            self._fields["error"] = describe(exc)
            self._session.last_error = id(exc)
        self._status = self._status or status

    def _timings(self, end_ns: int, status: str) -> dict[str, Any]:
        start_ns = self._start_ns
        fields = {
            "stage": self.name,
            "span_id": self.span_id,
            "duration_ms": (end_ns - start_ns) / 1e6,
            "status": status,
            **self._fields,
        }
        if self._first_ns is not None:
            fields["first_item_ms"] = (self._first_ns - start_ns) / 1e6
        if self._items is not None:
            fields["items"] = self._items
            fields["producer_ms"] = self._producer_ns / 1e6
            if self._items > 1:
                fields["longest_gap_ms"] = self._longest_ns / 1e6
        if self._parent is not None:
            fields["parent_id"] = self._parent.span_id
        if self._usage:
            fields["usage"] = self._usage
        if self._attributes:
            fields["attributes"] = self._attributes
        return fields

    def _tell_turn(self, turn: Turn, end_ns: int, status: str) -> None:
        turn.stage_ran(self.name, self._start_ns, end_ns)
        mark = MARKS.get(self.name, _NO_MARKS)[2]
        if mark is not None and status == "ok" and self._fields.get("is_final") is not False:
            turn.stage_mark(mark, end_ns)

    def publish(
        self, start_ns: int, end_ns: int, first_ms: float | None, status: str | None, error: BaseException | None
    ) -> None:
        """Emit the stage with times measured elsewhere, monotonic nanoseconds."""
        self.begin(start_ns)
        self._last_ns = end_ns
        if first_ms is not None and self._client is not None:
            self._first(start_ns + int(first_ms * 1e6))
        if error is not None:
            self.fail(error)
        self._status = status if status in STATUSES else self._status
        self.finish(at_last_item=True)

    def started_fields(self) -> dict[str, Any]:
        """Return the fields of a stage_started event for this open stage."""
        fields = {"stage": self.name, "span_id": self.span_id}
        fields |= {name: self._fields[name] for name in ("provider", "model") if name in self._fields}
        if self._turn is not None and self._turn.id is not None:
            fields["turn_id"] = self._turn.id
        return fields

    @property
    def place(self) -> tuple[Session, int]:
        """The session of an open stage, and when the stage started, monotonic nanoseconds."""
        return self._session, self._start_ns

    def _invalid(self, what: str, sentence: str) -> None:
        client = self._client or state.current
        if client is not None:
            client.invalid(what, sentence)

    def __enter__(self) -> Self:
        try:
            self.begin()
        except Exception as exc:
            _fault("stage.begin", exc)
        self._token = stage_var.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        token, self._token = self._token, None
        if token is not None:
            with suppress(ValueError):  # left in another context than it was entered in: there it is not current
                stage_var.reset(token)
        self.finish(exc)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function."""
        name, turn, fields = self.name, self._given_turn, {**self._fields, **(self._attributes or {})}
        return decorate(function, lambda: Stage(name, turn, **fields))

    def __bool__(self) -> bool:
        """Return whether the stage is open and recorded."""
        return self._client is not None


@overload
def stage(name: F, /) -> F: ...
@overload
def stage(
    name: str | None = None,
    /,
    *,
    provider: str | None = None,
    model: str | None = None,
    turn: Turn | None = None,
    **fields: Any,
) -> Stage: ...
def stage(
    name: Any = None,
    /,
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
    if callable(name):
        return _Named(turn, given | fields)(name)
    if name is None:
        return _Named(turn, given | fields)
    return Stage(name if isinstance(name, str) else str(name), turn, **given, **fields)


class _Named:
    """A decorator that takes its stage's name from the function."""

    def __init__(self, turn: Turn | None, fields: dict[str, Any]) -> None:
        self._turn, self._fields = turn, fields

    def __call__(self, function: F) -> F:
        name = getattr(function, "__name__", None)
        if not name:
            message = f"@voicelog.stage on {function!r}: it has no name; give one: @voicelog.stage('name')"
            raise ConfigError(message)
        return Stage(name, self._turn, **self._fields)(function)


def current_stage() -> Stage:
    """Return the stage that is open in this context; without one, a stage that records nothing and is false."""
    return stage_var.get() or Stage("none")


def _as_json(value: Any) -> str:
    from voicelog.clean import clean

    return encode_value(clean(value)).decode()


def _fault(where: str, exc: Exception) -> None:
    if state.current is not None:
        state.current.fault(where, exc)
