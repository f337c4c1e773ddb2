# ruff: noqa: S608 - names come from tables.py alone, values are bound
"""SQLite's form of the tables: its statements, made from tables.py. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from voicelog_sink.stores.lifetime import born_column, lifetime_ms
from voicelog_sink.stores.schema import Shape
from voicelog_sink.tables import BLOB, BOOL, INT, REAL, SMALL, TABLES, TEXT, TIME, VIEWS, Life, Table, View

TYPES = {
    TEXT: "TEXT", INT: "INTEGER", SMALL: "INTEGER", TIME: "INTEGER", BOOL: "INTEGER", REAL: "REAL", BLOB: "BLOB",
}  # fmt: skip
"""CQL's type to SQLite's; the tables are STRICT, so that a value of another type is refused as CQL refuses it."""


def quote(name: str) -> str:
    """Return a name as SQL's identifier; in double quotes SQLite would take a column that is missing for a text."""
    return f"[{name}]"


def quoted(names: Iterable[str]) -> str:
    """Return the names as SQL identifiers with commas between."""
    return ", ".join(map(quote, names))


def create_table(table: Table) -> str:
    """Return CREATE TABLE.

    Wide rows that are appended go into a rowid table, where they cost half as much; small ones that are replaced are
    clustered by their key.
    """
    columns = [_column(table, name) for name in table.columns]
    key = ", ".join(f"{quote(name)} DESC" if name in table.descending else quote(name) for name in table.key)
    body = ",\n  ".join([*columns, f"PRIMARY KEY ({key})"])
    clustered = "" if table.life is Life.APPENDED else ", WITHOUT ROWID"
    return f"CREATE TABLE IF NOT EXISTS {quote(table.name)} (\n  {body}\n) STRICT{clustered}"


def add_column(table: Table, name: str) -> str:
    """Return ALTER TABLE for a column that is missing."""
    return f"ALTER TABLE {quote(table.name)} ADD COLUMN {_column(table, name)}"


def _column(table: Table, name: str) -> str:
    needed = " NOT NULL" if name in table.key else " NOT NULL DEFAULT 0" if name == table.version else ""
    return f"{quote(name)} {TYPES[table.columns[name]]}{needed}"


def create_view(view: View) -> str:
    """Return CREATE VIEW."""
    where = " AND ".join(f"{quote(name)} IS NOT NULL" for name in view.partition_key)
    select = f"SELECT {quoted(view.columns)} FROM {quote(view.table)} WHERE {where}"
    return f"CREATE VIEW IF NOT EXISTS {quote(view.name)} AS {select}"


def indexes(table: Table) -> dict[str, tuple[str, ...]]:
    """Return the table's indexes, name to columns: its own, its views', its lifetime's so that expiry scans nothing."""
    columns = [(name,) for name in table.indexes]
    if lifetime_ms(table, 1) is not None:
        columns.append((born_column(table),))
    found = {"_".join((table.name, *names)): names for names in columns}
    views = {f"{v.name}_key": v.partition_key + v.clustering for v in VIEWS.values() if v.table == table.name}
    return {**found, **views}


def create_index(table: Table, name: str) -> str:
    """Return CREATE INDEX; a view's index holds only rows that the view shows."""
    columns = indexes(table)[name]
    view = VIEWS.get(name.removesuffix("_key"))
    where = " AND ".join(f"{quote(column)} IS NOT NULL" for column in view.partition_key) if view else ""
    statement = f"CREATE INDEX IF NOT EXISTS {quote(name)} ON {quote(table.name)} ({quoted(columns)})"
    return statement + (f" WHERE {where}" if where else "")


def insert(table: Table, names: tuple[str, ...], count: int = 1) -> str:
    """Return the statement that writes `count` rows of the columns `names`, the others null.

    A row replaces the one of its key, unless that has a higher version.
    """
    places = ", ".join([f"({', '.join('?' * len(names))})"] * count)
    head = f"{quote(table.name)} ({quoted(names)}) VALUES {places}"
    if table.version is None:
        return f"INSERT OR REPLACE INTO {head}"
    version = quote(table.version)
    changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in table.columns if name not in table.key)
    newer = f"excluded.{version} >= {quote(table.name)}.{version}"
    return f"INSERT INTO {head} ON CONFLICT ({quoted(table.key)}) DO UPDATE SET {changes} WHERE {newer}"


def delete(table: Table) -> str:
    """Return the statement that deletes one row by its key."""
    return f"DELETE FROM {quote(table.name)} WHERE " + " AND ".join(f"{quote(name)} = ?" for name in table.key)


def blank(table: Table, columns: Iterable[str]) -> str:
    """Return the statement that takes columns out of one row, by its key."""
    changes = ", ".join(f"{quote(name)} = NULL" for name in columns)
    return f"UPDATE {quote(table.name)} SET {changes} WHERE " + " AND ".join(f"{quote(name)} = ?" for name in table.key)


def nth_birth(table: Table) -> str:
    """Return the statement that finds when the row was born that comes ? rows after those born from ? on, before ?."""
    born = quote(born_column(table))
    where = f"{born} >= ? AND {born} < ?"
    return f"SELECT {born} FROM {quote(table.name)} WHERE {where} ORDER BY {born} LIMIT 1 OFFSET ?"


def sweep_texts(table: Table) -> str:
    """Return the statement that takes the texts out of rows born from ? on, before ?."""
    born, texts = quote(born_column(table)), list(map(quote, table.texts))
    changes = ", ".join(f"{name} = NULL" for name in texts)
    some = " OR ".join(f"{name} IS NOT NULL" for name in texts)
    return f"UPDATE {quote(table.name)} SET {changes} WHERE {born} >= ? AND {born} < ? AND ({some})"


def sweep(table: Table) -> str:
    """Return the statement that deletes rows born before ?, at most ? of them."""
    key = quoted(table.key)
    old = f"SELECT {key} FROM {quote(table.name)} WHERE {quote(born_column(table))} < ? LIMIT ?"
    return f"DELETE FROM {quote(table.name)} WHERE ({key}) IN ({old})"


def expected() -> list[Shape]:
    """Return what a complete database holds."""
    tables = [
        Shape(
            kind="table",
            name=t.name,
            columns={name: TYPES[kind] for name, kind in t.columns.items()},
            clustering=t.key,
            descending=t.descending,
            indexes={name: ", ".join(columns) for name, columns in indexes(t).items()},
        )
        for t in TABLES.values()
    ]
    views = [
        Shape(kind="view", name=v.name, columns={c: TYPES[TABLES[v.table].columns[c]] for c in v.columns}, base=v.table)
        for v in VIEWS.values()
    ]
    return tables + views
