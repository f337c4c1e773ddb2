"""Fields a user may set: which names are typed fields of an event, and whether a value fits."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any

import attrs

from voicelog.events import EVENT_TYPES, FINISHED_STAGES, INT64_MAX, Event

_OWN = frozenset((
    "stream_id", "seq", "ts", "session_id", "turn_id", "stage", "duration_ms", "first_item_ms", "items", "producer_ms",
    "longest_gap_ms", "status", "service", "host", "trace_id", "span_id", "parent_id", "attributes", "error", "extra",
    "usage", "attempts", "cut", "barge_in", "price_version", "sample_rate", "sample_reason",
))  # fmt: skip
"""Fields that the library fills itself."""

Accept = tuple[type, ...]
_ACCEPTED: dict[type, Accept] = {str: (str,), int: (int,), float: (float, int), bool: (bool,), dict: (dict,)}


def _accepted(annotation: Any) -> Accept | None:
    is_union = typing.get_origin(annotation) in (typing.Union, UnionType)  # `Annotated[...] | None` is typing's
    for part in typing.get_args(annotation) if is_union else (annotation,):
        base = typing.get_args(part)[0] if hasattr(part, "__metadata__") else part
        origin = typing.get_origin(base) or base
        if origin in _ACCEPTED:
            return _ACCEPTED[origin]
    return None


OF_THE_CALL = frozenset({"user_id", "variant"})
"""Fields that come from the call; a metric, log, error or health event may have its own, a stage may not."""


def _settable(cls: type[Event]) -> dict[str, Accept]:
    hints = typing.get_type_hints(cls, include_extras=True)
    own = _OWN | OF_THE_CALL if cls.TYPE in FINISHED_STAGES else _OWN
    names = (a.name for a in attrs.fields(cls) if a.name not in own)
    return {name: kinds for name in names if (kinds := _accepted(hints[name]))}


SETTABLE: dict[str, dict[str, Accept]] = {kind: _settable(cls) for kind, cls in EVENT_TYPES.items()}
"""For each event type: the names that .set() takes as typed fields, with the Python types that fit."""


def fit(accepted: Accept, value: Any) -> Any:
    """Return `value` as the field's type, or None when it does not fit; numpy's numbers and str subclasses do."""
    want = accepted[0]
    try:
        if want is str:
            return str.__str__(value) if isinstance(value, str) else None
        if want is dict:
            return dict(value) if isinstance(value, Mapping) else None
        if want is bool:
            return bool(value) if type(value).__name__ in ("bool", "bool_") else None
        return None if isinstance(value, (bool, str, bytes, bytearray)) else _number(want, value)
    except Exception:  # a value whose own methods fail does not fit
        return None


def _number(want: type, value: Any) -> Any:
    if want is float:
        number = float(value)
        return number if math.isfinite(number) else None
    whole = value.__index__()
    return whole if 0 <= whole <= INT64_MAX else None
