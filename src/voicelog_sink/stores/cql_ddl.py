# ruff: noqa: S608 - names come from tables.py and a checked URL alone, values are bound
"""CQL's form of the tables: statements, what a complete keyspace holds, and the keyspace itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from voicelog_sink.stores.base import StoreMisconfigured
from voicelog_sink.stores.lifetime import lifetime_ms
from voicelog_sink.stores.query import FORMS, HAS, Query
from voicelog_sink.stores.schema import Shape
from voicelog_sink.tables import DERIVED_PENDING, TABLES, VIEWS, Life, Table

GC_GRACE_S = 864_000
"""Ten days: what `forget` deletes must not come back from a replica that was down."""
QUEUE_GC_GRACE_S = 3_600
"""Of the table that is a queue: there a deleted row that comes back does no harm, and ten days of tombstones do."""
WINDOWS = 30
"""Time windows that a table's lifetime is cut into; ScyllaDB refuses more than 50."""
VIEW = "materialized view"
SCHEMA_MIGRATIONS = "schema_migrations"


def window_days(ttl_days: int) -> int:
    """Return the length of a compaction window: 3 days for 90, never below."""
    return max(3, -(-ttl_days // WINDOWS))


def placeholders(keyspace: str, ttl_days: int) -> dict[str, str]:
    """Return what the placeholders of the cql files stand for."""
    return {
        "keyspace": quoted(keyspace),
        "ttl_seconds": str(ttl_days * 86_400),
        "window_days": str(window_days(ttl_days)),
    }


def quoted(name: str) -> str:
    """Return a name as CQL's identifier."""
    return f'"{name}"'


def listed(names: Iterable[str]) -> str:
    """Return the names as identifiers with commas between."""
    return ", ".join(map(quoted, names))


def create_keyspace(keyspace: str, replication: Mapping[str, int], *, scylla: bool) -> str:
    """Return CREATE KEYSPACE; on ScyllaDB without tablets, which its materialized views do not go with."""
    factors = "".join(f", '{dc}': {factor}" for dc, factor in replication.items())
    tablets = " AND tablets = {'enabled': false}" if scylla else ""
    strategy = f"{{'class': 'NetworkTopologyStrategy'{factors}}}"
    return f"CREATE KEYSPACE IF NOT EXISTS {quoted(keyspace)} WITH replication = {strategy}{tablets}"


def replication(setting: str, local_dc: str) -> dict[str, int]:
    """Return the factor of each datacenter: '3' is for `local_dc`, 'dc1:3,dc2:3' names them; or StoreMisconfigured."""
    pairs = [part.strip().rpartition(":") for part in setting.split(",")]
    factors = {dc.strip() or local_dc: factor.strip() for dc, _, factor in pairs}
    named = all(dc for dc, _, _ in pairs) or len(pairs) == 1
    if not named or len(factors) != len(pairs) or not all(f.isdecimal() and int(f) for f in factors.values()):
        message = f"VOICELOG_CQL_REPLICATION is {setting!r}: expected a factor such as 3, or dc1:3,dc2:3"
        raise StoreMisconfigured(message)
    if any("'" in dc for dc in factors):
        message = f"VOICELOG_CQL_REPLICATION is {setting!r}: a datacenter's name has no quotes"
        raise StoreMisconfigured(message)
    return {dc: int(factor) for dc, factor in factors.items()}


def has_ttl(table: Table) -> bool:
    """Say whether the table's rows expire."""
    return lifetime_ms(table, 1) is not None


def insert(keyspace: str, table: Table, names: Sequence[str] = ()) -> str:
    """Return the statement that writes one row: a marker for each of its columns, the version as timestamp, the TTL.

    `names` are the columns, all of them by default.
    """
    names = names or tuple(table.columns)
    using = [*(["TIMESTAMP ?"] if table.version else []), *(["TTL ?"] if has_ttl(table) else [])]
    markers = ", ".join("?" * len(names))
    head = f"INSERT INTO {quoted(keyspace)}.{quoted(table.name)} ({listed(names)}) VALUES ({markers})"
    return head + (" USING " + " AND ".join(using) if using else "")


def update(keyspace: str, table: Table, names: Sequence[str]) -> str:
    """Return the statement that writes columns outside of the key, and makes no row: timestamp, TTL, columns, key."""
    using = " AND ".join([*(["TIMESTAMP ?"] if table.version else []), *(["TTL ?"] if has_ttl(table) else [])])
    changes = ", ".join(f"{quoted(name)} = ?" for name in names)
    where = " AND ".join(f"{quoted(name)} = ?" for name in table.key)
    return f"UPDATE {quoted(keyspace)}.{quoted(table.name)} USING {using} SET {changes} WHERE {where}"


def write(keyspace: str, table: Table, names: Sequence[str]) -> str:
    """Return the statement that writes these columns: `insert` where the key is among them, else `update`."""
    return (insert if table.key[0] in names else update)(keyspace, table, names)


def delete(keyspace: str, table: Table, columns: Sequence[str] = ()) -> str:
    """Return the statement that deletes one row by its key, or these columns of it.

    Its timestamp is the present, above every version, so that an erasure outranks every recompute.
    """
    where = " AND ".join(f"{quoted(name)} = ?" for name in table.key)
    which = f"{listed(columns)} " if columns else ""
    return f"DELETE {which}FROM {quoted(keyspace)}.{quoted(table.name)} WHERE {where}"


@lru_cache(maxsize=FORMS)
def select(keyspace: str, query: Query, together: str | None = None) -> str:
    """Return the statement for one partition, its conditions in order; clustering order is the table's own.

    `together` is a key column of which a list is given, for several partitions, each with the limit; then it comes
    last of the columns.
    CQL has no operator for `has`: those columns come after the others, and whoever reads looks through them. Filtering
    is allowed for the others since it stays within one partition, or the rows that an index has found.
    """
    asked = [(name, operator) for name, operator in query.conditions if operator != HAS]
    looked_through = [name for name, operator in query.filters if operator == HAS]
    where = " AND ".join(f"{quoted(name)} {'IN' if name == together else operator} ?" for name, operator in asked)
    limit = f" {'PER PARTITION ' if together else ''}LIMIT ?" if has_limit(query) else ""
    filtering = " ALLOW FILTERING" if len(query.filters) > len(looked_through) else ""
    columns = listed([*query.columns, *looked_through, *([together] if together else [])])
    return f"SELECT {columns} FROM {quoted(keyspace)}.{quoted(query.source)} WHERE {where}{limit}{filtering}"


def has_limit(query: Query) -> bool:
    """Say whether the database limits the rows: not where whoever reads leaves some out."""
    return query.is_limited and all(operator != HAS for _, operator in query.filters)


def partitions(keyspace: str, table: Table) -> str:
    """Return the statement that reads every partition key."""
    return f"SELECT DISTINCT {listed(table.partition_key)} FROM {quoted(keyspace)}.{quoted(table.name)}"


def add_column(keyspace: str, table: str, name: str, kind: str) -> str:
    """Return ALTER TABLE for a column that is missing."""
    return f"ALTER TABLE {quoted(keyspace)}.{quoted(table)} ADD {quoted(name)} {kind}"


def set_options(keyspace: str, expected: Shape, ttl_days: int) -> str:
    """Return ALTER for compaction and gc_grace that are not as they should be."""
    compaction = {"class": expected.options["compaction"].partition(",")[0]}
    if "," in expected.options["compaction"]:
        compaction |= {"compaction_window_unit": "DAYS", "compaction_window_size": str(window_days(ttl_days))}
    pairs = ", ".join(f"'{name}': '{value}'" for name, value in compaction.items())
    grace = expected.options["gc_grace_seconds"]
    kind = expected.kind.upper()
    target = f"{quoted(keyspace)}.{quoted(expected.name)}"
    return f"ALTER {kind} {target} WITH compaction = {{{pairs}}} AND gc_grace_seconds = {grace}"


def expected(ttl_days: int) -> list[Shape]:
    """Return what a complete keyspace holds."""
    tables = [
        Shape(
            kind="table",
            name=t.name,
            columns=t.columns,
            partition_key=t.partition_key,
            clustering=t.clustering,
            descending=t.descending,
            indexes={f"{t.name}_{column}": column for column in t.indexes},
            options=_options(t, ttl_days),
        )
        for t in TABLES.values()
    ]
    views = [
        Shape(
            kind=VIEW,
            name=v.name,
            columns={name: TABLES[v.table].columns[name] for name in v.columns},
            partition_key=v.partition_key,
            clustering=v.clustering,
            options=_options(TABLES[v.table], ttl_days),
            base=v.table,
        )
        for v in VIEWS.values()
    ]
    return tables + views


def _options(table: Table, ttl_days: int) -> dict[str, str]:
    windows = f"TimeWindowCompactionStrategy, {window_days(ttl_days)} DAYS"
    compaction = windows if table.life is Life.APPENDED else "LeveledCompactionStrategy"
    grace = QUEUE_GC_GRACE_S if table is DERIVED_PENDING else GC_GRACE_S
    return {"compaction": compaction, "gc_grace_seconds": str(grace)}
