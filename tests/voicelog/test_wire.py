"""The wire: what is written is read again, and what is no event is refused with a reason, whatever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.voicelog.strategies import EVENTS, JSON, TEXT

from voicelog.errors import REASONS, DecodeError, EncodeError
from voicelog.events import EVENT_TYPES, Event, SttResult, Turn, wire_fields
from voicelog.wire import decode, encode, encode_value, read

GOLDEN = Path(__file__).parent.parent / "contracts" / "golden"
WHO: dict[str, Any] = {"stream_id": "a1", "seq": 7, "ts": 1_767_225_600_000_000, "session_id": "s"}
METRIC = {"v": 1, "type": "metric", **WHO, "name": "n", "value": 1.5}
TYPES = pytest.mark.parametrize("kind", EVENT_TYPES)


@given(EVENTS)
def test_every_event_comes_back_equal(event: Event) -> None:
    assert decode(encode(event).value) == event


@given(EVENTS, st.dictionaries(TEXT.map(lambda name: f"new_{name}"), JSON, min_size=1))
def test_fields_of_a_newer_version_are_kept_and_written_again(event: Event, extra: dict[str, Any]) -> None:
    fields = {**json.loads(encode(event).value), **extra}
    found = decode(encode_value(fields))
    assert found.extra == extra
    assert json.loads(encode(found).value) == fields


@given(EVENTS)
def test_a_message_has_the_events_topic_key_and_only_what_is_there(event: Event) -> None:
    message = encode(event, [("traceparent", b"00")])
    assert (message.topic, message.key, message.headers) == (event.TOPIC, event.key.encode(), [("traceparent", b"00")])
    fields = json.loads(message.value)
    assert (fields["v"], fields["type"], fields["event_id"]) == (1, event.TYPE, event.event_id)
    assert set(fields) - {"v", "type", "event_id"} == {
        name for name in wire_fields(type(event)) if getattr(event, name) is not None
    }


def refused(value: bytes | None) -> DecodeError | None:
    """Return the refusal of a value, or None for an event; anything else that is raised fails the test."""
    found: Event | DecodeError
    try:
        found = decode(value)
    except DecodeError as exc:
        found = exc
    if isinstance(found, Event):
        return None
    assert found.reason in REASONS
    assert len(str(found)) < 3000
    return found


@given(st.binary())
@example(b"")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" + b"0" * 5000)
def test_bytes_are_an_event_or_are_refused_with_a_reason(value: bytes) -> None:
    refused(value)


@given(JSON)
def test_json_is_an_event_or_is_refused_with_a_reason(value: Any) -> None:
    refused(json.dumps(value).encode())


FIELD_NAMES = sorted({name for cls in EVENT_TYPES.values() for name in wire_fields(cls)} | {"extra", "event_id", "v"})


@given(EVENTS, st.dictionaries(st.sampled_from(FIELD_NAMES), JSON | st.integers() | st.just(10**400), max_size=4))
def test_an_event_with_any_value_in_any_field_is_read_or_refused(event: Event, wrong: dict[str, Any]) -> None:
    refused(json.dumps({**json.loads(encode(event).value), **wrong}).encode())


@pytest.mark.parametrize(
    ("value", "reason", "sentence"),
    [
        (None, "not_json", "not JSON"),
        (b"\xff\xfe", "not_json", "not JSON"),
        (b'"\\ud800"', "not_json", "not JSON"),
        (b"[1]", "not_an_event", "got a list"),
        (b"{}", "not_an_event", "an object with no fields"),
        (b'{"a": 1}', "not_an_event", "an object with a"),
        ({"v": 99}, "unsupported_version", "schema version 99: this sink knows major version 1"),
        ({"v": "2.1"}, "unsupported_version", "update voicelog-sink"),
        ({"v": True}, "unsupported_version", "True"),
        ({"type": "nonsense"}, "unknown_type", "'nonsense' is not known: expected one of stt_result"),
        ({"type": []}, "unknown_type", "is not known"),
        ({"seq": None}, "missing_field", "metric without seq"),
        ({"name": ""}, "missing_field", "metric without name"),
        ({"type": "turn", "session_id": ""}, "missing_field", "turn without session_id"),
        ({"value": "1"}, "invalid_field", "value"),
        ({"seq": -1}, "invalid_field", "seq"),
        ({"ts": 1_767_225_600_000}, "invalid_field", "ts"),
        ({"ts": 1_767_225_600_000_000_000}, "invalid_field", "ts"),
        ({"session_id": 5}, "invalid_field", "session_id"),
        ({"name": "x" * 1025}, "invalid_field", "name"),
    ],
)
def test_each_refusal_says_what_was_expected(value: Any, reason: str, sentence: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(json.dumps({**METRIC, **value}).encode() if isinstance(value, dict) else value)
    assert caught.value.reason == reason
    assert sentence in str(caught.value)


@pytest.mark.parametrize("version", [1, "1", "1.0", "1.7"])
def test_minor_versions_of_a_known_major_are_read(version: Any) -> None:
    assert decode(json.dumps({**METRIC, "v": version}).encode()).event_id == "a1-7"


@pytest.mark.parametrize(
    "value", ["\ud800", object(), 10**5000, {(1, 2): 3}], ids=["surrogate", "object", "int", "key"]
)
def test_what_json_can_not_say_is_an_encode_error(value: Any) -> None:
    with pytest.raises(EncodeError, match="can't be written as JSON"):
        encode(SttResult(**WHO, attributes={"x": value}))


@TYPES
def test_golden_message_is_read_and_written_to_the_byte(kind: str) -> None:
    """A change of the wire shows here; what is in the topics already must stay readable."""
    golden = json.loads((GOLDEN / f"{kind}.json").read_text())
    value = json.dumps(golden["value"], separators=(",", ":"), ensure_ascii=False).encode()
    event = decode(value)
    assert event.extra is None
    message = encode(event)
    assert (message.topic, message.key.decode(), message.value) == (golden["topic"], golden["key"], value)


@TYPES
def test_golden_message_has_every_field_of_its_type(kind: str) -> None:
    golden = json.loads((GOLDEN / f"{kind}.json").read_text())["value"]
    assert set(golden) == {"v", "type", "event_id", *wire_fields(EVENT_TYPES[kind])}


def test_every_golden_message_has_a_type() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(EVENT_TYPES)


def test_field_named_extra_is_an_unknown_field_like_any_other() -> None:
    """`extra` is where unknown fields are kept; on the wire its name means nothing."""
    value = b'{"v":1,"type":"error","stream_id":"s","seq":1,"ts":1767225600000000,"zeta":1,"extra":7,"alpha":2}'
    event = decode(value)
    assert event.extra == {"zeta": 1, "extra": 7, "alpha": 2}
    assert list(event.extra) == ["zeta", "extra", "alpha"]
    assert decode(encode(event).value) == event


def outcome(take: Callable[[bytes], Event], value: bytes) -> Any:
    """Return all that can be told of what was made of a value: every field, or the refusal."""
    try:
        event = take(value)
    except DecodeError as exc:
        return exc.reason, str(exc)
    names = (*wire_fields(EVENT_TYPES[event.TYPE]), "extra")
    fields = {name: msgspec.to_builtins(getattr(event, name)) for name in names}
    return event.TYPE, event.key, event.shard, json.dumps(fields)


@given(EVENTS, st.dictionaries(st.sampled_from([*FIELD_NAMES, "type", "new"]), JSON | st.integers(), max_size=3))
@example(SttResult(**WHO), {"v": 1.0})
@example(SttResult(**WHO), {"v": "1.2"})
@example(SttResult(**WHO), {"seq": 7.0})
@example(SttResult(**WHO), {"seq": 10**30, "duration_ms": 10**400})
@example(SttResult(**WHO), {"duration_ms": 3, "confidence": -0.0})
@example(SttResult(**WHO), {"session_id": ""})
@example(SttResult(**WHO), {"stage": ""})
@example(SttResult(**WHO), {"event_id": {"any": "thing"}})
@example(SttResult(**WHO), {"error": {"type": "E", "unknown": 1}})
@example(SttResult(**WHO), {"attempts": [{"start_ms": 1}, {}]})
@example(SttResult(**WHO), {"attempts": [{"error": {"message": "no type"}}]})
@example(SttResult(**WHO), {"usage": {"input_tokens": 3, "output_tokens": 1e3}})
@example(Turn(**WHO), {"figures": {"a": {"value_ms": 1, "of a newer version": 2}, "b": {"value_ms": None}}})
@example(Turn(**WHO), {"figures": {"a": {}}})
@example(Turn(**WHO), {"contributions": [{"key": "k", "us": 1, "owner": "o"}, {"key": "k", "us": -1, "owner": "o"}]})
@example(Turn(**WHO), {"barge_in": {"onset_us": WHO["ts"], "stop_ms": 3}, "marks": {"stt_final": WHO["ts"]}})
@example(Turn(**WHO), {"marks": {"stt_final": 5}})
def test_reading_fast_and_reading_by_the_classes_agree_on_everything(event: Event, changed: dict[str, Any]) -> None:
    value = json.dumps({**json.loads(encode(event).value), **changed}).encode()
    assert outcome(read, value) == outcome(decode, value)


@pytest.mark.parametrize("twice", ['"type":"log"', '"type":"metric"', '"v":2', '"seq":-1', '"name":"m"', '"zz":1'])
@pytest.mark.parametrize("first", [True, False])
def test_reading_fast_agrees_on_a_field_that_is_there_twice(twice: str, first: bool) -> None:
    whole = json.dumps(METRIC)
    value = ("{" + twice + "," + whole[1:] if first else whole[:-1] + "," + twice + "}").encode()
    assert outcome(read, value) == outcome(decode, value)


@TYPES
def test_golden_message_is_read_fast(kind: str) -> None:
    value = json.dumps(json.loads((GOLDEN / f"{kind}.json").read_text())["value"]).encode()
    found = read(value)
    assert not isinstance(found, Event)
    assert outcome(read, value) == outcome(decode, value)


@given(st.binary())
@example(b"[" * 100_000)
def test_reading_fast_agrees_on_bytes(value: bytes) -> None:
    assert outcome(read, value) == outcome(decode, value)


@pytest.mark.parametrize("harm", [b'{"stac\xea": "x"', b'{"stack": "\xff"', b'{"new": {"deep": "\xc3("}'])
def test_reading_fast_refuses_broken_text_also_where_it_skips_it(harm: bytes) -> None:
    stage = {"v": 1, "type": "stage", **WHO, "stage": "vad", "status": "error"}
    value = json.dumps(stage).encode()[:-1] + b', "error": ' + harm + b', "type": "T", "message": "m"}}'
    for reading in (read, decode):
        with pytest.raises(DecodeError) as caught:
            reading(value)
        assert caught.value.reason == "not_json"
