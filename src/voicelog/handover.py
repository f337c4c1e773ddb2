"""Handing a session over: to another process by headers, to a thread by a wrapped function."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qsl, urlencode

from voicelog import tracing
from voicelog.clean import text
from voicelog.client import state
from voicelog.context import session_var
from voicelog.session import Session

HEADER = "voicelog-session"
Headers = Mapping[str, str] | Mapping[str, bytes] | Iterable[tuple[str | bytes, str | bytes]]
P = ParamSpec("P")
R = TypeVar("R")


def inject(headers: MutableMapping[str, str]) -> None:
    """Put the current session into `headers` (HTTP, Kafka, an environment), for `extract` on the other side.

    Writes `voicelog-session`, and `traceparent` when an OpenTelemetry span is current. Without a session it does
    nothing.
    """
    session = session_var.get()
    if session is None or session.id is None:
        return
    try:
        turn = session.current_turn
        parts = {"id": session.id, "user": session.user, "variant": session.variant, "turn": turn.id if turn else None}
        texts = {name: text(value) for name, value in parts.items() if value is not None}
        headers[HEADER] = urlencode({name: value for name, value in texts.items() if value})
        context = tracing.current()
        if context is not None:
            headers["traceparent"] = tracing.traceparent(context)[0][1].decode()
    except Exception as exc:
        if state.current is not None:
            state.current.fault("inject", exc)


def extract(headers: Headers) -> Session:
    """Return the session that `inject` put into `headers`: `with voicelog.extract(request.headers):`.

    `headers` is a mapping, or pairs as ASGI and Kafka have them; texts or bytes. It is another stream of the same call.
    Without the header, or with a broken one, it is a session of its own, and that is counted.
    """
    parts = _parts(headers)
    if not parts.get("id") and state.current is not None:
        state.current.invalid(
            "extract", f"no session in the headers: expected {HEADER!r}, as voicelog.inject() writes it"
        )
    session = Session(parts.get("id"), parts.get("user"), variant=parts.get("variant"))
    session.inherited_turn_id = parts.get("turn")
    return session


def _parts(headers: Any) -> dict[str, str]:
    try:
        pairs = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers
        found = next((value for name, value in pairs if _text(name).lower() == HEADER), "")
        return dict(parse_qsl(_text(found)))
    except Exception:  # not headers at all: the caller is told that no session was found
        return {}


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def copy_context(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` bound to this context's session, turn and stage, for a thread to run."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        call: Any = context.copy().run
        result: R = call(function, *args, **kwargs)
        return result

    return run
