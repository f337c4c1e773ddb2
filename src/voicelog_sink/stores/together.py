"""Which partitions one request asks for, and whose of them each row is: CQL's `IN`. Pure.

A request costs more than a small answer does, on both sides. So partitions that are single rows, or of which some rows
at most are wanted, are asked for together. The node that is asked then asks the others: that is no way for large
partitions, which go one by one, each to a node that has it.

Such an answer comes whole and not in pages. With pages Cassandra reads one partition after the other (5.0, by its
MultiPartitionPager), and ScyllaDB takes the page's size for the limit of each partition and drops the rest itself
(scylladb issues 14242 and 14980). Where rows are left out by a filter the partitions go one by one too: nobody knows
how much has to be read, and together they would have one timeout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from voicelog_sink.stores.query import HAS, Plan, Query, relation_of, row_key

MOST = 16
"""Partitions of one request. ScyllaDB takes 100 of them and Cassandra's guardrail, where it is set, 25 by default."""
FEW = 100
"""Rows of each partition, at most, that are asked for together: all of an answer's are held."""

Tuple = tuple[Any, ...]


class Together(NamedTuple):
    """Plans of one query that differ in one key column at most: the condition at `place`, None for a plan alone."""

    plans: list[Plan]
    place: int | None = None

    @property
    def query(self) -> Query:
        """What is asked of each of the partitions."""
        return self.plans[0].query

    @property
    def column(self) -> str | None:
        """The key column in which they differ."""
        return None if self.place is None else self.query.conditions[self.place][0]

    @property
    def values(self) -> list[Any]:
        """The values of the query's conditions, those that differ as a list; without what CQL has no operator for."""
        first = self.plans[0]
        pairs = zip(first.query.conditions, first.values, strict=True)
        values = [value for (_, operator), value in pairs if operator != HAS]
        if self.place is not None:
            values[self.place] = list(dict.fromkeys(plan.values[self.place] for plan in self.plans))
        return values

    @property
    def is_whole(self) -> bool:
        """Whether the answer is to come whole: it is known to be small."""
        return self.place is not None and _is_small(self.plans[0])

    def told_apart(self, rows: Iterator[Tuple]) -> Iterator[tuple[Plan, Iterator[Tuple]]]:
        """Yield each plan with its rows, which end in the column in which the plans differ, where there is one."""
        place = self.place
        if place is None:
            yield self.plans[0], rows
            return
        found: defaultdict[Any, list[Tuple]] = defaultdict(list)
        for row in rows:
            found[row[-1]].append(row[:-1])
        for plan in self.plans:
            yield plan, iter(found.get(plan.values[place], ()))


def together(plans: Iterable[Plan], *, small: bool = False) -> Iterator[Together]:
    """Yield the plans in their order, neighbours together where that can be; `small` says that every partition is."""
    some: list[Plan] = []
    place: int | None = None
    for plan in plans:
        differs = _differs(some[-1], plan) if some and len(some) < MOST else None
        if differs is not None and place in (None, differs) and (small or _is_small(plan)):
            some.append(plan)
            place = differs
            continue
        if some:
            yield Together(some, place)
        some, place = [plan], None
    if some:
        yield Together(some, place)


def _is_small(plan: Plan) -> bool:
    """Return whether each partition is a row, or some rows at most are wanted of it and none is left out."""
    query, limit = plan.query, plan.limit
    if row_key(query.source) is not None:
        indexes = getattr(relation_of(query.source), "indexes", ())
        return all(name not in indexes for name, _ in query.filters)  # CQL has no IN beside an indexed column
    return limit is not None and limit <= FEW and not query.filters


def _differs(one: Plan, other: Plan) -> int | None:
    """Return the place of the only value that differs, if that is one of the partition key's.

    An empty text is no key that a database takes, and would be no answer for its neighbours.
    """
    if one.query is not other.query or one.limit != other.limit:
        return None
    places = [place for place, pair in enumerate(zip(one.values, other.values, strict=True)) if pair[0] != pair[1]]
    if len(places) != 1 or places[0] >= one.query.keys:
        return None
    return None if "" in (one.values[places[0]], other.values[places[0]]) else places[0]
