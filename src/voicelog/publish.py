"""Publishing: events for code that has its own timings and no block to wrap."""

from __future__ import annotations

from typing import Any, cast

from voicelog import tracing
from voicelog.attempts import attempts_given, put_attempts
from voicelog.clean import shown, text
from voicelog.client import Client, state
from voicelog.context import session_var
from voicelog.failure import describe, recorded
from voicelog.fields import OF_THE_CALL, SETTABLE, fit
from voicelog.published import Published
from voicelog.session import Session
from voicelog.stream import Stream
from voicelog.turn import Turn


def publish_stt_result(transcript: str | None = None, **fields: Any) -> None:
    """Emit an stt_result that ends now, or `ago_ms` milliseconds ago, and took `duration_ms`.

    Further fields: confidence, language, is_final, audio_ms, provider, model, first_item_ms, cost_usd, usage (a dict,
    or a provider's usage object), status, error (an exception), turn, attempts (a list of dicts: provider, model,
    duration_ms, start_ms, status, error); any other name becomes an attribute. Never blocks or raises.
    """
    _publish("stt", {"transcript": transcript, **fields})


def publish_llm_request(response: str | None = None, **fields: Any) -> None:
    """Emit an llm_request that ends now, or `ago_ms` milliseconds ago, and took `duration_ms`.

    Further fields: prompt, parameters, finish_reason, and those of publish_stt_result. Never blocks or raises.
    """
    _publish("llm", {"response": response, **fields})


def publish_tts_result(text: str | None = None, **fields: Any) -> None:
    """Emit a tts_result that ends now, or `ago_ms` milliseconds ago, and took `duration_ms`.

    Further fields: voice, audio_ms, sample_rate_hz, characters, bytes, and those of publish_stt_result. Never blocks
    or raises.
    """
    _publish("tts", {"text": text, **fields})


def _publish(name: str, fields: dict[str, Any]) -> None:
    client = state.current
    if client is None:
        return
    try:
        _publish_stage(client, name, fields)
    except Exception as exc:
        client.fault(f"publish_{name}", exc)


MAX_LOG_CHARS = 1_000_000
MAX_MS = 30 * 86_400_000
"""A time in milliseconds that is given is at most thirty days."""


def _publish_stage(client: Client, name: str, fields: dict[str, Any]) -> None:
    turn: Turn | None = fields.pop("turn", None)
    ago_ms, duration_ms, first_ms = (_ms(client, fields, key) for key in ("ago_ms", "duration_ms", "first_item_ms"))
    status, error = fields.pop("status", None), fields.pop("error", None)
    end_ns = client.clock.now_ns() - int((ago_ms or 0) * 1e6)
    answered: dict[str, Any] = {}
    put_attempts(answered, attempts_given(client, fields.pop("attempts", None)))
    attempts = answered.pop("attempts", None)
    stage = Published(name, {**answered, **{key: value for key, value in fields.items() if value is not None}}, turn)
    stage.publish(end_ns, duration_ms, first_ms, status, error, attempts)


def _ms(client: Client, fields: dict[str, Any], name: str) -> float | None:
    value = fields.pop(name, None)
    number = fit((float,), value)
    if value is not None and (number is None or not 0 <= number <= MAX_MS):
        client.invalid(f"publish.{name}", f"{name}={shown(value)}: expected milliseconds from 0 to {MAX_MS}")
        return None
    return cast("float | None", number)


def publish_log(message: str, level: str = "INFO", *, logger: str | None = None, **attributes: Any) -> None:
    """Emit a log event, in the current session or outside of any. Never blocks or raises."""
    if state.current is None:
        return
    fields: dict[str, Any] = {"message": text(message, MAX_LOG_CHARS), "level": text(level).upper() or "INFO"}
    if logger is not None:
        fields["logger"] = text(logger)
    emit_here("log", fields, attributes)


def metric(name: str, value: float, unit: str | None = None, **attributes: Any) -> None:
    """Record a figure of one's own, in the current session or outside of any.

    `unit` is a UCUM code such as ms, By, {token} or 1. provider, model and variant are dimensions; any other name
    becomes an attribute. Never blocks or raises; a value that is no finite number is left out and counted.
    """
    client = state.current
    if client is None:
        return
    number = fit((float,), value)
    if number is None or not issubclass(type(name), str) or not name:
        client.invalid("metric", f"metric({shown(name)}, {shown(value)}): expected a name and a finite number")
        return
    fields: dict[str, Any] = {"name": text(name), "value": number}
    if unit is not None:
        fields["unit"] = text(unit)
    emit_here("metric", fields, attributes)


def log_error(exc: BaseException, **attributes: Any) -> None:
    """Record an exception with its stack trace, in the current session or outside of any. Never blocks or raises."""
    client = state.current
    if client is None:
        return
    if not issubclass(type(exc), BaseException):
        client.invalid(
            "log_error", f"log_error({client.shown('errors', exc)}): expected an exception; its text is taken"
        )
    session = session_var.get()
    if session is not None and session.stream is not None:
        recorded(exc, session.stream.stream_id)
    emit_here("error", {"error": describe(exc), "status": "error"}, attributes)


def health(component: str, status: str, **details: Any) -> None:
    """Record a component's state: ok, degraded, down, or a word of one's own. Never blocks or raises."""
    if state.current is None:
        return
    fields: dict[str, Any] = {"component": text(component) or "unknown", "state": text(status) or "unknown"}
    if details:
        fields["attributes"] = details
    emit_here("health", fields, {})


def emit_here(kind: str, fields: dict[str, Any], others: dict[str, Any]) -> None:
    """Emit an event that needs no session: on the current session's stream, or else on the process's."""
    client = state.current
    if client is None:
        return
    try:
        _sort(client, kind, fields, others)
        session = session_var.get()
        if session is None or session.stream is None:
            client.emit_loose(kind, fields)
        else:
            _emit_in(client, session, session.stream, kind, fields)
    except Exception as exc:
        client.fault(kind, exc)


def _sort(client: Client, kind: str, fields: dict[str, Any], others: dict[str, Any]) -> None:
    attributes = {}
    for name, value in others.items():
        accepted = SETTABLE[kind].get(name)
        if accepted is None:
            attributes[name] = value
        elif (found := fit(accepted, value)) is not None:
            fields[name] = found
        elif value is not None:
            client.invalid(f"{kind}.{name}", f"{kind}: {name}={shown(value)}: expected {accepted[0].__name__}")
    if attributes:
        fields["attributes"] = attributes


def _emit_in(client: Client, session: Session, stream: Stream, kind: str, fields: dict[str, Any]) -> None:
    turn_id = session.turn_id
    if turn_id is not None:
        fields["turn_id"] = turn_id
    own = {name: fields.pop(name) for name in OF_THE_CALL if name in fields}
    if own:
        stream = stream.varied(own)
    client.emit(stream, kind, client.now_ns(), fields, tracing.stamp(fields))
