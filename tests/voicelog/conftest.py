"""Fixtures of the library's tests: events collected strictly, or as at run time, or through an embedded broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from voicelog.testing import Capture, capture


@pytest.fixture
def captured() -> Iterator[Capture]:
    """Collect events; a wrong value or an internal error raises."""
    with capture() as found:
        yield found


@pytest.fixture
def lenient() -> Iterator[Capture]:
    """Collect events as at run time: a wrong value is counted; an internal error fails the test at its end."""
    with capture(strict=False) as found:
        yield found
        assert found.counters.snapshot()["faults"] == {}


@pytest.fixture
def mock_broker() -> Iterator[str]:
    """The address of librdkafka's own mock cluster: a real listener, which other processes can reach too."""
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused:1"})
    (broker,) = cluster.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    del cluster
