"""Hypothesis strategies for events, built from the classes' own annotations, and for what users hand over."""

from __future__ import annotations

import types
import typing
from typing import Any

import attrs
from hypothesis import strategies as st
from msgspec import Meta

from voicelog.events import EVENT_TYPES, Event

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


class Awkward:
    """Its repr, str, numbers and comparisons all raise."""

    def _raise(self, *_: object) -> Any:
        message = "awkward"
        raise RuntimeError(message)

    __repr__ = __str__ = __float__ = __index__ = __int__ = __len__ = __iter__ = __eq__ = __hash__ = _raise  # type: ignore[assignment]


class BadMapping(dict):  # type: ignore[type-arg]
    """A dict whose items can't be read."""

    def items(self) -> Any:
        message = "no items"
        raise RuntimeError(message)


class Proxy:
    """An object that stands for another, where that is not at hand: even its class can't be asked."""

    @property
    def __class__(self) -> Any:
        message = "outside of its context"
        raise RuntimeError(message)


class NumpyLike:
    """A number as numpy has them: no int, no float, but both on request."""

    def __float__(self) -> float:
        return 0.5

    def __index__(self) -> int:
        return 7


class IntSubclass(int):
    """An int whose membership in a range is a search."""


def _cycle() -> list[Any]:
    around: list[Any] = []
    around.extend([around] * 1000)
    return around


ODD: tuple[Any, ...] = (
    "\ud800", "", "x" * 3000, 10**5000, -(10**400), 2**64, float("nan"), float("inf"), 1e308, -1.0, b"\xff", object(),
    Awkward(), Proxy(), BadMapping(a=1), NumpyLike(), IntSubclass(5), _cycle(), {1: {2: 3}}, {None: 1, (1, 2): 2},
    {"\ud800": 1}, {1, 2}, ValueError, ValueError("x"), lambda: None, 1 + 2j, range(3), iter([1]),
)  # fmt: skip

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=8), JSON,
    st.integers(0, len(ODD) - 1).map(lambda index: ODD[index]),
)  # fmt: skip
"""Whatever a user's code might pass where something else was expected."""


def _annotated(base: Any, meta: Meta) -> st.SearchStrategy[Any]:
    if base is str:
        size = {"min_size": meta.min_length or 0, "max_size": min(meta.max_length or 30, 30)}
        return st.text(st.characters(exclude_categories=["Cs"]), **size)
    assert base is int, base
    top = meta.le if meta.le is not None else (meta.lt or 2**63) - 1
    return st.integers(int(meta.ge or 0), int(top))


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Return the values of an annotation; an annotation that is not known here fails."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _annotated(args[0], annotation.__metadata__[0])
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(of_type, args))
    if origin is dict:
        return st.dictionaries(of_type(args[0]), of_type(args[1]), max_size=4)
    if origin is list:
        return st.lists(of_type(args[0]), max_size=4)
    if attrs.has(annotation):
        return of_class(annotation)
    simple = {str: TEXT, int: st.integers(-(2**63), 2**63 - 1), float: NUMBER, bool: st.booleans(), Any: JSON}
    return st.none() if annotation is type(None) else simple[annotation]


def of_class(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Return instances of an attrs class; a choice is one of the field's own."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {}
    for field in attrs.fields(cls):
        if field.metadata.get("wire", True):
            choices = field.metadata.get("choices")
            fields[field.name] = st.none() | st.sampled_from(choices) if choices else of_type(hints[field.name])
    return st.builds(cls, **fields)


def _complete(event: Event) -> Event:
    """Give an event what its type needs and an empty text does not count as."""
    needed = {} if event.SESSION_OPTIONAL or event.session_id else {"session_id": "s"}
    required = [f.name for f in attrs.fields(type(event)) if f.default is attrs.NOTHING]
    return attrs.evolve(event, **needed, **{name: "x" for name in required if getattr(event, name) == ""})


EVENTS: st.SearchStrategy[Event] = st.sampled_from(list(EVENT_TYPES.values())).flatmap(of_class).map(_complete)
"""Any event of any type that is whole."""
