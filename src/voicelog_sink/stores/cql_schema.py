# ruff: noqa: S608 - names come from tables.py and a checked URL alone, values are bound
"""CQL's live schema: reading it, completing it. Takes a function that runs a statement, imports no driver."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from voicelog_sink.stores import cql_ddl
from voicelog_sink.stores.base import Difference, StoreMisconfigured
from voicelog_sink.stores.cql_files import Migration, migrations
from voicelog_sink.stores.schema import INIT, Shape, differences, missing_columns

Run = Callable[..., Sequence[Any]]
"""Runs a statement with `%s` markers and a tuple of values; returns the rows, columns as attributes."""


@attrs.frozen
class Keyspace:
    """The keyspace that is wanted, and how to talk to the server about it."""

    run: Run
    name: str
    ttl_days: int
    replication: str
    local_dc: str | None
    now_ms: Callable[[], int]


def is_scylla(run: Run) -> bool:
    """Say whether the server is ScyllaDB: it alone keeps a table `scylla_tables` beside the schema's own."""
    query = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s"
    return bool(run(query, ("system_schema", "scylla_tables")))


# --- init


def init(keyspace: Keyspace) -> list[str]:
    """Make the keyspace, apply what was not applied, put back what is missing; return what was done."""
    done = _make_keyspace(keyspace)
    shapes = live(keyspace.run, keyspace.name)
    applied = _applied(keyspace, shapes)
    for migration in migrations():
        if migration.version not in applied:
            _apply(keyspace, migration)
            done.append(f"applied cql/{migration.title}.cql")
    return done + _repair(keyspace)


def _make_keyspace(keyspace: Keyspace) -> list[str]:
    run = keyspace.run
    if run("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s", (keyspace.name,)):
        return []
    local = keyspace.local_dc or run("SELECT data_center FROM system.local")[0].data_center
    factors = cql_ddl.replication(keyspace.replication, local)
    known = {row.data_center for row in run("SELECT data_center FROM system.peers")}
    known |= {row.data_center for row in run("SELECT data_center FROM system.local")}
    for dc in factors:
        if dc not in known:
            names = ", ".join(sorted(known))
            message = f"VOICELOG_CQL_REPLICATION names the datacenter {dc!r}: expected one of {names}"
            raise StoreMisconfigured(message)
    run(cql_ddl.create_keyspace(keyspace.name, factors, scylla=is_scylla(run)))
    return [f"made keyspace {keyspace.name} with {', '.join(f'{n} replicas in {dc}' for dc, n in factors.items())}"]


def _apply(keyspace: Keyspace, migration: Migration) -> None:
    """Run a file's statements, each of which does nothing where its work is done already, and record the file."""
    for statement in migration.statements(cql_ddl.placeholders(keyspace.name, keyspace.ttl_days)):
        keyspace.run(statement)
    table = f"{cql_ddl.quoted(keyspace.name)}.{cql_ddl.SCHEMA_MIGRATIONS}"
    keyspace.run(
        f"INSERT INTO {table} (version, name, checksum, applied_at) VALUES (%s, %s, %s, %s)",
        (migration.version, migration.name, migration.checksum, keyspace.now_ms()),
    )


def _repair(keyspace: Keyspace) -> list[str]:
    """Put back tables, views, columns, indexes and options that were applied once and are gone."""
    done: list[str] = []
    shapes = live(keyspace.run, keyspace.name)
    for expected in cql_ddl.expected(keyspace.ttl_days):
        there = shapes.get(expected.name)
        if there is None or any(name not in there.indexes for name in expected.indexes):
            _apply_again(keyspace, expected.name)
            done.append(f"put back {expected.kind} {expected.name}" + (" (its index)" if there else ""))
        if there is not None:
            done += _repair_table(keyspace, expected, there)
    return done


def _apply_again(keyspace: Keyspace, name: str) -> None:
    for migration in migrations():
        if migration.name == name:
            _apply(keyspace, migration)


