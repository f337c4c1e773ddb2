"""Handing a session over: to another process by headers or the environment, to a thread by a wrapped function."""

from __future__ import annotations

import contextvars
import json
import os
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qsl, urlencode

from voicelog import tracing
from voicelog.clean import clean, shown, text
from voicelog.client import Client, state
from voicelog.context import session_var
from voicelog.fields import fit
from voicelog.session import Session
from voicelog.wire import encode_value

HEADER = "voicelog-session"
MAX_ATTRIBUTES_CHARS = 4096
"""Attributes of a session that are longer, as JSON, stay behind: headers and environments are small."""

Headers = Mapping[str, str] | Mapping[str, bytes] | Iterable[tuple[str | bytes, str | bytes]]
P = ParamSpec("P")
R = TypeVar("R")


def inject(headers: MutableMapping[str, str], *, environ: bool | None = None) -> None:
    """Put the current session into `headers` (HTTP, Kafka), for `extract` on the other side.

    Writes `voicelog-session`, and `traceparent` when an OpenTelemetry span is current. With environ=True, and for
    os.environ by itself, the names are an environment's: VOICELOG_SESSION and TRACEPARENT. The session's id, user,
    variant, attributes and open turn go along. Without a session it does nothing. Never blocks or raises.
    """
    session = session_var.get()
    if session is None or session.id is None:
        return
    if isinstance(headers, list) or not hasattr(type(headers), "__setitem__"):
        _refuse(headers)
        return
    try:
        for name, value in _found(session).items():
            in_environ = headers is os.environ if environ is None else environ
            headers[name.replace("-", "_").upper() if in_environ else name] = value
    except Exception as exc:
        if state.current is not None:
            state.current.fault("inject", exc)


def _refuse(headers: object) -> None:
    if state.current is not None:
        sentence = f"inject({shown(headers)}): expected a mapping, such as a dict, whose items() are Kafka's headers"
        state.current.invalid("inject", sentence)


def _found(session: Session) -> dict[str, str]:
    turn, hold = session.current_turn, session.stream.hold if session.stream is not None else None
    parts = {
        "id": session.id, "user": session.user, "variant": session.variant,
        "turn": turn.id if turn is not None else session.inherited_turn_id,
        "kept": hold.reason if hold is not None else None,
    }  # fmt: skip
    texts = {name: text(value) for name, value in parts.items() if value is not None}
    attributes = fit((dict,), session.attributes)  # what is no dict is not the session's, and may not even have a truth
    texts["attributes"] = _attributes(attributes, state.current) if attributes else ""
    found = {HEADER: urlencode({name: value for name, value in texts.items() if value})}
    context = tracing.current() or (turn.span.context if turn is not None and turn.span is not None else None)
    if context is not None:
        found[tracing.TRACEPARENT] = tracing.traceparent(context)[0][1].decode()
    return found


def _attributes(attributes: dict[str, Any], client: Client | None) -> str:
    found = encode_value(clean(attributes)).decode()
    if len(found) <= MAX_ATTRIBUTES_CHARS:
        return found
    if client is not None:
        what = f"the session's attributes are {len(found)} characters long"
        client.invalid("inject.attributes", f"{what}: expected at most {MAX_ATTRIBUTES_CHARS}; they stay behind")
    return ""


def extract(headers: Headers | None = None) -> Session:
    """Return the session that `inject` put into `headers`: `with voicelog.extract(request.headers):`.

    `headers` is a mapping, or pairs as ASGI and Kafka have them; texts or bytes; by default this process's environment.
    It is another stream of the same call. Without the header, or with a broken one, it is a session of its own, and
    that is counted. Never blocks or raises.
    """
    given = _given(os.environ if headers is None else headers)
    parts = dict(parse_qsl(given.get(HEADER, "")))
    if not parts.get("id") and state.current is not None:
        where = "the environment" if headers is None else "the headers"
        sentence = f"no session in {where}: expected {HEADER!r} or VOICELOG_SESSION, as voicelog.inject() writes it"
        state.current.invalid("extract", sentence)
    session = Session(
        parts.get("id"), parts.get("user"), variant=parts.get("variant"), attributes=_object(parts.get("attributes"))
    )
    session.inherited_turn_id = parts.get("turn")
    session.inherited_span = tracing.remote(given.get(tracing.TRACEPARENT))
    session.is_continued = "id" in parts
    session.inherited_reason = parts.get("kept")
    return session


def _given(headers: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        pairs = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers
        for name, value in pairs:
            known = _text(name).lower().replace("_", "-")
            if known in (HEADER, tracing.TRACEPARENT):
                found.setdefault(known, _text(value))
    except Exception:  # not headers at all: the caller is told that no session was found
        return found
    return found


def _object(given: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(given) if given else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def copy_context(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` bound to this context's session, turn and stage, for a thread to run.

    `threading.Thread(target=copy_context(work))`, `pool.submit(copy_context(work), argument)`. Safe to call from
    several threads at once: each call runs in a copy of its own.
    """
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        call: Any = context.copy().run
        result: R = call(function, *args, **kwargs)
        return result

    return run
