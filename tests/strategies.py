"""Hypothesis strategies: any event that a sink could decode."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

from voicelog.events import (
    ANCHORS,
    EVENT_TYPES,
    INT64_MAX,
    QUALITIES,
    STATUSES,
    TS_MAX_US,
    TS_MIN_US,
    Attempt,
    BargeIn,
    Contribution,
    ErrorInfo,
    Event,
    Figure,
    required_fields,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, INT64_MAX)
moments = st.integers(TS_MIN_US, TS_MAX_US - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
errors = st.builds(ErrorInfo, type=texts, message=texts, stack=st.none() | texts)
figures = st.builds(
    Figure,
    value_ms=st.none() | numbers,
    quality=st.sampled_from(QUALITIES),
    anchor=st.none() | st.sampled_from(ANCHORS),
)
attempts = st.builds(
    Attempt, provider=st.none() | texts, model=st.none() | texts, start_ms=st.none() | numbers,
    duration_ms=st.none() | numbers, status=st.sampled_from(STATUSES), error=st.none() | errors,
)  # fmt: skip
barge_ins = st.builds(
    BargeIn, onset_us=moments, stop_us=st.none() | moments, stop_ms=st.none() | numbers,
    synthesised_characters=st.none() | counts, played_characters=st.none() | counts,
    synthesised_audio_ms=st.none() | numbers, played_audio_ms=st.none() | numbers, wasted_usd=st.none() | numbers,
)  # fmt: skip
contributions = st.builds(Contribution, key=texts, us=counts, owner=texts, stage=st.none() | texts)

BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "ts": moments,
    "seq": counts,
    "session_id": names,
    "attributes": json_objects,
    "parameters": json_objects,
    "extra": st.dictionaries(names.map(lambda name: f"new_{name}"), json_values, min_size=1, max_size=2),
    "usage": st.dictionaries(texts, numbers, max_size=3),
    "error": errors,
    "marks": st.dictionaries(texts, moments, max_size=3),
    "contributions": st.lists(contributions, max_size=3),
    "figures": st.dictionaries(texts, figures, max_size=3),
    "attempts": st.lists(attempts, max_size=3),
    "barge_in": barge_ins,
    "cut": st.dictionaries(texts, counts, max_size=3),
    "status": st.sampled_from(STATUSES),
    "level": st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "NOTICE"]),
    "is_final": st.booleans(),
    "was_interrupted": st.booleans(),
}
BY_TYPE = (("bool", st.booleans()), ("int", counts), ("Count", counts), ("float", numbers), ("Name", names))


def _of(field: attrs.Attribute[Any], required: bool) -> st.SearchStrategy[Any]:
    annotation = str(field.type)
    by_type = next((strategy for kind, strategy in BY_TYPE if annotation.startswith(kind)), names)
    strategy = BY_NAME.get(field.name, by_type)
    return strategy if required else st.none() | strategy


def events_of(cls: type[Event], **fixed: Any) -> st.SearchStrategy[Event]:
    """Return events of one class; `fixed` are strategies for fields."""
    required = required_fields(cls)
    chosen = {f.name: fixed.get(f.name, _of(f, f.name in required)) for f in attrs.fields(cls)}
    return st.builds(cls, **chosen)


def events(**fixed: Any) -> st.SearchStrategy[Event]:
    """Return events of every class."""
    return st.one_of([events_of(cls, **fixed) for cls in EVENT_TYPES.values()])
