"""Attempts: the tries at providers within one stage, retries and failovers, and which of them answered."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from voicelog.clean import shown, text
from voicelog.client import Client
from voicelog.events import STATUSES
from voicelog.failure import describe, status_of
from voicelog.fields import fit

if TYPE_CHECKING:
    from voicelog.stage import Stage

MAX_ATTEMPTS = 50
"""The first ones of a stage and its last are kept; what is between is counted as invalid."""
MAX_STACK_CHARS = 4_000
MAX_MESSAGE_CHARS = 1_000

Row = dict[str, Any]


class Attempts:
    """The attempts of one run of a stage. Safe from any thread."""

    def __init__(self, client: Client, start_ns: int) -> None:
        self.client = client
        self.now_ns = client.now_ns
        self.start_ns = start_ns
        self._rows: list[Row] = []
        self._answered: Row | None = None
        self._own: Row = {}

    def begin(self, given: Mapping[str, Any]) -> Row:
        """Add an attempt that starts now."""
        row = {**given, "start_ms": (self.now_ns() - self.start_ns) / 1e6}
        if len(self._rows) < MAX_ATTEMPTS:
            self._rows.append(row)
        else:
            self._rows[-1] = row
            self.client.invalid("stage.attempts", f"a stage keeps {MAX_ATTEMPTS} attempts, the first ones and the last")
        return row

    def end(self, row: Row, status: str, error: dict[str, Any] | None) -> None:
        """Complete an attempt."""
        row["duration_ms"] = (self.now_ns() - self.start_ns) / 1e6 - row["start_ms"]
        row["status"] = status
        if error is not None:
            row["error"] = error
        if status == "ok":
            self._answered = row

    def into(self, fields: dict[str, Any], end_ns: int) -> None:
        """Complete a stage's fields at its end: who answered, and the attempts if that was not the only one.

        Who answered is the last attempt that was ok, or else the last one. An attempt that is still open was given up.
        """
        rows = [self._complete(row, end_ns) for row in list(self._rows)]
        self._own = {name: fields.get(name) for name in ("provider", "model")}
        put_attempts(fields, rows, self._answered)

    def restore(self, fields: dict[str, Any]) -> None:
        """Give a stage that is entered again its own provider and model back."""
        for name, value in self._own.items():
            fields.pop(name, None)
            if value is not None:
                fields[name] = value

    def _complete(self, row: Row, end_ns: int) -> Row:
        if "status" in row:
            return row
        return {**row, "duration_ms": (end_ns - self.start_ns) / 1e6 - row["start_ms"], "status": "interrupted"}


def put_attempts(fields: dict[str, Any], rows: list[Row], answered: Row | None = None) -> None:
    """Set provider and model of who answered, and the attempts where there were several or the only one failed.

    A model that the attempt does not name is not the stage's either.
    """
    if not rows:
        return
    found = answered or next((row for row in reversed(rows) if row["status"] == "ok"), rows[-1])
    if "provider" in found or "model" in found:
        for name in ("provider", "model"):
            fields.pop(name, None)
        fields.update({name: found[name] for name in ("provider", "model") if name in found})
    if len(rows) > 1 or rows[0]["status"] != "ok":
        fields["attempts"] = rows


class Attempt:
    """One try at a provider: `with llm.attempt(provider="openai", model="gpt-4o"):`, also `async with`.

    An exception that leaves it is recorded with it and goes on unchanged, for your own retry or failover. Never
    blocks and raises nothing into the caller. One that belongs to no open stage records nothing and is false.
    """

    __slots__ = ("_attempts", "_error", "_given", "_row")

    def __init__(self, attempts: Attempts | None, given: Mapping[str, Any]) -> None:
        self._attempts = attempts
        self._given = given
        self._row: Row | None = None
        self._error: dict[str, Any] | None = None

    def fail(self, exc: BaseException) -> None:
        """Record the attempt as failed by `exc`, although no exception leaves it."""
        if self._row is not None:
            self._error = _described(exc)

    def __enter__(self) -> Self:
        attempts = self._attempts
        if attempts is not None:
            try:
                self._error, self._row = None, attempts.begin(self._given)
            except Exception as exc:
                attempts.client.fault("attempt.begin", exc)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        attempts, row, self._row = self._attempts, self._row, None
        if attempts is None or row is None:
            return
        try:
            status, error = "ok" if self._error is None else "error", self._error
            if exc is not None:
                found = status_of(exc)
                status, error = status if error is not None else found, _described(exc) if found == "error" else error
            attempts.end(row, status, error)
        except Exception as fault:
            attempts.client.fault("attempt.end", fault)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def __bool__(self) -> bool:
        """Return whether the attempt is open and recorded."""
        return self._row is not None


NO_ATTEMPT = Attempt(None, {})
"""What a stage that is not recorded gives."""


def attempt_of(stage: Stage, client: Client | None, provider: Any, model: Any) -> Attempt:
    """Return an attempt of a stage that is open with `client`, or one that records nothing."""
    if client is None:
        return NO_ATTEMPT
    session, _ = stage.place
    if session is None:
        return NO_ATTEMPT
    with session.lock:  # two threads may make the first attempt at once; a fork gives the child a lock of its own
        attempts = stage.attempts(client)
    given = {"provider": _name(client, "provider", provider), "model": _name(client, "model", model)}
    named = {name: value for name, value in given.items() if value}
    return Attempt(attempts, {**_inherited(named, stage.started_fields()), **named})


def _inherited(named: Mapping[str, Any], stage: Mapping[str, Any]) -> Row:
    """Return the stage's provider and model; a model belongs to its provider."""
    own = {name: stage[name] for name in ("provider", "model") if name in stage}
    if named.get("provider", own.get("provider")) != own.get("provider"):
        own.pop("model", None)
    return own


