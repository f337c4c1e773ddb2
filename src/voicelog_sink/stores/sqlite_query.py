# ruff: noqa: S608 - names come from tables.py alone, values are bound
"""Reading from SQLite: the statements, and their rows as every store gives them. Takes `execute`, imports no driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from voicelog_sink.stores.base import Values
from voicelog_sink.stores.ddl import quote, quoted
from voicelog_sink.stores.query import FORMS, HAS, Plan, Query, text_key
from voicelog_sink.tables import BOOL

Run = Callable[..., Any]
"""sqlite3.Connection.execute."""

TEXTS_AT_ONCE = 256
"""Partitions whose texts are read by one statement: one each costs twice as much."""


def tuples(run: Run, plan: Plan) -> Iterable[tuple[Any, ...]]:
    """Return the rows as they are."""
    limit = () if plan.limit is None else (plan.limit,)
    found: Iterable[tuple[Any, ...]] = run(_select(plan.query), (*plan.values, *limit))
    return found


def rows(run: Run, plan: Plan) -> Iterator[Values]:
    """Yield the rows, a BOOL as one."""
    columns = plan.query.columns
    booleans = [name for name, kind in columns.items() if kind == BOOL]
    for row in tuples(run, plan):
        values = dict(zip(columns, row, strict=True))
        for name in booleans:
            if values[name] is not None:
                values[name] = bool(values[name])
        yield values


def texts(run: Run, source: str, names: Sequence[str], partitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each partition's texts as one."""
    key, waiting = text_key(source, names), iter(partitions)
    while some := [partition[key] for partition in islice(waiting, TEXTS_AT_ONCE)]:
        found = dict(run(_texts(source, key, tuple(names), len(some)), some))
        yield from (found.get(each, "") for each in some)


@lru_cache(maxsize=FORMS)
def _select(query: Query) -> str:
    order = ", ".join(quote(name) + (" DESC" if name in query.descending else "") for name in query.order)
    where = " AND ".join(_condition(name, operator) for name, operator in query.conditions)
    sql = f"SELECT {quoted(query.columns)} FROM {quote(query.source)} WHERE {where}"
    return sql + (order and f" ORDER BY {order}") + (" LIMIT ?" if query.is_limited else "")


def _condition(name: str, operator: str) -> str:
    return f"instr({quote(name)}, ?) > 0" if operator == HAS else f"{quote(name)} {operator} ?"


@lru_cache(maxsize=FORMS)
def _texts(source: str, key: str, names: tuple[str, ...], count: int) -> str:
    """Return the statement that joins the texts of `count` partitions, each column's rows first."""
    joined = " || char(0) || ".join(f"coalesce(group_concat({quote(name)}, char(0)), '')" for name in names)
    places = ", ".join("?" * count)
    select = f"SELECT {quote(key)}, {joined} FROM {quote(source)}"
    return f"{select} WHERE {quote(key)} IN ({places}) GROUP BY {quote(key)}"
