"""What every test gets: a clean environment, voicelog switched off afterwards, and the real servers on request."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from voicelog.client import state

pytest_plugins = ["tests.conftest_servers", "tests.conftest_packages"]

EXAMPLES = int(os.environ.get("VOICELOG_TEST_EXAMPLES", "40"))
"""What hypothesis tries of each rule that names no number of its own; `make properties` tries many more."""

settings.register_profile("voicelog", deadline=None, max_examples=EXAMPLES)  # a busy machine makes any example late
settings.load_profile("voicelog")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the user's own VOICELOG_*, except where servers are, and what changes how things are printed."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):  # what is printed is as wide and as plain everywhere
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.startswith("VOICELOG_") and not name.startswith("VOICELOG_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command of the sink set up, which would keep log records from the next test."""
    logger, librdkafka = logging.getLogger("voicelog_sink"), logging.getLogger("voicelog_sink.librdkafka")
    before = (logger.handlers[:], logger.level, logger.propagate, librdkafka.filters[:])
    yield
    logger.handlers[:], logger.level, logger.propagate, librdkafka.filters[:] = before


@pytest.fixture(autouse=True)
def _switched_off() -> Iterator[None]:
    """Switch voicelog off after a test that configured it, and fail one that left an internal error behind."""
    yield
    client, state.current = state.current, None
    if client is None:
        return
    faults = client.counters.snapshot()["faults"]
    if client.background is not None:
        client.background.close()
    client.producer.close(0)
    assert not faults, f"voicelog swallowed internal errors: {faults}"
