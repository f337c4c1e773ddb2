# ruff: noqa: S608 - names come from tables.py alone, values are bound
"""The store for one machine: SQLite in WAL mode. The only file that imports sqlite3."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from voicelog.settings import Settings
from voicelog_sink.stores import ddl, sqlite_query
from voicelog_sink.stores.base import (
    Asked,
    Difference,
    Rejected,
    Row,
    Store,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    Values,
)  # fmt: skip
from voicelog_sink.stores.lifetime import Lifetimes, born_column, is_over, wall_ms
from voicelog_sink.stores.query import Condition, as_stored
from voicelog_sink.stores.schema import INIT, differences
from voicelog_sink.stores.sqlite_rows import STATEMENTS, insert, inserts
from voicelog_sink.stores.sqlite_schema import complete_table, complete_view, foreign_tables, live_shape
from voicelog_sink.stores.sqlite_sweep import Sweep
from voicelog_sink.stores.url import sqlite_path
from voicelog_sink.tables import TABLES, Life, Table

OLDEST = (3, 37, 0)
"""The first SQLite with STRICT tables."""
BUSY_TIMEOUT_MS = 5_000
PRAGMAS = (
    "synchronous = FULL",
    "cache_size = -8192",
    "wal_autocheckpoint = 4000",
    "secure_delete = ON",
)
"""A write is on the disk when it is acknowledged. 8 MB of pages in memory, and pages go from the log into the file
every 16 MB instead of every 4, so that a page that is written again and again goes there once. What is deleted is
overwritten with zeros, in every build of SQLite and not only in those that do so anyway. None of these changes the
file, as WAL mode does: `init` sets that.
"""

ROW_ERRORS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
              OverflowError, ValueError, TypeError)  # fmt: skip
"""What binding or storing one row's values raises; a closed connection is told apart before."""

_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip
_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_BUSY: "another process holds its lock; see which has it open (lsof)",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; set VOICELOG_STORE to another path",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup, or move it away and run {init}",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened; check the path and its permissions",
    sqlite3.SQLITE_READONLY: "the file can't be written; check its owner and permissions",
    sqlite3.SQLITE_ERROR: "its schema is not complete; run {init}",
}


Group = list[tuple[int, tuple[Any, ...]]]
"""Rows of the same table and columns: index in what was written, values."""
Groups = dict[tuple[str, tuple[str, ...]], Group]


