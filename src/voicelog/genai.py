"""OpenTelemetry's names for generative AI: the one table from a stage's fields to its span's attributes.

All of those conventions are in Development, and names in them still change. So they are written here only, and
VERSION counts up when one of them changes. What has no name there is `voicelog.<field>`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from opentelemetry.trace import SpanKind

from voicelog.clean import clean
from voicelog.wire import encode_value

VERSION = "1"
"""The version of this table; a span's instrumentation scope carries it."""

CONVENTIONS = "open-telemetry/semantic-conventions-genai 024a4f9, and its pull request 390 for speech"
"""What the names are taken from."""

Attribute = str | bool | int | float | list[str]
Attributes = dict[str, Attribute]

MAX_FLOAT = sys.float_info.max

OPERATION = "gen_ai.operation.name"
CONVERSATION = "gen_ai.conversation.id"
AGENT = "gen_ai.agent.name"
END_REASON = "gen_ai.agent.invocation.end_reason"
TOOL_NAME = "gen_ai.tool.name"
ERROR_TYPE = "error.type"
INPUT, OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"
INVOKE_AGENT = "invoke_agent"
OWN = "voicelog."


class Operation(NamedTuple):
    """What a stage is called in OpenTelemetry, the kind of its span, and what its requests yield."""

    name: str
    kind: SpanKind
    output: str | None = None


OPERATIONS: dict[str, Operation] = {
    "llm": Operation("chat", SpanKind.CLIENT),
    "stt": Operation("speech_to_text", SpanKind.CLIENT, "text"),
    "tts": Operation("text_to_speech", SpanKind.CLIENT, "speech"),
    "retrieval": Operation("retrieval", SpanKind.CLIENT),
    "tool": Operation("execute_tool", SpanKind.INTERNAL),
}
"""By stage; any other stage's operation is its own name, and its span INTERNAL."""

MODELS = ("llm", "stt", "tts")
"""The stages that are requests to a model."""


def plain(value: Any) -> Attribute | None:
    """Return a value as an attribute: text, number or true/false as it is, anything else as JSON."""
    kind = type(value)
    if kind is bool or (kind is str and value.isascii()) or (kind is float and -MAX_FLOAT <= value <= MAX_FLOAT):
        return value  # type: ignore[no-any-return]  # most are: cleaning costs as much as the rest
    value = clean(value)
    return value if value is None or isinstance(value, (str, bool, int, float)) else encode_value(value).decode()


def _seconds(milliseconds: Any) -> Attribute | None:
    return float(milliseconds) / 1000


def _texts(value: Any) -> Attribute | None:
    return [str(plain(one)) for one in (value if isinstance(value, (list, tuple)) else (value,))]


class Name(NamedTuple):
    """One row: a field of the event, or of one of its objects, and the attribute that it is."""

    field: str
    attribute: str
    stages: tuple[str, ...] = ()
    """The stages it is so for; empty: any."""
    form: Callable[[Any], Attribute | None] = plain


