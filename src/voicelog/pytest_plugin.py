"""The pytest plugin: the fixture `voicelog_capture`, and the marker `voicelog` with settings for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from voicelog.testing import Capture


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "voicelog(**settings): what the fixture voicelog_capture gives to voicelog.testing.capture()"
    )


@pytest.fixture
def voicelog_capture(request: pytest.FixtureRequest) -> Iterator[Capture]:
    """Collect voicelog's events for the length of a test, with the settings of @pytest.mark.voicelog(...)."""
    from voicelog.testing import capture

    marker = request.node.get_closest_marker("voicelog")
    with capture(**(marker.kwargs if marker is not None else {})) as captured:
        yield captured
