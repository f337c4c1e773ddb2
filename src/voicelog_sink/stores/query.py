"""What a `select` asks for, worked out once for both stores. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import attrs

from voicelog_sink.tables import BOOL, TABLES, TEXT, TIME, VIEWS, Table, View

EQUAL, AT_LEAST, HAS = "=", ">=", "has"
OPERATORS = (EQUAL, AT_LEAST, HAS)
"""Of the conditions that a caller sets: see Store.select."""
FORMS = 1024
"""Queries that are kept."""

Condition = tuple[str, str, Any]
"""Column, operator, value."""


@attrs.frozen(kw_only=True, eq=False)
class Query:
    """What is asked of each partition, without the values: the columns, the conditions, the order.

    The first `keys` of the conditions are the whole partition key, none where an index finds the rows. `filters` are
    those, the last ones, that no key or index answers. It is the same object for the same question, so that what is
    made of it can be kept.
    """

    source: str
    columns: Mapping[str, str]
    conditions: tuple[tuple[str, str], ...]
    filters: tuple[tuple[str, str], ...]
    order: tuple[str, ...]
    descending: tuple[str, ...]
    is_limited: bool
    keys: int


class Plan(NamedTuple):
    """A query for one partition: `values` are those of its conditions, in their order."""

    query: Query
    values: tuple[Any, ...]
    limit: int | None


def plan(
    source: str,
    partition: Mapping[str, Any],
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    limit: int | None = None,
    names: Sequence[str] | None = None,
    where: Sequence[Condition] = (),
) -> Plan:
    """Return the query for one partition, of the columns `names`, or all of them.

    Raises ValueError for a source, column, condition or bound that can't be asked for.
    """
    bounds = tuple(operator for operator, value in ((">=", since_ms), ("<", until_ms)) if value is not None)
    chosen = None if names is None else tuple(names)
    filters = tuple((name, operator) for name, operator, _ in where)
    query = _query(source, tuple(partition), bounds, filters, chosen, limit is not None)
    times = (value for value in (since_ms, until_ms) if value is not None)
    return Plan(query, (*partition.values(), *times, *(value for _, _, value in where)), limit)


@lru_cache(maxsize=FORMS)
def _query(
    source: str,
    partition: tuple[str, ...],
    bounds: tuple[str, ...],
    filters: tuple[tuple[str, str], ...],
    names: tuple[str, ...] | None,
    is_limited: bool,
) -> Query:
    relation = relation_of(source)
    columns = columns_of(relation)
    indexed = _indexed(relation, partition)
    first = _ordered_by_time(relation, columns) if bounds else ""
    _check_filters(source, columns, filters)
    keys = tuple((name, EQUAL) for name in partition)
    return Query(
        source=source,
        columns=columns if names is None else _chosen(source, columns, names),
        conditions=(*keys, *((first, operator) for operator in bounds), *filters),
        filters=filters,
        order=() if indexed else relation.clustering,
        descending=relation.descending if isinstance(relation, Table) else (),
        is_limited=is_limited,
        keys=0 if indexed else len(partition),
    )


def as_stored(source: str, names: Sequence[str]) -> Sequence[str]:
    """Return `names`, columns whose values are given as the store has them; raises ValueError for another column."""
    columns = columns_of(relation_of(source))
    for name in names:
        if columns.get(name, TIME) in (TIME, BOOL):
            message = f"{source}: {name!r} is no column whose values are the same in every store"
            raise ValueError(message)
    return names


def row_key(source: str) -> str | None:
    """Return the column that is the whole key of the source's rows, None where the key has more."""
    relation = relation_of(source)
    return relation.partition_key[0] if len(relation.partition_key) == 1 and not relation.clustering else None


def text_key(source: str, names: Sequence[str]) -> str:
    """Return the partition key, one column; raises ValueError for a key of more, and for `names` without texts."""
    relation = relation_of(source)
    columns = columns_of(relation)
    wrong = [name for name in names if columns.get(name) != TEXT]
    if wrong or len(relation.partition_key) != 1:
        what = f"{wrong[0]!r} is no column of texts" if wrong else "its partition key is of several columns"
        message = f"{source}: {what}: its texts can't be read"
        raise ValueError(message)
    return relation.partition_key[0]


def _chosen(source: str, columns: Mapping[str, str], names: Sequence[str]) -> Mapping[str, str]:
    missing = [name for name in names if name not in columns]
    if missing:
        message = f"{source} has no column {missing[0]!r}"
        raise ValueError(message)
    return {name: columns[name] for name in names}


def _check_filters(source: str, columns: Mapping[str, str], filters: Sequence[tuple[str, str]]) -> None:
    for name, operator in filters:
        if operator not in OPERATORS or name not in columns or (operator == HAS and columns[name] != TEXT):
            message = f"{source}: {name!r} {operator} is no condition; expected a column, and {', '.join(OPERATORS)}"
            raise ValueError(message)


def relation_of(source: str) -> Table | View:
    """Return the table or view of that name; raises ValueError."""
    relation = TABLES.get(source) or VIEWS.get(source)
    if relation is None:
        message = f"{source!r} is no table or view; expected one of {', '.join([*TABLES, *VIEWS])}"
        raise ValueError(message)
    return relation


def columns_of(relation: Table | View) -> Mapping[str, str]:
    """Return every column with its type."""
    if isinstance(relation, Table):
        return relation.columns
    base = TABLES[relation.table].columns
    return {name: base[name] for name in relation.columns}


def _indexed(relation: Table | View, partition: Sequence[str]) -> bool:
    """Return whether the partition is given by an indexed column."""
    if set(partition) == set(relation.partition_key):
        return False
    indexes = relation.indexes if isinstance(relation, Table) else ()
    if len(partition) == 1 and partition[0] in indexes:
        return True
    choices = " or ".join(["(" + ", ".join(relation.partition_key) + ")", *indexes])
    message = f"{relation.name}: a partition is given by {choices}, not by ({', '.join(partition)})"
    raise ValueError(message)


def _ordered_by_time(relation: Table | View, columns: Mapping[str, str]) -> str:
    """Return the first clustering column, a TIME; raises ValueError where it is none."""
    first = relation.clustering[0] if relation.clustering else ""
    if columns.get(first) != TIME:
        message = f"{relation.name} is not ordered by time: since_ms and until_ms can't bound it"
        raise ValueError(message)
    return first