NAMES: tuple[Name, ...] = (
    Name("provider", "gen_ai.provider.name"),
    Name("model", "gen_ai.request.model"),
    Name("first_item_ms", "gen_ai.response.time_to_first_chunk", MODELS, _seconds),
    Name("finish_reason", "gen_ai.response.finish_reasons", ("llm",), _texts),
    Name("error.type", ERROR_TYPE),
    Name("usage.input_tokens", "gen_ai.usage.input_tokens"),
    Name("usage.output_tokens", "gen_ai.usage.output_tokens"),
    Name("usage.cache_read_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
    Name("usage.cache_write_input_tokens", "gen_ai.usage.cache_write.input_tokens"),
    Name("usage.reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
    Name("usage.input_audio_tokens", "gen_ai.usage.audio.input_tokens"),
    Name("usage.output_audio_tokens", "gen_ai.usage.audio.output_tokens"),
    Name("parameters.temperature", "gen_ai.request.temperature"),
    Name("parameters.max_tokens", "gen_ai.request.max_tokens"),
    Name("parameters.top_p", "gen_ai.request.top_p"),
    Name("parameters.top_k", "gen_ai.request.top_k"),
    Name("parameters.frequency_penalty", "gen_ai.request.frequency_penalty"),
    Name("parameters.presence_penalty", "gen_ai.request.presence_penalty"),
    Name("parameters.seed", "gen_ai.request.seed"),
    Name("parameters.stop", "gen_ai.request.stop_sequences", (), _texts),
    Name("parameters.reasoning_effort", "gen_ai.request.reasoning.level"),
    Name("language", "gen_ai.speech.input.language", ("stt",)),
    Name("voice", "gen_ai.speech.voice", ("tts",)),
    Name("attributes.response_id", "gen_ai.response.id"),
    Name("attributes.response_model", "gen_ai.response.model"),
    Name("attributes.tool_name", TOOL_NAME, ("tool",)),
    Name("attributes.tool_call_id", "gen_ai.tool.call.id", ("tool",)),
)

CONTENT: dict[tuple[str, str], str] = {
    ("stt", "transcript"): OUTPUT,
    ("llm", "prompt"): INPUT,
    ("llm", "response"): OUTPUT,
    ("tts", "text"): INPUT,
}
"""By stage and field: the opt-in attribute that takes a text, as a list of messages in JSON."""

_BY_FIELD: dict[str, tuple[Name, ...]] = {
    field: tuple(row for row in NAMES if row.field == field) for field in {row.field for row in NAMES}
}
_OBJECTS = frozenset({"usage", "parameters", "attributes", "error"})
_NOT_ON_SPANS = frozenset({
    "stage", "span_id", "trace_id", "parent_id", "duration_ms", "error.message", "error.stack", "marks", "cut",
    *(field for _, field in CONTENT),
})  # fmt: skip
"""What the span says itself, in its times, events and content."""


def span_name(stage: str, fields: Mapping[str, Any]) -> str:
    """Return `{operation} {model}`, or `execute_tool {tool}`; the operation alone where there is neither."""
    subject = (fields.get("attributes") or {}).get("tool_name") if stage == "tool" else fields.get("model")
    name = operation_of(stage).name
    return f"{name} {plain(subject)}" if subject else name


def operation_of(stage: str) -> Operation:
    """Return a stage's operation: one of OPERATIONS, or its own name."""
    return OPERATIONS.get(stage) or Operation(stage, SpanKind.INTERNAL)


def opening(stage: str, fields: Mapping[str, Any]) -> Attributes:
    """Return the attributes that a span has from its start on, so that a sampler can decide by them."""
    known = {name: fields[name] for name in ("provider", "model") if name in fields}
    operation = operation_of(stage)
    output: Attributes = {"gen_ai.output.type": operation.output} if operation.output else {}
    return {OPERATION: operation.name, f"{OWN}stage": stage, **output, **dict(_named(stage, known))}


def attributes(stage: str, fields: Mapping[str, Any]) -> Attributes:
    """Return a finished stage's attributes, without its texts."""
    found = dict(_named(stage, fields))
    if stage in MODELS and "items" in fields:
        found["gen_ai.request.stream"] = True
    return found


def content(stage: str, fields: Mapping[str, Any]) -> Attributes:
    """Return a finished stage's texts, as messages in JSON."""
    found: Attributes = {}
    for (of, field), attribute in CONTENT.items():
        if of == stage and fields.get(field) is not None:
            messages = _asked(fields[field]) if attribute == INPUT else [_answer(fields, field)]
            found[attribute] = encode_value(clean(messages)).decode()
    return found


def turn_attributes(fields: Mapping[str, Any]) -> Attributes:
    """Return a finished turn's attributes; `end_reason` only for a turn that did not fail, as the conventions say."""
    own = dict(fields)
    reason, failed = own.pop("end_reason", None), own.get("status") == "error"
    figures = own.pop("figures", None) or {}
    found = dict(_named("", own))
    found |= {f"{OWN}{name}": figure.value_ms for name, figure in figures.items() if figure.value_ms is not None}
    if failed:
        found[ERROR_TYPE] = "_OTHER"
    elif reason in ("completed", "interrupted", "session_closed"):
        found[END_REASON] = reason
    elif reason is not None:
        found[f"{OWN}end_reason"] = reason
    return found


def _named(stage: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Attribute]]:
    for field, value in _flat(fields):
        attribute, form = _name_of(stage, field)
        formed = form(value) if value is not None else None
        if formed is not None:
            yield attribute, formed


def _name_of(stage: str, field: str) -> tuple[str, Callable[[Any], Attribute | None]]:
    for row in _BY_FIELD.get(field, ()):
        if not row.stages or stage in row.stages:
            return row.attribute, row.form
    return OWN + field, plain


def _flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if name in _OBJECTS and isinstance(found := clean(value), dict):
            inner = ((f"{name}.{key}", one) for key, one in found.items())
            yield from ((field, one) for field, one in inner if field not in _NOT_ON_SPANS)
        elif name not in _NOT_ON_SPANS:
            yield name, value


def _asked(text: str) -> list[dict[str, Any]]:
    try:
        given = msgspec.json.decode(text, type=list[dict[str, Any]])
    except msgspec.MsgspecError:
        given = []
    if given and all(isinstance(message.get("role"), str) for message in given):
        return [_message(message) for message in given]
    return [_says("user", text)]


def _answer(fields: Mapping[str, Any], field: str) -> dict[str, Any]:
    reason = fields.get("finish_reason")
    return {**_says("assistant", fields[field]), **({"finish_reason": reason} if reason else {})}


def _says(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _message(given: dict[str, Any]) -> dict[str, Any]:
    said = given.get("content")
    other = {name: value for name, value in given.items() if name not in ("role", "content")}
    message = _says(given["role"], said) if isinstance(said, str) else {"role": given["role"], "parts": []}
    if said is not None and not isinstance(said, str):
        other["content"] = said
    return {**message, "parts": [*message["parts"], {"type": "other", **other}]} if other else message
