"""A question to a store, and the CQL that asks it. What the statements answer is in tests/contracts."""

from __future__ import annotations

from typing import Any

import pytest

from voicelog_sink.stores.cql_ddl import select
from voicelog_sink.stores.query import plan

PARTITION = {"day": "2026-11-22", "shard": 3}
HEAD = 'FROM "k"."sessions_by_day" WHERE "day" = ? AND "shard" = ? AND "started_at" >= ?'


@pytest.mark.parametrize(
    ("where", "statement"),
    [
        ([], f'SELECT "session_id" {HEAD} LIMIT ?'),
        ([("errors", ">=", 1)], f'SELECT "session_id" {HEAD} AND "errors" >= ? LIMIT ? ALLOW FILTERING'),
        ([("models", "has", "x")], f'SELECT "session_id", "models" {HEAD}'),
        (
            [("models", "has", "x"), ("service", "=", "a")],
            f'SELECT "session_id", "models" {HEAD} AND "service" = ? ALLOW FILTERING',
        ),
    ],
)
def test_cql_is_asked_for_what_it_can_tell_and_for_what_the_rest_is_told_by(where: Any, statement: str) -> None:
    asked = plan("sessions_by_day", PARTITION, since_ms=5, limit=2, names=["session_id"], where=where)
    assert select("k", asked.query) == statement
    assert asked.values == ("2026-11-22", 3, 5, *(value for _, _, value in where))


def test_same_question_is_the_same_query_whatever_its_values() -> None:
    one = plan("sessions_by_day", PARTITION, until_ms=5, where=[("errors", ">=", 1)])
    other = plan("sessions_by_day", {"day": "", "shard": 0}, until_ms=6, where=[("errors", ">=", 2)])
    assert one.query is other.query
    assert one.query is not plan("sessions_by_day", PARTITION, since_ms=5, where=[("errors", ">=", 1)]).query
