"""Fixtures of the library's tests: events collected strictly, or as at run time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
