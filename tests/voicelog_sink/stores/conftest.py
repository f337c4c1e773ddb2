"""CQL stores in a fresh keyspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from voicelog.settings import load
from voicelog_sink.stores.cql_store import CqlStore

Make = Callable[..., CqlStore]


@pytest.fixture
def make(cql_url: str) -> Iterator[Make]:
    made: list[CqlStore] = []

    def one(url: str = cql_url, **settings: Any) -> CqlStore:
        made.append(CqlStore(load({"store": url, **settings}, {})[0]))
        made[-1].open(10_000)
        return made[-1]

    yield one
    for store in made:
        store.close()
