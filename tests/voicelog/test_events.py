"""The events' tables: what is true of each class because it is an event."""

from __future__ import annotations

import zlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicelog.events import (
    EVENT_TYPES,
    FINISHED_STAGES,
    SHARDS,
    STAGE_TYPES,
    TOPIC_OF,
    TOPICS,
    Event,
    Log,
    Metric,
    SttResult,
    required_fields,
    shard_of,
    wire_fields,
)

CLASSES = pytest.mark.parametrize("cls", EVENT_TYPES.values(), ids=EVENT_TYPES)
WHO = {"stream_id": "a1", "seq": 7, "ts": 1_767_225_600_000_000}


def test_every_subclass_of_event_is_in_the_table() -> None:
    assert set(EVENT_TYPES.values()) == set(Event.__subclasses__())
    assert all(name == cls.TYPE for name, cls in EVENT_TYPES.items())


@CLASSES
def test_every_field_has_a_doc(cls: type[Event]) -> None:
    assert [a.name for a in attrs.fields(cls) if not a.metadata.get("doc")] == []


@CLASSES
def test_every_type_goes_to_a_known_topic(cls: type[Event]) -> None:
    assert TOPIC_OF[cls.TYPE] == cls.TOPIC
    assert cls.TOPIC in TOPICS


@CLASSES
def test_every_number_names_its_unit(cls: type[Event]) -> None:
    """A float without a unit in its name is a ratio, or has its unit beside it."""
    units = ("_ms", "_us", "_usd", "_hz")
    numbers = [a.name for a in attrs.fields(cls) if a.type in (float, "float", "float | None", float | None)]
    ratios = ("confidence", "value", "sample_rate")
    assert [name for name in numbers if not name.endswith(units) and name not in ratios] == []


@CLASSES
def test_an_event_is_frozen(cls: type[Event]) -> None:
    needed = {"name": "n", "value": 1.0, "level": "INFO", "message": "m", "component": "c", "state": "ok"}
    event = cls(**WHO, **{name: value for name, value in needed.items() if name in required_fields(cls)})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.seq = 8  # type: ignore[misc]


def test_stages_with_a_class_of_their_own_are_finished_stages() -> None:
    assert {cls.TYPE for cls in STAGE_TYPES.values()} | {"stage"} == FINISHED_STAGES


def test_session_id_is_required_except_for_four_types() -> None:
    optional = {name for name, cls in EVENT_TYPES.items() if "session_id" not in required_fields(cls)}
    assert optional == {"health", "metric", "log", "error"}


def test_what_an_event_adds_itself_is_not_a_wire_field() -> None:
    assert not {"v", "type", "event_id", "extra", "key", "shard"} & set(wire_fields(SttResult))


def test_identity_is_the_stream_and_the_count() -> None:
    assert SttResult(**WHO, session_id="s").event_id == "a1-7"


def test_key_is_the_session_or_else_the_process() -> None:
    assert SttResult(**WHO, session_id="call-1").key == "call-1"
    assert Log(**WHO, level="INFO", message="m", service="front-desk", host="h1").key == "~front-desk/h1"
    assert Metric(**WHO, name="n", value=1.0).key == "~/"


@given(st.text())
def test_shard_is_crc32_of_the_key_modulo_16(key: str) -> None:
    assert shard_of(key) == zlib.crc32(key.encode("utf-8", "surrogatepass")) % 16
    assert 0 <= shard_of(key) < SHARDS


def test_shard_of_a_known_key_never_changes() -> None:
    """The tables' partitions depend on it for ever."""
    keys = ("call-123", "~front-desk/h1", "", "é")
    assert [shard_of(key) for key in keys] == [zlib.crc32(k.encode()) % 16 for k in keys]
    assert (shard_of("call-123"), shard_of("")) == (14, 0)