def _repair_table(keyspace: Keyspace, expected: Shape, there: Shape) -> list[str]:
    done = []
    for name in missing_columns(expected, there) if expected.kind == "table" else []:
        keyspace.run(cql_ddl.add_column(keyspace.name, expected.name, name, expected.columns[name]))
        done.append(f"added column {name} to table {expected.name}")
    if expected.options != there.options:
        keyspace.run(cql_ddl.set_options(keyspace.name, expected, keyspace.ttl_days))
        done.append(f"set compaction and gc_grace of {expected.kind} {expected.name}")
    return done


# --- check


def check(keyspace: Keyspace) -> list[Difference]:
    """Return what the keyspace lacks, and the files that are not applied or were changed since."""
    run = keyspace.run
    if not run("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s", (keyspace.name,)):
        return [Difference(f"keyspace {keyspace.name} is missing", INIT)]
    shapes = live(run, keyspace.name)
    found = differences(cql_ddl.expected(keyspace.ttl_days), shapes)
    return found + _unapplied(_applied(keyspace, shapes))


def _unapplied(applied: Mapping[int, str]) -> list[Difference]:
    found = []
    for migration in migrations():
        title = f"cql/{migration.title}.cql"
        if migration.version not in applied:
            found.append(Difference(f"{title} is not applied", INIT))
        elif applied[migration.version] != migration.checksum:
            remedy = "put the file back as it was, and say the change in a file of its own"
            found.append(Difference(f"{title} was changed after it was applied", remedy))
    return found


def _applied(keyspace: Keyspace, shapes: Mapping[str, Shape]) -> dict[int, str]:
    """Return the checksum of every applied file, by its number."""
    if cql_ddl.SCHEMA_MIGRATIONS not in shapes:
        return {}
    table = f"{cql_ddl.quoted(keyspace.name)}.{cql_ddl.SCHEMA_MIGRATIONS}"
    return {row.version: row.checksum for row in keyspace.run(f"SELECT version, checksum FROM {table}")}


# --- reading


def live(run: Run, keyspace: str) -> dict[str, Shape]:
    """Return the keyspace's tables and views as they are."""

    def read(table: str) -> Sequence[Any]:
        return run(f"SELECT * FROM system_schema.{table} WHERE keyspace_name = %s", (keyspace,))

    columns: dict[str, list[Any]] = defaultdict(list)
    indexes: dict[str, dict[str, str]] = defaultdict(dict)
    for row in read("columns"):
        columns[row.table_name].append(row)
    for row in read("indexes"):
        indexes[row.table_name][row.index_name] = row.options["target"].strip('"')
    tables = [_shape("table", row, row.table_name, columns, indexes) for row in read("tables")]
    views = [_shape(cql_ddl.VIEW, row, row.view_name, columns, indexes) for row in read("views")]
    return {shape.name: shape for shape in tables + views}


def _shape(
    kind: str, row: Any, name: str, columns: Mapping[str, list[Any]], indexes: Mapping[str, dict[str, str]]
) -> Shape:
    own = sorted(columns[name], key=lambda column: column.position)
    clustering = [column for column in own if column.kind == "clustering"]
    return Shape(
        kind=kind,
        name=name,
        columns={column.column_name: column.type for column in own},
        partition_key=tuple(c.column_name for c in own if c.kind == "partition_key"),
        clustering=tuple(column.column_name for column in clustering),
        descending=tuple(c.column_name for c in clustering if c.clustering_order.lower() == "desc"),
        indexes=indexes[name],
        options={"compaction": _compaction(row.compaction), "gc_grace_seconds": str(row.gc_grace_seconds)},
        base=getattr(row, "base_table_name", ""),
    )


def _compaction(options: Mapping[str, str]) -> str:
    name = options["class"].rpartition(".")[2]
    size, unit = options.get("compaction_window_size"), options.get("compaction_window_unit", "DAYS")
    return f"{name}, {size} {unit}" if size else name
