"""What the tests with real servers are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real.sinks import Place
from tests.servers.topics import delete_topics


@pytest.fixture(params=["sqlite", "cql"])
def bare_place(request: pytest.FixtureRequest, brokers: str, topic_prefix: str, tmp_path: Path) -> Iterator[Place]:
    """A broker with a group of its own, and a store of each kind, both not initialised."""
    url = f"sqlite:///{tmp_path}/calls.db" if request.param == "sqlite" else request.getfixturevalue("cql_url")
    yield Place(brokers, topic_prefix, url)
    delete_topics(brokers, topic_prefix)


@pytest.fixture
def place(bare_place: Place) -> Place:
    """The same, initialised."""
    bare_place.init()
    return bare_place
