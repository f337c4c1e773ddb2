"""Fields a user may set: which names are typed fields of an event, and whether a value fits."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any

import attrs

from voicelog.events import EVENT_TYPES, INT64_MAX, Event

_OWN = frozenset((
    "stream_id", "seq", "ts", "session_id", "turn_id", "stage", "duration_ms", "first_item_ms", "items", "producer_ms",
    "longest_gap_ms", "status", "service", "host", "trace_id", "span_id", "parent_id", "attributes", "error", "extra",
    "usage",
))  # fmt: skip
"""Fields that the library fills itself."""

Accept = tuple[type, ...]
_ACCEPTED: dict[type, Accept] = {str: (str,), int: (int,), float: (float, int), bool: (bool,), dict: (dict,)}


def _accepted(annotation: Any) -> Accept | None:
    for part in typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,):
        base = typing.get_args(part)[0] if hasattr(part, "__metadata__") else part
        origin = typing.get_origin(base) or base
        if origin in _ACCEPTED:
            return _ACCEPTED[origin]
    return None


def _settable(cls: type[Event]) -> dict[str, Accept]:
    hints = typing.get_type_hints(cls, include_extras=True)
    names = (a.name for a in attrs.fields(cls) if a.name not in _OWN)
    return {name: kinds for name in names if (kinds := _accepted(hints[name]))}


SETTABLE: dict[str, dict[str, Accept]] = {kind: _settable(cls) for kind, cls in EVENT_TYPES.items()}
"""For each event type: the names that .set() takes as typed fields, with the Python types that fit."""


def fit(accepted: Accept, value: Any) -> Any:
    """Return `value` as the field's type, or None when it does not fit; numpy's numbers and str subclasses do."""
    want = accepted[0]
    if want is str and isinstance(value, str):
        return str(value)
    if want is dict and isinstance(value, Mapping):
        return dict(value)
    if want is bool:
        return bool(value) if type(value).__name__ in ("bool", "bool_") else None
    if want in (int, float) and not isinstance(value, (bool, str)):
        return _number(want, value)
    return None


def _number(want: type, value: Any) -> Any:
    try:
        number = float(value) if want is float else value.__index__()
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None
    if want is float:
        return number if math.isfinite(number) else None
    return number if 0 <= number <= INT64_MAX else None
