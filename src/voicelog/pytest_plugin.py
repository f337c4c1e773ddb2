"""The pytest plugin: the fixture `voicelog_capture`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from voicelog.testing import Capture


@pytest.fixture
def voicelog_capture() -> Iterator[Capture]:
    """Collect voicelog's events for the length of a test."""
    from voicelog.testing import capture

    with capture() as captured:
        yield captured
