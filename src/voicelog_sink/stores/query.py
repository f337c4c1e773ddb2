"""What a `select` asks for, worked out once for both stores. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from voicelog_sink.tables import BOOL, TABLES, TIME, VIEWS, Table, View

Condition = tuple[str, str, Any]
"""Column, operator, value."""


@attrs.frozen(kw_only=True)
class Query:
    """One partition's rows: the columns, the conditions, the order."""

    source: str
    columns: Mapping[str, str]
    conditions: tuple[Condition, ...]
    order: tuple[str, ...]
    descending: tuple[str, ...]
    limit: int | None


def plan(
    source: str,
    partition: Mapping[str, Any],
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    limit: int | None = None,
    names: Sequence[str] | None = None,
) -> Query:
    """Return the query for one partition, of the columns `names`, or all of them.

    Raises ValueError for a source, column or bound that can't be asked for.
    """
    relation = relation_of(source)
    columns = columns_of(relation)
    indexed = _indexed(relation, partition)
    bounds = _bounds(relation, columns, since_ms, until_ms)
    return Query(
        source=source,
        columns=columns if names is None else _chosen(source, columns, names),
        conditions=(*((name, "=", value) for name, value in partition.items()), *bounds),
        order=() if indexed else relation.clustering,
        descending=relation.descending if isinstance(relation, Table) else (),
        limit=limit,
    )


def _chosen(source: str, columns: Mapping[str, str], names: Sequence[str]) -> Mapping[str, str]:
    """Return the columns `names`, which are given to the caller as the store has them."""
    for name in names:
        if columns.get(name, TIME) in (TIME, BOOL):
            message = f"{source}: {name!r} is no column whose values are the same in every store"
            raise ValueError(message)
    return {name: columns[name] for name in names}


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


def _indexed(relation: Table | View, partition: Mapping[str, Any]) -> bool:
    """Return whether the partition is given by an indexed column."""
    if set(partition) == set(relation.partition_key):
        return False
    indexes = relation.indexes if isinstance(relation, Table) else ()
    if len(partition) == 1 and next(iter(partition)) in indexes:
        return True
    choices = " or ".join(["(" + ", ".join(relation.partition_key) + ")", *indexes])
    message = f"{relation.name}: a partition is given by {choices}, not by ({', '.join(partition)})"
    raise ValueError(message)


def _bounds(
    relation: Table | View, columns: Mapping[str, str], since_ms: int | None, until_ms: int | None
) -> list[Condition]:
    bounds = [(">=", since_ms), ("<", until_ms)]
    given = [(operator, value) for operator, value in bounds if value is not None]
    first = relation.clustering[0] if relation.clustering else ""
    if given and columns.get(first) != TIME:
        message = f"{relation.name} is not ordered by time: since_ms and until_ms can't bound it"
        raise ValueError(message)
    return [(first, operator, value) for operator, value in given]