class SqliteStore(Store):
    """Rows in one file. One transaction a write, flushed to the disk; other processes read while it writes."""

    writes_expiry = False

    def __init__(self, settings: Settings, now_ms: Callable[[], int] = wall_ms) -> None:
        """Read the URL; opens nothing. Raises StoreMisconfigured for a wrong URL."""
        self._path = sqlite_path(settings.store)
        self._init_command = f"{INIT} --store {shlex.quote(settings.store)}"
        self._now_ms = now_ms
        self._db: sqlite3.Connection | None = None
        self._sweep: Sweep | None = None  # who has not read how long things are kept takes nothing out
        self._set_lifetimes(Lifetimes.by_default(settings.ttl_days))

    def _set_lifetimes(self, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self._tables = {
            name: (
                born_column(table),
                lifetimes.rows_ms.get(name),
                dict.fromkeys(table.columns) if table.life is Life.REWRITTEN else None,
            )
            for name, table in TABLES.items()
        }

    # --- life

    def open(self, timeout_ms: int) -> None:
        """Open the file, making it if it is not there, and refusing one of something else; see Store.

        A file that is there does not change by it: only `init` puts it into WAL mode.
        """
        self.close()
        if sqlite3.sqlite_version_info < OLDEST:
            message = f"SQLite {sqlite3.sqlite_version} is too old: expected 3.37 or newer; use a newer Python"
            raise StoreMisconfigured(message)
        folder = os.path.dirname(os.path.abspath(self._path))
        if self._path != ":memory:" and not os.path.isdir(folder):
            message = f"store {self._path!r}: the directory {folder!r} does not exist; make it, or set VOICELOG_STORE"
            raise StoreMisconfigured(message)
        with self._errors():
            self._db = self._connect(min(timeout_ms, BUSY_TIMEOUT_MS))

    def _connect(self, timeout_ms: int) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path,
            timeout=timeout_ms / 1000,
            isolation_level=None,
            cached_statements=STATEMENTS,
            check_same_thread=False,  # opened by one thread, then used by another; never by two at once
        )
        try:
            for pragma in PRAGMAS:
                db.execute(f"PRAGMA {pragma}")
            if others := foreign_tables(db.execute):
                raise StoreMisconfigured(_foreign(self._path, others))
            db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file; see Store."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def ping(self) -> None:
        """Read the schema's version from the file; see Store."""
        with self._errors():
            self._open_db().execute("PRAGMA schema_version").fetchone()

    def clock_ms(self) -> int:
        """Return this machine's time; see Store."""
        return wall_ms()

    # --- rows

    def keep_for(self, lifetimes: Lifetimes) -> None:
        """Go by these lifetimes, also for rows that are there: the next writes take out what is over; see Store."""
        if lifetimes != self._lifetimes or self._sweep is None:
            self._set_lifetimes(lifetimes)
            self._sweep = Sweep(lifetimes)

    def write(self, rows: Sequence[Row]) -> list[Rejected]:
        """Write the rows in one transaction; see Store."""
        rejected: list[Rejected] = []
        groups, sweep = self._groups(rows), self._sweep
        try:
            with self._transaction(len(rows)) as db:
                if sweep is not None:
                    sweep.step_if_due(db.execute, self._now_ms())
                for (name, names), numbered in groups.items():
                    rejected += _write_group(db, TABLES[name], names, numbered)
        except StoreError:
            if sweep is not None:
                sweep.failed()
            raise
        if sweep is not None and sweep.should_empty_log():
            sweep.note_log(self._empty_log())
        return sorted(rejected)

    def _groups(self, rows: Sequence[Row]) -> Groups:
        """Return the rows that are still to be kept, by table and columns.

        Binding only the columns that are there halves the cost of a row.
        """
        now, lifetimes = self._now_ms(), self._lifetimes
        if lifetimes.texts_ms:
            rows = [Row(name, lifetimes.without_old_texts(name, values, now)) for name, values in rows]
        found: Groups = {}
        for index, (name, values) in enumerate(rows):
            born, lifetime, blank = self._tables[name]
            if lifetime is not None and is_over(values, born, lifetime, now):
                continue
            if blank:
                values = {**blank, **values}
            found.setdefault((name, tuple(values)), []).append((index, tuple(values.values())))
        return found

    def delete(self, table: str, keys: Sequence[Values], columns: Sequence[str] = ()) -> None:
        """Delete the rows, or columns of them, in one transaction; see Store."""
        key = TABLES[table].key
        statement = ddl.blank(TABLES[table], columns) if columns else ddl.delete(TABLES[table])
        with self._transaction(len(keys)) as db:
            db.executemany(statement, [tuple(values[name] for name in key) for values in keys])

    def purge(self) -> None:
        """Write the file anew without what is deleted, and empty the log; see Store."""
        with self._errors():
            db = self._open_db()
            db.execute("VACUUM")
            busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            message = f"store {self._path!r}: its log is in use, and still holds what was deleted; try again"
            raise StoreUnavailable(message)

    def select(
        self,
        source: str,
        partitions: Sequence[Mapping[str, Any]],
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
        where: Sequence[Condition] = (),
        names: Sequence[str] | None = None,
    ) -> Iterator[Values]:
        """Yield rows partition by partition; see Store."""
        with self._errors():
            yield from sqlite_query.select(
                self._open_db().execute,
                source,
                partitions,
                since_ms=since_ms,
                until_ms=until_ms,
                limit=limit,
                where=where,
                names=names,
            )

    def tuples(
        self,
        source: str,
        names: Sequence[str],
        partitions: Sequence[Mapping[str, Any]],
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield some columns of rows; see Store."""
        names = as_stored(source, names)
        with self._errors():
            yield from sqlite_query.tuples(
                self._open_db().execute, source, partitions, since_ms=since_ms, until_ms=until_ms, names=names
            )

    def texts(self, source: str, names: Sequence[str], partitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """Yield the texts of each partition; see Store."""
        with self._errors():
            yield from sqlite_query.texts(self._open_db().execute, source, names, partitions)

    def partitions(self, table: str) -> Iterator[Values]:
        """Yield every partition key; see Store."""
        key = TABLES[table].partition_key
        with self._errors():
            for row in self._open_db().execute(f"SELECT DISTINCT {ddl.quoted(key)} FROM {ddl.quote(table)}"):
                yield dict(zip(key, row, strict=True))

    # --- schema

    def init(self) -> list[str]:
        """Make what is missing; see Store."""
        done: list[str] = []
        with self._errors():
            self._open_db().execute("PRAGMA journal_mode = WAL")  # lasts, and can't be part of a transaction
        with self._transaction() as db:
            for shape in ddl.expected():
                complete = complete_table if shape.kind == "table" else complete_view
                done += complete(db.execute, shape)
        return done

    def check(self) -> list[Difference]:
        """Compare the file's schema with tables.py; see Store."""
        with self._errors():
            db = self._open_db()
            live = [live_shape(db.execute, shape) for shape in ddl.expected()]
        found = differences(ddl.expected(), {shape.name: shape for shape in live if shape})
        return [attrs.evolve(each, remedy=each.remedy.replace(INIT, self._init_command)) for each in found]

    # --- inside

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            message = f"store {self._path!r} is not open"
            raise StoreUnavailable(message)
        return self._db

    @contextmanager
    def _transaction(self, rows: int = 0) -> Iterator[sqlite3.Connection]:
        """Commit what the block does; tell `on_asked` of it where it is about `rows`."""
        start_s, error = time.monotonic(), ""
        try:
            with self._errors(), self._committing() as db:
                yield db
        except StoreError as exc:
            error = type(exc.__cause__ or exc).__name__
            raise
        finally:
            if rows:
                self.on_asked(Asked("*", rows, start_s, time.monotonic(), error))

    @contextmanager
    def _committing(self) -> Iterator[sqlite3.Connection]:
        db = self._open_db()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _empty_log(self) -> bool:
        """Empty the log of what a sweep took out; return True where a reader, who is not waited for, hinders it."""
        with self._errors():
            db = self._open_db()
            db.execute("PRAGMA busy_timeout = 0")
            try:
                busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        return bool(busy)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what sqlite3 raises into the store's errors, the cause kept."""
        try:
            yield
        except sqlite3.Error as exc:
            raise _translated(self._path, self._init_command, exc) from exc


def _foreign(path: str, tables: str) -> str:
    return f"sqlite file {path!r} is no voicelog store (it has tables {tables}): is the path right?"


def _translated(path: str, init: str, exc: sqlite3.Error) -> StoreError:
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    remedy = _REMEDIES.get(code, "see SQLite's message").replace("{init}", init)
    message = f"store {path!r}: {exc}: {remedy}"
    return StoreUnavailable(message) if code in _UNAVAILABLE else StoreMisconfigured(message)


def _write_group(db: sqlite3.Connection, table: Table, names: tuple[str, ...], group: Group) -> list[Rejected]:
    """Write rows of the same columns at once; where one is refused, each by itself."""
    unknown = ", ".join(repr(name) for name in names if name not in table.columns)
    if unknown:
        message = f"table {table.name} has no column {unknown}"
        return [Rejected(index, "UnknownColumn", message) for index, _ in group]
    max_values = db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    try:
        for statement, values in inserts(table.name, names, [values for _, values in group], max_values):
            db.execute(statement, values)
    except ROW_ERRORS:
        statement = insert(table.name, names)
        outcomes = [_write_one(db, statement, table, index, values) for index, values in group]
        return [rejected for rejected in outcomes if rejected]
    return []


def _write_one(
    db: sqlite3.Connection, statement: str, table: Table, index: int, values: tuple[Any, ...]
) -> Rejected | None:
    try:
        db.execute(statement, values)
    except ROW_ERRORS as exc:
        return Rejected(index, type(exc).__name__, f"table {table.name}: {exc}")
    return None
