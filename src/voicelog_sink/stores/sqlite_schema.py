"""SQLite's live schema: reading it, and completing it. Takes the connection's `execute`, imports no driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voicelog_sink.stores import ddl
from voicelog_sink.stores.schema import Shape, differences, missing_columns
from voicelog_sink.tables import TABLES, VIEWS

Run = Callable[..., Any]
"""sqlite3.Connection.execute."""

SHOWN = 5
"""Tables of something else that are named."""


def complete_table(run: Run, expected: Shape) -> list[str]:
    """Make the table, its missing columns and its indexes; return what was done."""
    table, live, done = TABLES[expected.name], live_shape(run, expected), []
    if live is None:
        run(ddl.create_table(table))
        done.append(f"made table {table.name}")
    for name in missing_columns(expected, live) if live else []:
        run(ddl.add_column(table, name))
        done.append(f"added column {name} to table {table.name}")
    for name, target in expected.indexes.items():
        if live is None or live.indexes.get(name) != target:
            run(f"DROP INDEX IF EXISTS {ddl.quote(name)}")
            run(ddl.create_index(table, name))
            done.append(f"made index {name}")
    return done


def complete_view(run: Run, expected: Shape) -> list[str]:
    """Make the view anew unless it is as it should be; return what was done."""
    live = live_shape(run, expected)
    if live is not None and not differences([expected], {live.name: live}):
        return []
    run(f"DROP VIEW IF EXISTS {ddl.quote(expected.name)}")
    run(ddl.create_view(VIEWS[expected.name]))
    return [f"made view {expected.name}"]


def foreign_tables(run: Run) -> str:
    """Return the names of tables of something else, the first ones; nothing where voicelog's are there, or none is."""
    found = [
        name for (name,) in run("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")
    ]
    if not TABLES.keys().isdisjoint(found):
        return ""
    return ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")


def live_shape(run: Run, expected: Shape) -> Shape | None:
    """Return the table or view as it is in the file, None where it is not."""
    found = run("SELECT type, sql FROM sqlite_schema WHERE name = ?", (expected.name,)).fetchone()
    if found is None:
        return None
    kind, sql = found
    columns = {row[1]: row[2] for row in run(f"PRAGMA table_info({ddl.quote(expected.name)})")}
    if kind == "view":
        base = sql.partition(" FROM [")[2].partition("]")[0]
        return Shape(kind=kind, name=expected.name, columns=columns, base=base)
    key: list[tuple[str, bool]] = []
    indexes = {}
    for _, name, _, origin, _ in run(f"PRAGMA index_list({ddl.quote(expected.name)})").fetchall():
        parts = [(r[2], bool(r[3])) for r in run(f"PRAGMA index_xinfo({ddl.quote(name)})") if r[5]]
        if origin == "pk":
            key = parts
        else:
            indexes[name] = ", ".join(column for column, _ in parts)
    return Shape(
        kind=kind,
        name=expected.name,
        columns=columns,
        clustering=tuple(name for name, _ in key),
        descending=tuple(name for name, descending in key if descending),
        indexes=indexes,
    )
