"""Comparing a live schema with what it should be: both stores describe theirs as `Shape`s. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from voicelog_sink.stores.base import Difference

INIT = "voicelog-sink init --only store"
"""Needs no broker."""
REBUILD = f"export what it holds, drop it, and run {INIT}"


@attrs.frozen(kw_only=True)
class Shape:
    """A table or view as it is or should be; whatever a store can't tell stays empty on both sides."""

    kind: str
    name: str
    columns: Mapping[str, str]
    partition_key: tuple[str, ...] = ()
    clustering: tuple[str, ...] = ()
    descending: tuple[str, ...] = ()
    indexes: Mapping[str, str] = attrs.field(factory=dict)
    options: Mapping[str, str] = attrs.field(factory=dict)
    base: str = ""


def differences(expected: Iterable[Shape], live: Mapping[str, Shape]) -> list[Difference]:
    """Return every way in which `live` (by name) falls short of `expected`; what it has beyond that is left alone."""
    found: list[Difference] = []
    for shape in expected:
        there = live.get(shape.name)
        if there is None or there.kind != shape.kind:
            found.append(Difference(f"{shape.kind} {shape.name} is missing", INIT))
        else:
            found += [*_columns(shape, there), *_keys(shape, there), *_indexes(shape, there), *_options(shape, there)]
    return found


def missing_columns(expected: Shape, live: Shape) -> list[str]:
    """Return the columns that `live` lacks, in the expected order."""
    return [name for name in expected.columns if name not in live.columns]


def _columns(expected: Shape, live: Shape) -> list[Difference]:
    title = f"{expected.kind} {expected.name}"
    remedy = REBUILD if expected.kind == "materialized view" else INIT
    found = [
        Difference(f"{title}: column {name} ({expected.columns[name]}) is missing", remedy)
        for name in missing_columns(expected, live)
    ]
    for name, kind in expected.columns.items():
        if live.columns.get(name, kind) != kind:
            found.append(Difference(f"{title}: column {name} is {live.columns[name]} instead of {kind}", REBUILD))
    return found


def _keys(expected: Shape, live: Shape) -> list[Difference]:
    title = f"{expected.kind} {expected.name}"
    found = []
    if (expected.partition_key, expected.clustering) != (live.partition_key, live.clustering):
        found.append(Difference(f"{title}: its key is {_key(live)} instead of {_key(expected)}", REBUILD))
    elif expected.descending != live.descending:
        what = f"{title}: its rows are ordered {_order(live)} instead of {_order(expected)}"
        found.append(Difference(what, REBUILD))
    if expected.base != live.base:
        found.append(Difference(f"{title}: it is a view of {live.base} instead of {expected.base}", REBUILD))
    return found


def _key(shape: Shape) -> str:
    partition = f"({', '.join(shape.partition_key)})" if shape.partition_key else ""
    return "(" + ", ".join(filter(None, (partition, *shape.clustering))) + ")"


def _order(shape: Shape) -> str:
    names = ", ".join(shape.descending)
    return f"descending by {names}" if names else "ascending"


def _indexes(expected: Shape, live: Shape) -> list[Difference]:
    found = []
    for name, target in expected.indexes.items():
        title = f"{expected.kind} {expected.name}: index {name}"
        if name not in live.indexes:
            found.append(Difference(f"{title} on {target} is missing", INIT))
        elif live.indexes[name] != target:
            found.append(Difference(f"{title} is on {live.indexes[name]} instead of {target}", INIT))
    return found


def _options(expected: Shape, live: Shape) -> list[Difference]:
    title = f"{expected.kind} {expected.name}"
    return [
        Difference(f"{title}: {name} is {live.options.get(name, 'not set')} instead of {value}", INIT)
        for name, value in expected.options.items()
        if live.options.get(name) != value
    ]
