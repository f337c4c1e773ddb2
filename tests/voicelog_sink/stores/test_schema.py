"""The sentences about a schema that is not as it should be."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from voicelog_sink.stores.base import Difference
from voicelog_sink.stores.schema import INIT, REBUILD, Shape, differences

CALLS = Shape(
    kind="table",
    name="calls",
    columns={"id": "text", "ts": "timestamp", "turns": "bigint"},
    partition_key=("id",),
    clustering=("ts",),
    descending=("ts",),
    indexes={"calls_turns": "turns"},
    options={"gc_grace_seconds": "864000"},
)


def test_schema_as_it_should_be_has_no_differences() -> None:
    assert differences([CALLS], {"calls": CALLS, "other": CALLS}) == []


def test_more_than_is_needed_is_left_alone() -> None:
    more = attrs.evolve(CALLS, columns={**CALLS.columns, "own": "text"}, indexes={**CALLS.indexes, "own": "own"})
    assert differences([CALLS], {"calls": more}) == []


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ({"columns": {"id": "text", "ts": "timestamp"}}, "column turns (bigint) is missing", INIT),
        ({"columns": {**CALLS.columns, "turns": "int"}}, "column turns is int instead of bigint", REBUILD),
        ({"partition_key": ("id", "ts"), "clustering": ()}, "its key is ((id, ts)) instead of ((id), ts)", REBUILD),
        (
            {"descending": ()},
            "its rows are ordered ascending instead of descending by ts",
            REBUILD,
        ),
        ({"indexes": {}}, "index calls_turns on turns is missing", INIT),
        ({"indexes": {"calls_turns": "id"}}, "index calls_turns is on id instead of turns", INIT),
        ({"options": {"gc_grace_seconds": "1"}}, "gc_grace_seconds is 1 instead of 864000", INIT),
        ({"options": {}}, "gc_grace_seconds is not set instead of 864000", INIT),
        ({"base": "else"}, "it is a view of else instead of ", REBUILD),
    ],
)
def test_each_difference_is_named_with_its_remedy(changes: dict[str, Any], what: str, remedy: str) -> None:
    live = attrs.evolve(CALLS, **changes)
    assert differences([CALLS], {"calls": live}) == [Difference(f"table calls: {what}", remedy)]


def test_missing_table_and_one_that_is_a_view_are_named() -> None:
    missing = [Difference("table calls is missing", INIT)]
    assert differences([CALLS], {}) == missing
    assert differences([CALLS], {"calls": attrs.evolve(CALLS, kind="view")}) == missing
