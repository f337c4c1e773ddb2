"""The CQL driver, imported here alone: connecting, sending, and its errors as the store's. cql_store.py uses it."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cassandra import (
    AlreadyExists,
    AuthenticationFailed,
    DriverException,
    InvalidRequest,
    RateLimitReached,
    RequestExecutionException,
    Unauthorized,
    WriteFailure,
)
from cassandra import ConsistencyLevel as Level
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.connection import ConnectionBusy, ConnectionException, ProtocolError
from cassandra.policies import DCAwareRoundRobinPolicy, ExponentialReconnectionPolicy, TokenAwarePolicy
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import ConfigurationException, ErrorMessage, ServerError, SyntaxException
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType, BoundStatement, named_tuple_factory, tuple_factory

from voicelog.settings import Settings
from voicelog_sink.stores.base import OnAsked, StoreError, StoreMisconfigured, StoreUnavailable, ignore
from voicelog_sink.stores.cql_rows import Encoded
from voicelog_sink.stores.flight import Flight, Request
from voicelog_sink.stores.schema import INIT
from voicelog_sink.stores.tls import tls_context
from voicelog_sink.stores.url import CqlUrl
from voicelog_sink.stores.window import Window

UNSET = UNSET_VALUE
"""Stands for a column that is left as it is."""
PROTOCOL = 4
PAGE_ROWS, SHORT_PAGE_ROWS = 1_000, 5_000
"""Of an answer: whole rows, and rows of some columns."""
REQUEST_TIMEOUT_S = 10.0
SCHEMA_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
RECONNECT_MAX_S = 5.0
SCHEMA_PROFILE = "schema"

ROW_REFUSED = (InvalidRequest, SyntaxException)
"""What one row, or the table itself, can cause."""
SUSPECT = (ServerError, WriteFailure)
"""What the server's state can cause, or one row that it can't digest."""
MISCONFIGURED = (
    AuthenticationFailed,
    Unauthorized,
    InvalidRequest,
    SyntaxException,
    ConfigurationException,
    AlreadyExists,
    ssl.SSLCertVerificationError,
)
DRIVER_ERRORS = (
    DriverException,
    NoHostAvailable,
    ErrorMessage,
    ConnectionException,
    ConnectionBusy,
    ProtocolError,
    NoConnectionsAvailable,
    OSError,
)

AWAY = (NoHostAvailable, ConnectionException, OSError)
"""What says that the server is not there, where other errors say that it has too much to do."""

logger = logging.getLogger(__name__)
# A command that has set no logging up says one sentence; without this the driver's tracebacks would stand around it.
logging.getLogger("cassandra").addHandler(logging.NullHandler())
_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)


class Failure(NamedTuple):
    """A request that failed, perhaps by a row's fault; `suspect` when it may as well be the server's."""

    request: Request
    error: Exception
    suspect: bool


class Connection:
    """A connection to the database; used by one thread. Every method raises the store's errors."""

    def __init__(self, settings: Settings, url: CqlUrl, timeout_ms: int) -> None:
        """Connect to the first host that answers; blocks up to about `timeout_ms`."""
        self._store = f"store {settings.store!r}"
        self.window = Window()
        self._cluster: Any = None
        with self._errors():
            self._cluster = _cluster(settings, url, timeout_ms)
            try:
                self._session = self._cluster.connect()
            except BaseException as exc:
                known = {host.datacenter for host in self._cluster.metadata.all_hosts()}
                self.close()
                self._check_datacenter(url, known, exc)
                raise

    def _check_datacenter(self, url: CqlUrl, known: set[str | None], exc: BaseException) -> None:
        names = ", ".join(sorted(name for name in known if name))
        if names and url.local_dc and url.local_dc not in known:
            message = f"{self._store}: local_dc is {url.local_dc!r}: expected one of {names}"
            raise StoreMisconfigured(message) from exc

    def close(self) -> None:
        """Close every connection and thread. Never raises."""
        try:
            self._cluster.shutdown()
        except Exception as exc:  # the driver's threads may be half made; the process must still end
            logger.warning("%s: closing the connection failed: %s", self._store, exc)

    def run(self, statement: str, values: tuple[Any, ...] | None = None) -> Sequence[Any]:
        """Run a statement about the schema, `%s` for values; return its rows, columns as attributes."""
        with self._errors():
            return list(self._session.execute(statement, values, execution_profile=SCHEMA_PROFILE))

    def prepare(self, text: str) -> Any:
        """Prepare a statement, `?` for values."""
        with self._errors():
            return self._session.prepare(text)

    def ask(self, statement: Any, values: Sequence[Any], page_rows: int | None = PAGE_ROWS) -> Any:
        """Send a prepared query; the answer, of which that many rows come at a time, None for all, goes to `rows`."""
        with self._errors():
            bound = statement.bind(values)
            bound.fetch_size = page_rows
            return self._session.execute_async(bound)

    def rows(self, answer: Any) -> Iterator[tuple[Any, ...]]:
        """Yield an answer's rows, page by page."""
        with self._errors():
            yield from answer.result()

    def send(self, requests: Sequence[Request], on_asked: OnAsked = ignore) -> list[Failure]:
        """Send the requests, wait for all; return those that failed by a row's fault, raise for any other failure."""
        flight = Flight(
            lambda request: self._session.execute_async(_statement(request)),
            self.window, DRIVER_ERRORS, (*ROW_REFUSED, *SUSPECT), on_asked,
        )  # fmt: skip
        try:
            for request in requests:
                if not flight.send(request):
                    break
        finally:
            flight.land()
        for _, exc in flight.failures:
            if not isinstance(exc, (*ROW_REFUSED, *SUSPECT)):
                if isinstance(exc, AWAY):
                    self.window.outage()
                raise self.translated(exc) from exc
        return [Failure(request, exc, isinstance(exc, SUSPECT)) for request, exc in flight.failures]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DRIVER_ERRORS as exc:
            raise self.translated(exc) from exc

    def translated(self, exc: Exception) -> StoreError:
        """Return the store's error for one of the driver's."""
        reasons = [exc]
        if isinstance(exc, NoHostAvailable):
            reasons = list(exc.errors.values()) if isinstance(exc.errors, dict) else []
        for reason in reasons:
            if isinstance(reason, MISCONFIGURED) and not isinstance(reason, RateLimitReached):
                return StoreMisconfigured(f"{self._store}: {_sentence(reason)}; {_remedy(reason)}")
        answered = [reason for reason in reasons if isinstance(reason, (RequestExecutionException, ErrorMessage))]
        if isinstance(exc, NoHostAvailable) and not answered:
            why = f" ({_sentence(reasons[0])})" if reasons else ""
            return StoreUnavailable(f"{self._store}: no node answers{why}; check that it runs, and its host and port")
        return StoreUnavailable(f"{self._store}: {_sentence((answered or [exc])[0])}; it may pass")


