"""OpenTelemetry: the current span's ids for events, its traceparent for headers, and the tracer for own spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, SpanContext, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from voicelog import genai
from voicelog.wire import Headers

if TYPE_CHECKING:
    from voicelog.client import Client

TRACEPARENT = "traceparent"


def tracer(client: Client) -> Tracer | None:
    """Return the tracer for spans, or None: otel_spans is off, or the program has set no tracer provider."""
    if not client.settings.otel_spans:
        return None
    provider = client.tracer_provider or trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return provider.get_tracer("voicelog", genai.VERSION)


def is_on() -> bool:
    """Return whether a tracer provider is set, or a span current without one."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) or current() is not None


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
    return [(TRACEPARENT, value.encode())]


def remote(header: str | None) -> SpanContext | None:
    """Return the span's context that a traceparent header names, or None without a valid one."""
    if not header:
        return None
    found = get_current_span(TraceContextTextMapPropagator().extract({TRACEPARENT: header}))
    context = found.get_span_context()
    return context if context.is_valid else None


def stamp(fields: dict[str, Any]) -> Headers | None:
    """Put the current span's trace_id and its span_id, as the parent, into `fields`; return the header, or None."""
    context = current()
    if context is None:
        return None
    fields["trace_id"] = f"{context.trace_id:032x}"
    fields.setdefault("parent_id", f"{context.span_id:016x}")
    return traceparent(context)
