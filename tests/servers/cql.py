"""Sessions and keyspaces of a CQL server that is given as a URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import DCAwareRoundRobinPolicy

FORM = "scylla://host:port?local_dc=datacenter1"


@contextmanager
def cql_session(url: str, timeout_s: float = 60) -> Iterator[Any]:
    """Opens a driver session on `scylla://host:port/keyspace?local_dc=dc` and closes it."""
    cluster = _cluster(url, timeout_s)
    try:
        yield cluster.connect(urlsplit(url).path.strip("/") or None)
    finally:
        cluster.shutdown()


def with_keyspace(url: str, keyspace: str) -> str:
    """Names another keyspace in the URL, or none."""
    return urlsplit(url)._replace(path=f"/{keyspace}" if keyspace else "").geturl()


def drop_keyspace(session: Any, keyspace: str) -> None:
    """Removes the keyspace and its views, if it is there."""
    session.execute(f'DROP KEYSPACE IF EXISTS "{keyspace}"')


def server_url(url: str, source: str) -> str:
    """Leaves out the URL's keyspace; raises, naming the source, if it has not the form."""
    parts = urlsplit(url)
    if parts.scheme != "scylla" or not parts.netloc or "local_dc" not in parse_qs(parts.query):
        raise ValueError(f"{source} is {url!r}, expected is a URL such as {FORM}: correct or unset it")
    return with_keyspace(url, "")


def _cluster(url: str, timeout_s: float) -> Any:
    parts = urlsplit(url)
    hosts, _, port = parts.netloc.partition(":")
    policy = DCAwareRoundRobinPolicy(local_dc=parse_qs(parts.query)["local_dc"][0])
    profile = ExecutionProfile(load_balancing_policy=policy, request_timeout=timeout_s)
    return Cluster(
        hosts.split(","),
        port=int(port or 9042),
        protocol_version=4,
        connect_timeout=10,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    )