def _statement(request: Request) -> Any:
    """Return the request as the driver sends it; the values are encoded already, so nothing is bound."""
    statements, rows = request.statements, request.rows
    if len(rows) == 1:
        return _bound(statements[rows[0].names], rows[0])
    batch = BatchStatement(BatchType.UNLOGGED)
    known: dict[tuple[str, ...], Any] = {}
    for row in rows:
        bound = known.get(row.names)
        if bound is None:
            bound = known[row.names] = _bound(statements[row.names], row)
        bound.values = row.params  # the batch keeps the values and not the statement, which serves for the next row
        batch.add(bound)
    return batch


def _bound(prepared: Any, row: Encoded) -> Any:
    bound = BoundStatement(prepared, routing_key=row.routing_key)
    bound.values = row.params
    return bound


def milliseconds(value: datetime) -> int:
    """Return a timestamp as the driver reads it, as epoch milliseconds."""
    return (value - _EPOCH) // _MILLISECOND


def _cluster(settings: Settings, url: CqlUrl, timeout_ms: int) -> Any:
    # Half for the control connection, over all hosts, and half for the pool.
    connect_s = max(0.2, min(CONNECT_TIMEOUT_S, timeout_ms / 2000 / len(url.hosts)))
    policy = TokenAwarePolicy(DCAwareRoundRobinPolicy(url.local_dc or ""))
    profiles = {
        EXEC_PROFILE_DEFAULT: _profile(policy, tuple_factory, REQUEST_TIMEOUT_S),
        SCHEMA_PROFILE: _profile(policy, named_tuple_factory, SCHEMA_TIMEOUT_S),
    }
    login = PlainTextAuthProvider(settings.cql_username, settings.cql_password) if settings.cql_username else None
    cluster = Cluster(
        contact_points=list(url.hosts),
        port=url.hosts[0][1],
        protocol_version=PROTOCOL,
        execution_profiles=profiles,
        auth_provider=login,
        ssl_context=tls_context(settings),
        reconnection_policy=ExponentialReconnectionPolicy(base_delay=0.5, max_delay=RECONNECT_MAX_S),
        connect_timeout=connect_s,
        control_connection_timeout=connect_s,
        compression=False,
    )
    cluster.connection_class = _reactor() or cluster.connection_class
    return cluster


def _profile(policy: Any, factory: Any, timeout_s: float) -> Any:
    return ExecutionProfile(
        load_balancing_policy=policy,
        consistency_level=Level.LOCAL_QUORUM,
        row_factory=factory,
        request_timeout=timeout_s,
    )


def _reactor() -> Any:
    """Return the connection class on libev, which costs 2.5 times less CPU than the others; None if it is not built."""
    try:
        from cassandra.io.libevreactor import LibevConnection
    except Exception as exc:  # the driver raises its own kinds where the library is missing
        logger.warning("libev is not available to the CQL driver, writing costs more CPU: %s", exc)
        return None
    return LibevConnection


def _sentence(exc: BaseException) -> str:
    """Return what the driver says, in one line."""
    texts: Iterable[Any] = exc.args if isinstance(exc, ErrorMessage) else (exc,)
    text = " ".join(" ".join(map(str, texts)).split())
    return f"{type(exc).__name__}: {text}"


def _remedy(exc: BaseException) -> str:
    if isinstance(exc, AuthenticationFailed):
        return "check VOICELOG_CQL_USERNAME and VOICELOG_CQL_PASSWORD"
    if isinstance(exc, Unauthorized):
        return "grant the user SELECT and MODIFY on the keyspace (and CREATE, ALTER for init)"
    if isinstance(exc, ssl.SSLError):
        return "check VOICELOG_CQL_CA_FILE"
    if "aterialized views are disabled" in str(exc):
        return "set materialized_views_enabled: true in cassandra.yaml"
    return f"run {INIT} --check, then {INIT}"
