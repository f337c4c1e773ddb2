"""A store of each class that SCHEMES names. A new store adds a fixture `<scheme>_url` here."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.contracts.store_kit import opened
from tests.servers.cql import drop_keyspace, with_keyspace

from voicelog_sink.stores import SCHEMES
from voicelog_sink.stores.base import Store

ONE_SCHEME_A_CLASS = sorted({target: scheme for scheme, target in sorted(SCHEMES.items(), reverse=True)}.values())
EACH = [pytest.param(s, marks=[] if s == "sqlite" else [pytest.mark.real]) for s in ONE_SCHEME_A_CLASS]


@pytest.fixture(scope="module", params=EACH)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url_of(scheme: str, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes URLs of fresh stores."""
    return request.getfixturevalue(f"{scheme}_url")


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('store')}/calls.db"


@pytest.fixture(scope="module")
def cassandra_url(cql_base_url: str, cql_admin: Any) -> Iterator[Callable[[], str]]:
    made: list[str] = []

    def fresh() -> str:
        made.append(f"t{secrets.token_hex(4)}")
        return with_keyspace(cql_base_url, made[-1])

    yield fresh
    for keyspace in made:
        drop_keyspace(cql_admin, keyspace)


@pytest.fixture(scope="module")
def scylla_url(cassandra_url: Callable[[], str]) -> Callable[[], str]:
    return cassandra_url


@pytest.fixture(scope="module")
def store(url_of: Callable[[], str]) -> Iterator[Store]:
    """An initialised store that the module's tests share; each writes keys of its own."""
    store = opened(url_of())
    store.init()
    yield store
    store.close()


@pytest.fixture
def bare_url(url_of: Callable[[], str]) -> str:
    return url_of()


@pytest.fixture
def bare(bare_url: str) -> Iterator[Store]:
    """An open store without a schema, for one test."""
    store = opened(bare_url)
    yield store
    store.close()
