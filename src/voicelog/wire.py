"""The wire: an event as a Kafka message and back. The only place that writes or reads its JSON.

The value is one JSON object: `v`, `type`, `event_id` and the event's fields; what is absent is not sent. The key is
the session id, or `~service/host` for an event without one. A field that this version does not know is kept in
`extra` and written again by `encode`; another major version is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs
import msgspec

from voicelog.errors import DecodeError, EncodeError
from voicelog.events import EVENT_TYPES, SCHEMA_VERSION, TOPIC_OF, Event, required_fields, wire_fields
from voicelog.wire_structs import MAY_BE_EMPTY, REFUSED, reader

Headers = list[tuple[str, bytes]]

_encoder = msgspec.json.Encoder()
encode_fields = _encoder.encode
"""Returns the JSON of fields; raises whatever a value that is not JSON's makes it raise. The hot path's."""
_decoder = msgspec.json.Decoder()
_ENVELOPE = frozenset({"v", "type", "event_id"})
_WIRE_FIELDS = {name: wire_fields(cls) for name, cls in EVENT_TYPES.items()}
_KNOWN = {name: _ENVELOPE | frozenset(fields) for name, fields in _WIRE_FIELDS.items()}
_REQUIRED = {name: required_fields(cls) for name, cls in EVENT_TYPES.items()}


class Message(NamedTuple):
    """What goes to the broker; `topic` is without the prefix."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


def encode(event: Event, headers: Headers | None = None) -> Message:
    """Return the event as a message; raises EncodeError when a value is not JSON's."""
    kind = event.TYPE
    fields = {name: value for name in _WIRE_FIELDS[kind] if (value := getattr(event, name)) is not None}
    value = encode_value(
        {"v": SCHEMA_VERSION, "type": kind, "event_id": event.event_id, **fields, **(event.extra or {})}
    )
    return Message(TOPIC_OF[kind], event.key.encode("utf-8", "replace"), value, headers or [])


def encode_value(fields: dict[str, Any]) -> bytes:
    """Return a message's value from its fields; raises EncodeError. The hot path calls it without an Event."""
    try:
        return _encoder.encode(fields)
    except (TypeError, ValueError, RecursionError, OverflowError) as exc:
        message = f"the event can't be written as JSON: {exc}"
        raise EncodeError(message) from exc


def decode(value: bytes | None) -> Event:
    """Return the event in a message's value; raises DecodeError with the reason for the dead letters."""
    fields = _object(value)
    kind = _kind(fields)
    for name in _REQUIRED[kind]:
        if fields.get(name) is None or (fields[name] == "" and name not in MAY_BE_EMPTY):
            message = f"{kind} without {name}: every {kind} needs one"
            raise DecodeError("missing_field", message)
    unknown = fields.keys() - _KNOWN[kind]
    extra = {name: fields.pop(name) for name in list(fields) if name in unknown} if unknown else None
    try:
        event: Event = msgspec.convert(fields, EVENT_TYPES[kind])
    except msgspec.ValidationError as exc:
        message = f"{kind} with a wrong field: {exc}"
        raise DecodeError("invalid_field", message) from exc
    return attrs.evolve(event, extra=extra) if extra else event


def read(value: bytes | None) -> Event:
    """Return the event as `decode` does and raise as it does, at a quarter of the cost: for the sink.

    What it returns has an Event's attributes, but is seldom of its class: tell its kind by TYPE, not by isinstance.
    """
    try:
        if value and not value.isascii():
            str(value, "utf-8")  # the reader looks at no text that it skips
        return reader()(value or b"")
    except REFUSED:
        return decode(value)


def _object(value: bytes | None) -> dict[str, Any]:
    try:
        fields = _decoder.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        message = f"not JSON: {exc}"
        raise DecodeError("not_json", message) from exc
    if not isinstance(fields, dict) or "type" not in fields or "v" not in fields:
        message = f"JSON, but no event: expected an object with `v` and `type`, got {_shape(fields)}"
        raise DecodeError("not_an_event", message)
    return fields


def _shape(fields: Any) -> str:
    if isinstance(fields, dict):
        return f"an object with {', '.join(sorted(fields)[:8])[:200] or 'no fields'}"
    return f"a {type(fields).__name__}"


def _kind(fields: dict[str, Any]) -> str:
    version = fields["v"]
    major = version.partition(".")[0] if isinstance(version, str) else version
    if isinstance(version, bool) or str(major) != str(SCHEMA_VERSION):
        message = (
            f"schema version {_clip(version)}: this sink knows major version {SCHEMA_VERSION}; update voicelog-sink"
        )
        raise DecodeError("unsupported_version", message)
    kind = fields["type"]
    if not isinstance(kind, str) or kind not in EVENT_TYPES:
        message = f"event type {_clip(kind)} is not known: expected one of {', '.join(EVENT_TYPES)}"
        raise DecodeError("unknown_type", message)
    return kind


def _clip(value: Any) -> str:
    return repr(value)[:100]