def _name(client: Client, name: str, value: Any) -> str | None:
    found = fit((str,), value)
    if found is None and value is not None:
        client.invalid(f"attempt.{name}", f"attempt({name}={shown(value)}): expected a text")
    return text(found) if found is not None else None


def _described(exc: BaseException) -> dict[str, Any]:
    error = describe(exc)
    stack = error["stack"]
    if stack is not None and len(stack) > MAX_STACK_CHARS:
        error["stack"] = f"... {len(stack) - MAX_STACK_CHARS} characters cut ...\n{stack[-MAX_STACK_CHARS:]}"
    error["message"] = error["message"][:MAX_MESSAGE_CHARS]
    return error


def attempts_given(client: Client, value: Any) -> list[Row]:
    """Return the attempts that publish_*(attempts=[{...}, ...]) was given, without what does not fit, which is counted.

    Each may have provider, model, start_ms (default: the end of the one before, where that is known), duration_ms,
    status (default: error where it has an error, else ok) and error (an exception or a text).
    """
    if value is None:
        return []
    given = _dicts(value)
    if given is None:
        client.invalid("publish.attempts", f"attempts={client.shown('errors', value)}: expected a list of dicts")
        return []
    if len(given) > MAX_ATTEMPTS:
        client.invalid("publish.attempts", f"attempts has {len(given)}: the first {MAX_ATTEMPTS} are kept")
    rows: list[Row] = []
    for one in given[:MAX_ATTEMPTS]:
        rows.append(_given_row(client, one))
        _set_start(rows)
    return rows


def _dicts(value: Any) -> list[Row] | None:
    """Return copies of the dicts in a list; None where it is none, or one of them can't be read."""
    try:
        is_list = isinstance(value, (list, tuple)) and all(isinstance(one, Mapping) for one in value)
        return [dict(one.items()) for one in value] if is_list else None
    except Exception:  # a user's object may do anything while it is read
        return None


def _set_start(rows: list[Row]) -> None:
    """Let the last row start at the end of the one before, where neither says otherwise and both are known."""
    before = rows[-2] if len(rows) > 1 else {"start_ms": 0.0, "duration_ms": 0.0}
    if "start_ms" in before and "duration_ms" in before:
        rows[-1].setdefault("start_ms", before["start_ms"] + before["duration_ms"])


def _given_row(client: Client, given: Row) -> Row:
    row: Row = {}
    for name, value in given.items():
        found = _fitted(name, value) if value is not None else None
        if found is not None:
            row[name] = found
        elif value is not None:
            what = f"attempts: {shown(name)}={client.shown('errors', value)}"
            client.invalid("publish.attempts", f"{what}: expected provider, model, milliseconds, a status or an error")
    return {"status": "error" if "error" in row else "ok", **row}


def _fitted(name: Any, value: Any) -> Any:
    if not issubclass(type(name), str):
        return None
    if name in ("provider", "model"):
        return fit((str,), value) or None
    if name in ("start_ms", "duration_ms"):
        number = fit((float,), value)
        return number if number is not None and number >= 0 else None
    if name == "status":
        return value if issubclass(type(value), str) and value in STATUSES else None
    if name == "error":
        return _error_given(value)
    return None


def _error_given(value: Any) -> dict[str, Any] | None:
    kind = type(value)
    if issubclass(kind, BaseException):
        return _described(value)
    return {"type": "error", "message": text(value, MAX_MESSAGE_CHARS)} if issubclass(kind, str) else None
