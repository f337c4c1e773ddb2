"""Making what is stored already go by the rules: deleting what is over, and writing anew what carries another expiry.

It can be cut short, and done again at any time, also while sinks write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice

import attrs

from voicelog_sink.erasures import Erasures
from voicelog_sink.errors import SinkError
from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.stores.lifetime import Lifetimes
from voicelog_sink.tables import TABLES, TIME, Table

PARTITIONS_AT_ONCE = 64
ROWS_AT_ONCE = 500


@attrs.frozen
class Applied:
    """How many rows were deleted, how many lost their texts, and how many were written anew, by table."""

    rows: Counter[str] = attrs.Factory(Counter)
    texts: Counter[str] = attrs.Factory(Counter)
    written: Counter[str] = attrs.Factory(Counter)


@attrs.define
class _Chunk:
    """Rows of one table by what is to be done with them."""

    over: list[Values] = attrs.Factory(list)
    blanked: list[Values] = attrs.Factory(list)
    written: list[Values] = attrs.Factory(list)


class Application:
    """One going over some tables. Used by one thread, which uses the store."""

    def __init__(
        self, store: Store, lifetimes: Lifetimes, now_ms: int, *, texts_alone: bool = False, dry_run: bool = False
    ) -> None:
        """Go by `lifetimes` at `now_ms`; `texts_alone` says that only those of texts have changed."""
        self._store = store
        self._lifetimes = lifetimes
        self._now_ms = now_ms
        self._texts_alone = texts_alone
        self._dry_run = dry_run
        self._erasures = Erasures()

    def run(self, tables: Collection[str], on_table: Callable[[], object] = lambda: None) -> Applied:
        """Go over these tables and return what was done, or would be; `on_table` is called after each.

        Reads all of them and blocks for it. Raises StoreError as the store does.
        """
        applied = Applied()
        if not self._dry_run:
            self._store.keep_for(self._lifetimes)
        for name in tables:
            self._table(TABLES[name], applied)
            on_table()
        if not self._dry_run and (applied.rows or applied.texts):
            self._store.purge()
        return applied

    def _table(self, table: Table, applied: Applied) -> None:
        rows = self._rows(table)
        while some := list(islice(rows, ROWS_AT_ONCE)):
            chunk = self._sorted(table, some)
            for counter, found in (
                (applied.rows, chunk.over), (applied.texts, chunk.blanked), (applied.written, chunk.written),
            ):  # fmt: skip
                counter.update({table.name: len(found)} if found else {})
            if not self._dry_run:
                self._do(table, chunk)

    def _rows(self, table: Table) -> Iterator[Values]:
        partitions = self._store.partitions(table.name)
        until_ms = self._until_ms(table)
        while some := list(islice(partitions, PARTITIONS_AT_ONCE)):
            yield from self._store.select(table.name, some, until_ms=until_ms)

    def _until_ms(self, table: Table) -> int | None:
        """Return from when on no row has to be looked at; None where each has."""
        if self._store.writes_expiry or not table.clustering or table.columns[table.clustering[0]] != TIME:
            return None
        lives = [of[table.name] for of in (self._lifetimes.rows_ms, self._lifetimes.texts_ms) if table.name in of]
        return self._now_ms - min(lives) + 1

    def _sorted(self, table: Table, rows: Iterable[Values]) -> _Chunk:
        chunk = _Chunk()
        for row in rows:
            has_text = any(row[name] is not None for name in table.texts)
            if self._lifetimes.is_row_over(table.name, row, self._now_ms):
                chunk.over.append(row)
            elif has_text and self._lifetimes.is_text_over(table.name, row, self._now_ms):
                chunk.blanked.append(row)
            # A row with a version can't be written with the same one and another expiry: it goes when it is over.
            elif self._store.writes_expiry and not table.version and (has_text or not self._texts_alone):
                chunk.written.append(row)
        return chunk

    def _anew(self, table: Table, row: Values) -> Row:
        names = {*table.key, *table.texts} if self._texts_alone else table.columns
        return Row(table.name, {name: row[name] for name in table.columns if name in names and row[name] is not None})

    def _do(self, table: Table, chunk: _Chunk) -> None:
        if chunk.over:
            self._store.delete(table.name, chunk.over)
        if chunk.blanked:
            self._store.delete(table.name, chunk.blanked, table.texts)
        self._erasures.renew(self._store)  # what is written anew must not bring back what was erased
        rows = [self._anew(table, row) for row in chunk.written if not self._erasures.covers_row(row)]
        if refused := self._store.write(rows) if rows else []:
            message = f"a row can't be written anew: {refused[0].message}"
            raise SinkError(message)
