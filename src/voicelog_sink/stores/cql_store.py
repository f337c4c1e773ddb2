"""The store for production: a CQL database, ScyllaDB or Cassandra. The driver is in cql.py."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from voicelog.settings import Settings
from voicelog_sink.stores import cql_ddl, cql_schema
from voicelog_sink.stores.base import (
    Difference,
    Rejected,
    Row,
    Store,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    Values,
)
from voicelog_sink.stores.cql import PAGE_ROWS, SHORT_PAGE_ROWS, UNSET, Connection, Failure, milliseconds
from voicelog_sink.stores.cql_rows import Encoded, RowError, TableEncoder, batches
from voicelog_sink.stores.cql_texts import DividedEncoder
from voicelog_sink.stores.flight import Request
from voicelog_sink.stores.lifetime import Lifetimes, wall_ms
from voicelog_sink.stores.query import HAS, Condition, Plan, as_stored, plan, text_key
from voicelog_sink.stores.together import Together, together
from voicelog_sink.stores.url import cql_url
from voicelog_sink.tables import TABLES, TIME

READ_AHEAD = 8
"""Most requests whose first page is asked for before it is needed."""


class CqlStore(Store):
    """Rows in a CQL keyspace, LOCAL_QUORUM both ways, in single-partition batches."""

    writes_expiry = True

    def __init__(self, settings: Settings, now_ms: Callable[[], int] = wall_ms) -> None:
        """Read the URL; connects to nothing. Raises StoreMisconfigured for a wrong URL."""
        self._settings = settings
        self._url = cql_url(settings.store)
        self._now_ms = now_ms
        self._live: Connection | None = None
        self._prepared: dict[str, Any] = {}
        self._set_lifetimes(Lifetimes.by_default(settings.ttl_days))

    def _set_lifetimes(self, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self._encoders = {name: TableEncoder(t, lifetimes.rows_ms.get(name), UNSET) for name, t in TABLES.items()}
        self._divided = {
            name: DividedEncoder(TABLES[name], lifetimes.rows_ms[name], text_ms, UNSET)
            for name, text_ms in lifetimes.texts_ms.items()
        }

    # --- life

    def open(self, timeout_ms: int) -> None:
        """Connect to the first host that answers; see Store."""
        self.close()
        self._live = Connection(self._settings, self._url, timeout_ms)

    def close(self) -> None:
        """Close every connection; see Store."""
        connection, self._live = self._live, None
        self._prepared.clear()
        if connection is not None:
            connection.close()

    def ping(self) -> None:
        """Ask a node for its own row; see Store."""
        self._connection().run("SELECT key FROM system.local")

    def clock_ms(self) -> int:
        """Return the time of the node that answers; see Store."""
        found = self._connection().run("SELECT toTimestamp(now()) AS at FROM system.local")
        return milliseconds(found[0].at)

    # --- rows

    def keep_for(self, lifetimes: Lifetimes) -> None:
        """Write rows with these lifetimes as their TTL; see Store."""
        if lifetimes != self._lifetimes:
            self._set_lifetimes(lifetimes)

    def write(self, rows: Sequence[Row]) -> list[Rejected]:
        """Write the rows in single-partition batches, many at once; see Store."""
        now, divided = self._now_ms(), self._divided
        encoded: dict[str, list[Encoded]] = {}
        rejected: list[Rejected] = []
        for number, (table, values) in enumerate(rows):
            try:
                if table in divided:
                    encoded.setdefault(table, []).extend(divided[table].encode(number, values, now))
                    continue
                row = self._encoders[table].encode(number, values, now)
            except RowError as exc:
                rejected.append(Rejected(number, "RowError", str(exc)))
            else:
                if row is not None:
                    encoded.setdefault(table, []).append(row)
        rejected += self._send(self._requests(encoded, cql_ddl.write))
        return sorted({each.index: each for each in rejected}.values())  # a row of two parts may be refused in both

    def delete(self, table: str, keys: Sequence[Values], columns: Sequence[str] = ()) -> None:
        """Delete the rows, or columns of them, in single-partition batches; see Store.

        Raises ValueError for a key that is none.
        """
        encoded = {table: [self._encoders[table].encode_key(number, key) for number, key in enumerate(keys)]}
        refused = self._send(self._requests(encoded, lambda keyspace, of, _: cql_ddl.delete(keyspace, of, columns)))
        if refused:
            message = f"store {self._settings.store!r}: a row can't be deleted: {refused[0].message}"
            raise StoreMisconfigured(message)

    def purge(self) -> None:
        """Leave it to the database, which drops what is deleted when it compacts; see Store."""

    def _requests(self, encoded: Mapping[str, list[Encoded]], make: Callable[..., str]) -> list[Request]:
        requests = []
        for table, rows in encoded.items():
            statements = {
                names: self._statement(make(self._url.keyspace, TABLES[table], names))
                for names in {row.names for row in rows}
            }
            requests += [Request(statements, table, batch) for batch in batches(rows)]
        return requests

    def _send(self, requests: list[Request]) -> list[Rejected]:
        """Send everything and return the rows that the server refuses for good."""
        try:
            failures = self._connection().send(requests, self.on_asked)
            return self._isolate(failures, len(requests)) if failures else []
        except StoreError:
            self._prepared.clear()  # the schema may be another when the caller tries again
            raise

    def _isolate(self, failures: list[Failure], sent: int) -> list[Rejected]:
        """Write the rows of the refused requests one by one, twice; what is refused again is at fault itself."""
        connection = self._connection()
        singles = [failure.request._replace(rows=[row]) for failure in failures for row in failure.request.rows]
        again = [failure.request for failure in connection.send(singles, self.on_asked)]
        refused = connection.send(again, self.on_asked)
        for table in {failure.request.table for failure in refused}:
            # Fails where not the row is at fault, but the table or a permission.
            connection.prepare(cql_ddl.insert(self._url.keyspace, TABLES[table]))
        nothing_stored = len(failures) == sent and len(refused) == len(singles)
        for failure in refused:
            if failure.suspect and nothing_stored:
                raise connection.translated(failure.error) from failure.error
        return [
            Rejected(f.request.rows[0].number, type(f.error).__name__, f"table {f.request.table}: {f.error}")
            for f in refused
        ]

    # --- reading

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
        """Yield rows partition by partition, the first pages of some asked for ahead; see Store."""
        plans = (
            plan(source, p, since_ms=since_ms, until_ms=until_ms, limit=limit, where=where, names=names)
            for p in partitions
        )
        for asked, rows in self._answers(plans):
            yield from _rows(asked, rows)

    def tuples(
        self,
        source: str,
        names: Sequence[str],
        partitions: Sequence[Mapping[str, Any]],
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield some columns of rows, as the driver gives them; see Store."""
        names = as_stored(source, names)
        plans = (plan(source, p, since_ms=since_ms, until_ms=until_ms, names=names) for p in partitions)
        for _, rows in self._answers(plans, page_rows=SHORT_PAGE_ROWS):
            yield from rows

    def texts(self, source: str, names: Sequence[str], partitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """Yield the texts of each partition, those of some asked for ahead; see Store."""
        text_key(source, names)
        for _, rows in self._answers((plan(source, p, names=names) for p in partitions), small=True):
            yield "\0".join(text for row in rows for text in row if text)

    def _answers(
        self, plans: Iterable[Plan], *, small: bool = False, page_rows: int = PAGE_ROWS
    ) -> Iterator[tuple[Plan, Iterator[tuple[Any, ...]]]]:
        """Yield each plan with its rows, which must be taken before the next; `small` says that none has many."""
        waiting = together(plans, small=small)
        started = deque((each, self._ask(each, page_rows)) for each in islice(waiting, READ_AHEAD))
        while started:
            asked, answer = started.popleft()
            for one, rows in asked.told_apart(self._connection().rows(answer)):
                yield one, _fitting(one, rows)
            started.extend((each, self._ask(each, page_rows)) for each in islice(waiting, 1))

    def _ask(self, asked: Together, page_rows: int) -> Any:
        statement = self._statement(cql_ddl.select(self._url.keyspace, asked.query, asked.column))
        limit = [asked.plans[0].limit] if cql_ddl.has_limit(asked.query) else []
        return self._connection().ask(statement, asked.values + limit, None if asked.is_whole else page_rows)

    def partitions(self, table: str) -> Iterator[Values]:
        """Yield every partition key, page by page; see Store."""
        key = TABLES[table].partition_key
        answer = self._connection().ask(self._statement(cql_ddl.partitions(self._url.keyspace, TABLES[table])), ())
        for row in self._connection().rows(answer):
            yield dict(zip(key, row, strict=True))

    # --- schema

    def init(self) -> list[str]:
        """Make or complete the keyspace; see Store. Only one process at a time may do so."""
        return cql_schema.init(self._keyspace())

    def check(self) -> list[Difference]:
        """Compare the keyspace with tables.py and the cql files; see Store."""
        return cql_schema.check(self._keyspace())

    def _keyspace(self) -> cql_schema.Keyspace:
        settings = self._settings
        return cql_schema.Keyspace(
            run=self._connection().run,
            name=self._url.keyspace,
            ttl_days=settings.ttl_days,
            replication=settings.cql_replication,
            local_dc=self._url.local_dc,
            now_ms=self._now_ms,
        )

    # --- inside

    def _connection(self) -> Connection:
        if self._live is None:
            message = f"store {self._settings.store!r} is not open"
            raise StoreUnavailable(message)
        return self._live

    def _statement(self, text: str) -> Any:
        statement = self._prepared.get(text)
        if statement is None:
            statement = self._prepared[text] = self._connection().prepare(text)
        return statement


def _rows(asked: Plan, found: Iterator[tuple[Any, ...]]) -> Iterator[Values]:
    columns = asked.query.columns
    times = [name for name, kind in columns.items() if kind == TIME]
    for row in found:
        values = dict(zip(columns, row, strict=False))  # what is looked through comes after the columns
        for name in times:
            if values[name] is not None:
                values[name] = milliseconds(values[name])
        yield values


def _fitting(asked: Plan, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Return the rows for which the conditions hold that CQL has no operator for."""
    pairs = zip(asked.query.conditions, asked.values, strict=True)
    sought = [value for (_, operator), value in pairs if operator == HAS]
    if not sought:
        return rows
    begin = len(asked.query.columns)

    def fits(row: tuple[Any, ...]) -> bool:
        return all(text is not None and value in text for text, value in zip(row[begin:], sought, strict=True))

    return islice(filter(fits, rows), asked.limit)
