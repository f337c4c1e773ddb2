"""The event classes once more, as msgspec's structs: read from JSON in one pass, for whoever reads very many.

A struct has the attributes of the event that it stands for, and is no instance of its class: tell kinds apart by TYPE.
Anything out of the ordinary is refused here (unknown fields, every kind of wrong value) and left to wire.decode, which
says what is wrong with it. Made when first needed, since a bot never is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

import attrs
import msgspec
from msgspec import Meta

from voicelog.events import EVENT_TYPES, SCHEMA_VERSION, Event, Name, required_fields

MAY_BE_EMPTY = frozenset({"message"})
"""Required texts that may be empty; every other one needs a character."""

REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `reader()` raises for everything that it does not take."""

_Text = Annotated[str, Meta(min_length=1)]


@cache
def reader() -> Callable[[bytes], Event]:
    """Return the function that reads an event's JSON into a struct, which passes for the event."""
    structs = [_event_struct(cls) for cls in EVENT_TYPES.values()]
    return cast("Callable[[bytes], Event]", msgspec.json.Decoder(reduce(or_, structs)).decode)


def _event_struct(cls: type[Event]) -> Any:
    hints = get_type_hints(cls, include_extras=True)
    required = required_fields(cls)
    own = [(name, _required(name, hints[name])) for name in required]
    optional = [
        (field.name, _swapped(hints[field.name]), None)
        for field in attrs.fields(cls)
        if field.name not in required and field.metadata.get("wire", True)
    ]
    return msgspec.defstruct(
        cls.__name__,
        [("v", Literal[SCHEMA_VERSION]), *own, ("event_id", Any, None), *optional],
        namespace={"TYPE": cls.TYPE, "extra": None, "key": Event.key, "shard": Event.shard},
        tag_field="type",
        tag=cls.TYPE,
        forbid_unknown_fields=True,
        omit_defaults=True,
        kw_only=True,
        gc=False,
    )


def _required(name: str, hint: Any) -> Any:
    if name == "session_id":
        return Name
    return _Text if hint is str and name not in MAY_BE_EMPTY else hint


def _swapped(hint: Any) -> Any:
    """Return the type with structs in place of attrs classes, however deep they are in it."""
    if attrs.has(hint):
        return _part_struct(hint)
    if get_origin(hint) is Annotated or not get_args(hint):
        return hint
    args = tuple(_swapped(arg) for arg in get_args(hint))
    origin = get_origin(hint)
    return origin[args] if origin in (list, dict) else reduce(or_, args)


@cache
def _part_struct(cls: type) -> Any:
    hints = get_type_hints(cls, include_extras=True)
    fields = [
        (f.name, _swapped(hints[f.name])) + (() if f.default is attrs.NOTHING else (f.default,))
        for f in sorted(attrs.fields(cls), key=lambda field: field.name)  # as msgspec writes a class with slots
    ]
    return msgspec.defstruct(cls.__name__, fields, kw_only=True, gc=False)
