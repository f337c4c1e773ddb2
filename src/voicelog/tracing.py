"""OpenTelemetry: the current span's ids onto an event, and its traceparent into the headers."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import (
    INVALID_SPAN,
    ProxyTracerProvider,
    SpanContext,
    get_current_span,
    get_tracer_provider,
)

from voicelog.wire import Headers


def is_on() -> bool:
    """Return whether a tracer provider is set, or a span current without one."""
    return not isinstance(get_tracer_provider(), ProxyTracerProvider) or current() is not None


def current() -> SpanContext | None:
    """Return the current span's context, or None without one."""
    span = get_current_span()
    if span is INVALID_SPAN:
        return None
    context = span.get_span_context()
    return context if context.is_valid else None


def traceparent(context: SpanContext) -> Headers:
    """Return the W3C header of a span, for the message."""
    value = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    return [("traceparent", value.encode())]


def stamp(fields: dict[str, Any]) -> Headers | None:
    """Put the current span's trace_id and its span_id, as the parent, into `fields`; return the header, or None."""
    context = current()
    if context is None:
        return None
    fields["trace_id"] = f"{context.trace_id:032x}"
    fields.setdefault("parent_id", f"{context.span_id:016x}")
    return traceparent(context)
