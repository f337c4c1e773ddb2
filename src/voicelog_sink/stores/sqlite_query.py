# ruff: noqa: S608 - names come from tables.py alone, values are bound
"""Reading from SQLite: the statements, and their rows as every store gives them. Takes `execute`, imports no driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from voicelog_sink.stores.base import Values
from voicelog_sink.stores.ddl import quote, quoted
from voicelog_sink.stores.query import FORMS, HAS, Plan, Query, plan, row_key, text_key
from voicelog_sink.tables import BOOL

Run = Callable[..., Any]
"""sqlite3.Connection.execute."""

AT_ONCE = 256
"""Partitions that are read by one statement where that can be: one each costs twice as much."""


def select(run: Run, source: str, partitions: Iterable[Mapping[str, Any]], **asked: Any) -> Iterator[Values]:
    """Yield the rows, a BOOL as one; see Store."""
    for query, rows in _answers(run, source, partitions, asked):
        booleans = [name for name, kind in query.columns.items() if kind == BOOL]
        for row in rows:
            values = dict(zip(query.columns, row, strict=True))
            for name in booleans:
                if values[name] is not None:
                    values[name] = bool(values[name])
            yield values


def tuples(run: Run, source: str, partitions: Iterable[Mapping[str, Any]], **asked: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the rows as they are; see Store."""
    for _, rows in _answers(run, source, partitions, asked):
        yield from rows


def texts(run: Run, source: str, names: Sequence[str], partitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each partition's texts as one; see Store."""
    key, waiting = text_key(source, names), iter(partitions)
    while some := [partition[key] for partition in islice(waiting, AT_ONCE)]:
        found = dict(run(_texts(source, key, tuple(names), len(some)), some))
        yield from (found.get(each, "") for each in some)


def _answers(
    run: Run, source: str, partitions: Iterable[Mapping[str, Any]], asked: Mapping[str, Any]
) -> Iterator[tuple[Query, Iterable[tuple[Any, ...]]]]:
    """Yield the rows of each partition; where partitions are single rows, those of many."""
    waiting, key = iter(partitions), row_key(source)
    while some := list(islice(waiting, AT_ONCE)):
        if key and len(some) > 1 and all(key in partition for partition in some):
            plans = [plan(source, partition, **asked) for partition in some]
            yield plans[0].query, _gathered(run, key, plans)
        else:
            for partition in some:
                query, values, limit = plan(source, partition, **asked)
                yield query, run(_select(query), values if limit is None else (*values, limit))


def _gathered(run: Run, key: str, plans: Sequence[Plan]) -> list[tuple[Any, ...]]:
    """Return the rows of partitions that are single rows, in the order of the plans."""
    keys, conditions = [each.values[0] for each in plans], plans[0].values[1:]
    found = {row[-1]: row[:-1] for row in run(_gather(plans[0].query, key, len(keys)), (*keys, *conditions))}
    return [found[each] for each in keys if each in found]


@lru_cache(maxsize=FORMS)
def _gather(query: Query, key: str, count: int) -> str:
    columns, places = quoted([*query.columns, key]), ", ".join("?" * count)
    where = "".join(f" AND {_condition(name, operator)}" for name, operator in query.filters)
    return f"SELECT {columns} FROM {quote(query.source)} WHERE {quote(key)} IN ({places}){where}"


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
