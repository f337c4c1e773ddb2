"""Spans: a stage and a turn as OpenTelemetry spans, while the program has set a tracer provider.

Nothing here raises into the caller: what a tracer, a span or a processor raises is counted as the fault `otel`, and the
event is recorded without a span.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from voicelog import genai, tracing
from voicelog.clean import clean, text
from voicelog.context import restore
from voicelog.wire import Headers

if TYPE_CHECKING:
    from voicelog.client import Client
    from voicelog.clock import Anchor
    from voicelog.stream import Stream

CONTENT_ENV = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The environment's switch, common to GenAI instrumentations, for texts on spans."""
_CONTENT_ON = ("true", "1", "span_only", "span_and_event")


def spans_of(client: Client, stream: Stream, root: SpanContext | None) -> Spans | None:
    """Return what opens a session's spans, or None when no tracer provider is set.

    `root` is the span that the session was handed over with.
    """
    try:
        found = tracing.tracer(client)
        return Spans(client, found, stream, root) if found is not None else None
    except Exception as exc:
        client.fault("otel", exc)
        return None


class Spans:
    """Opens the spans of one session."""

    def __init__(self, client: Client, tracer: Tracer, stream: Stream, root: SpanContext | None) -> None:
        self._tracer = tracer
        self._around = tracing.current() or root
        """The span around the whole call: a turn's parent, and a stage's only when there is no turn."""
        self.client = client
        self.anchor: Anchor = stream.anchor
        self.common: genai.Attributes = {genai.CONVERSATION: stream.base["session_id"]}
        if (variant := stream.base.get("variant")) is not None:
            self.common[f"{genai.OWN}variant"] = variant
        self.agent: str = client.who.get("service", "")
        self.content = os.environ.get(CONTENT_ENV, "").strip().lower() in _CONTENT_ON

    def stage(self, name: str, start_ns: int, fields: Mapping[str, Any], turn: Span | None) -> Span | None:
        """Open a stage's span; its parent is the current span, else the turn's, else what is around the call."""
        try:
            kind = genai.operation_of(name).kind
            known = self._known(name, fields)
            opening = genai.opening(name, known)
            return self._open(genai.span_name(name, known), kind, opening, start_ns, self._parent(turn))
        except Exception as exc:
            self.client.fault("otel", exc)
            return None

    def _known(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a span is named by."""
        known = {field: fields[field] for field in ("provider", "model") if field in fields}
        tool = (fields.get("attributes") or {}).get("tool_name") if name == "tool" else None
        return known if tool is None else self.shown({**known, "attributes": {"tool_name": tool}})

    def shown(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of the fields as the event has them: without what is left out, and redacted."""
        client: Any = self.client
        shown = {name: value for name, value in fields.items() if name not in client.left_out}
        content, redactor = getattr(client, "content", None), getattr(client, "redactor", None)
        if content is not None:
            content.leave_out_within(shown)
        return redactor.fields(shown) if redactor is not None else shown

    def turn(self, start_ns: int) -> Span | None:
        """Open a turn's span. It does not become current: tasks that began before the turn find it by their session."""
        try:
            name = f"{genai.INVOKE_AGENT} {self.agent}".rstrip()
            opening: genai.Attributes = {genai.OPERATION: genai.INVOKE_AGENT}
            if self.agent:
                opening[genai.AGENT] = self.agent
            return self._open(name, SpanKind.INTERNAL, opening, start_ns, self._parent(None))
        except Exception as exc:
            self.client.fault("otel", exc)
            return None

    def _parent(self, turn: Span | None) -> tuple[Context, SpanContext | None]:
        around, here = get_current(), tracing.current()
        outer = {context.span_id for context in (self._around, turn.parent if turn else None) if context is not None}
        if here is not None and here.span_id not in outer:
            return around, here
        if turn is not None:
            return set_span_in_context(turn.span, around), turn.context
        if here is not None or self._around is None:
            return around, here
        return set_span_in_context(NonRecordingSpan(self._around), around), self._around

    def _open(
        self,
        name: str,
        kind: SpanKind,
        opening: genai.Attributes,
        start_ns: int,
        parent: tuple[Context, SpanContext | None],
    ) -> Span | None:
        within, above = parent
        found = self._tracer.start_span(
            name, within, kind, {**opening, **self.common}, start_time=self.epoch_ns(start_ns)
        )
        context = found.get_span_context()
        if not context.is_valid or (above is not None and context.span_id == above.span_id):
            return None  # a tracer that is off answers with no span, or with the parent itself
        return Span(self, found, context, above)

    def epoch_ns(self, mono_ns: int) -> int:
        """Return a monotonic time as epoch nanoseconds, as exact as the event's own times."""
        return self.anchor.epoch_us(mono_ns) * 1000


class Span:
    """One open span, of a stage or a turn."""

    __slots__ = ("_inside", "_spans", "_token", "context", "parent", "span", "span_id")

    def __init__(self, spans: Spans, span: OtelSpan, context: SpanContext, parent: SpanContext | None) -> None:
        self._spans = spans
        self._inside: Context | None = None
        """What is current within a generator's steps: the span, or one that the generator opened and has not left."""
        self._token: Any = None
        self.span = span
        self.context = context
        self.parent = parent
        self.span_id = f"{context.span_id:016x}"

    def enter(self) -> None:
        """Make the span current, for a block or a generator's step."""
        try:
            if self._inside is None:
                self._inside = set_span_in_context(self.span)
            self._token = attach(self._inside)
        except Exception as exc:
            self._spans.client.fault("otel", exc)

    def leave(self) -> None:
        """Make current what was so before `enter`, also in another context than it was entered in."""
        token, self._token = self._token, None
        if token is None:
            return
        try:
            mine, self._inside = self._inside, get_current()
            if isinstance(token, Token):  # detach() would log an error where the context is another one
                restore(token.var, token, mine)
            else:
                detach(token)
        except Exception as exc:
            self._spans.client.fault("otel", exc)

    def stamp(self, fields: dict[str, Any]) -> Headers:
        """Put the span's ids into an event's fields; return its traceparent header."""
        fields["trace_id"] = f"{self.context.trace_id:032x}"
        fields["span_id"] = self.span_id
        if self.parent is not None:
            fields["parent_id"] = f"{self.parent.span_id:016x}"
        return tracing.traceparent(self.context)

    def end_stage(self, name: str, fields: dict[str, Any], end_ns: int) -> None:
        """Give the span what the stage's event says, and end it."""
        try:
            if self.span.is_recording():
                shown = self._spans.shown(fields)
                self.span.set_attributes(genai.attributes(name, shown))
                if self._spans.content:
                    self.span.set_attributes(genai.content(name, shown))
                self._fail(shown, end_ns)
        except Exception as exc:
            self._spans.client.fault("otel", exc)
        self._end(end_ns)

    def end_turn(self, fields: dict[str, Any], end_ns: int) -> None:
        """Give the span what the turn's event says, its marks as events, and end it."""
        try:
            if self.span.is_recording():
                self.span.set_attributes(genai.turn_attributes(self._spans.shown(fields)))
                for mark, at_us in (fields.get("marks") or {}).items():
                    self.span.add_event(mark, timestamp=at_us * 1000)
                self._fail(fields, end_ns)
        except Exception as exc:
            self._spans.client.fault("otel", exc)
        self._end(end_ns)

    def _fail(self, fields: Mapping[str, Any], end_ns: int) -> None:
        if fields.get("status") != "error":
            return
        error = fields.get("error") or {}
        found = {f"exception.{ours}": error.get(name) for ours, name in _EXCEPTION.items()}
        if error:
            at_ns = self._spans.epoch_ns(end_ns)
            self.span.add_event("exception", {n: text(v, MAX_CHARS) for n, v in found.items() if v}, at_ns)
        said = ": ".join(str(clean(error[part])) for part in ("type", "message") if error.get(part))
        self.span.set_status(Status(StatusCode.ERROR, said or None))

    def _end(self, end_ns: int) -> None:
        try:
            self.span.end(self._spans.epoch_ns(end_ns))
        except Exception as exc:
            self._spans.client.fault("otel", exc)


MAX_CHARS = 20_000
_EXCEPTION = {"type": "type", "message": "message", "stacktrace": "stack"}
"""The conventions' names for an exception, and ours."""
