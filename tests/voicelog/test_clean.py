"""Cleaning: JSON and texts out of anything, in bounded time and size."""

from __future__ import annotations

import datetime
import enum
import json
import math
import time
import uuid
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import attrs
from hypothesis import example, given
from tests.voicelog.strategies import ANYTHING, JSON, Awkward, BadMapping, IntSubclass, NumpyLike, Proxy

from voicelog.clean import CUT, MAX_DEPTH, MAX_ITEMS, clean, shown, text
from voicelog.events import Figure
from voicelog.wire import encode_value


@given(ANYTHING)
def test_anything_becomes_json(value: Any) -> None:
    json.loads(encode_value({"x": clean({"inner": [value], "bare": value})}))


@given(JSON)
@example([1.5, True, None, "x", {"a": [-(2**63)]}])
def test_json_stays_as_it_is(value: Any) -> None:
    """Up to the depth at which it is cut."""
    assert clean(value) == value or CUT in str(clean(value))


@given(ANYTHING)
def test_text_and_shown_never_raise_and_are_bounded(value: Any) -> None:
    assert len(text(value)) <= 1024
    text(value).encode()
    assert len(shown(value)) <= 200


class Colour(str, enum.Enum):  # noqa: UP042 - str() of it is "Colour.RED"
    RED = "red"


def test_what_json_can_not_say_is_said_otherwise() -> None:
    given = {
        "surrogate": "a\ud800b", "nan": math.nan, "inf": math.inf, "big": 2**70, "huge": 10**5000, "bytes": b"x",
        "tuple": (1, 2), "uuid": uuid.UUID(int=1), "day": datetime.date(2026, 1, 2), "decimal": Decimal("1.5"),
        "enum": Colour.RED, "status": HTTPStatus.OK, "like": NumpyLike(), 5: "five", (1, 2): "pair",
        "figure": Figure(value_ms=1.0), "awkward": Awkward(), "unread": BadMapping(a=1), "complex": 1 + 2j,
        "proxy": Proxy(),
    }  # fmt: skip
    cleaned = clean(given)
    like, proxy = cleaned.pop("like"), cleaned.pop("proxy")
    assert "Proxy object" in proxy
    assert "NumpyLike object" in like
    assert cleaned == {
        "surrogate": "a?b", "nan": None, "inf": None, "big": str(2**70), "huge": "<int of 16610 bits>", "bytes": "eA==",
        "tuple": [1, 2], "uuid": "00000000-0000-0000-0000-000000000001", "day": "2026-01-02", "decimal": "1.5",
        "enum": "red", "status": 200, "5": "five", "(1, 2)": "pair",
        "figure": {"value_ms": 1.0, "quality": "ok", "anchor": None}, "awkward": "<Awkward whose repr fails>",
        "unread": "{'a': 1}", "complex": "(1+2j)",
    }  # fmt: skip


def test_subclass_of_int_is_read_at_once() -> None:
    """A range looks for an int of a subclass one number after the other."""
    began = time.monotonic()
    assert clean(IntSubclass(2**62)) == 2**62
    assert time.monotonic() - began < 1


def test_a_cycle_is_cut_where_it_closes() -> None:
    inner: dict[str, Any] = {"a": 1}
    inner["self"] = inner
    assert clean(inner) == {"a": 1, "self": CUT}


def test_what_is_there_twice_is_no_cycle() -> None:
    shared = [1]
    assert clean([shared, shared]) == [[1], [1]]


def test_a_web_of_references_is_cut_before_it_explodes() -> None:
    """A thousand nodes that all know each other would be 1000**8 values."""
    nodes: list[Any] = [[] for _ in range(1000)]
    for node in nodes:
        node.extend(nodes)
    began = time.monotonic()
    cleaned = clean(nodes)
    assert time.monotonic() - began < 2
    assert len(encode_value({"x": cleaned})) < 1_000_000


def test_depth_and_length_are_cut() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]
    assert str(clean(deep)).count("[") == MAX_DEPTH
    assert len(clean(list(range(MAX_ITEMS + 5)))) == MAX_ITEMS


def test_numpy_is_numbers() -> None:
    class Real(float):
        """What numpy.float64 is to Python."""

    assert clean({"a": Real(1.5)}) == {"a": 1.5}


@attrs.frozen
class Slotted:
    a: int
    b: Any


def test_an_attrs_object_is_its_fields() -> None:
    assert clean(Slotted(1, [Slotted(2, None)])) == {"a": 1, "b": [{"a": 2, "b": None}]}
