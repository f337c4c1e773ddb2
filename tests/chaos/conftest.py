"""What the chaos cases share: a seed that can be given again, places to read and write, and servers to harm."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.real.sinks import Place
from tests.servers import CassandraServer, KafkaServer
from tests.servers.cql import cql_session, drop_keyspace
from tests.servers.topics import delete_topics


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Chance that is the same again with the same seed, whichever other tests run."""
    seed = request.config.getoption("randomly_seed", 0)
    sys.stdout.write(f"seed {seed}: the same again with `make chaos SEED={seed}`\n")
    return Random(f"{seed} {request.node.name}")


@pytest.fixture
def sqlite_place(brokers: str, topic_prefix: str, tmp_path: Path) -> Place:
    """A broker and a SQLite file, initialised."""
    place = Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/calls.db")
    place.init()
    return place


@pytest.fixture
def cql_place(brokers: str, topic_prefix: str, cql_url: str) -> Place:
    """A broker and a fresh keyspace, initialised."""
    place = Place(brokers, topic_prefix, cql_url)
    place.init()
    return place


@pytest.fixture(params=["sqlite", pytest.param("cql")])
def place(request: pytest.FixtureRequest) -> Place:
    """A place of each kind."""
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture
def kafka(own_kafka: KafkaServer) -> KafkaServer:
    """A broker to harm; it is mended after the test."""
    return own_kafka


@pytest.fixture
def cassandra(own_cassandra: CassandraServer) -> CassandraServer:
    """A database to harm; it is mended after the test."""
    return own_cassandra


@pytest.fixture
def fragile(kafka: KafkaServer, cassandra: CassandraServer) -> Iterator[Place]:
    """A place on the servers to harm, initialised."""
    name = f"t{secrets.token_hex(4)}"
    place = Place(kafka.bootstrap, f"{name}-", cassandra.url(name))
    place.init()
    yield place
    kafka.mend(), cassandra.mend()
    delete_topics(kafka.bootstrap, place.prefix)
    with cql_session(cassandra.url()) as session:
        drop_keyspace(session, name)
