"""The handler for the standard logging module."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from tests.voicelog.strategies import Awkward

import voicelog
from voicelog.events import Log
from voicelog.testing import Capture, capture


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger with the handler, and nothing else of the process."""
    logger, handler = logging.getLogger("bot.llm"), voicelog.LogHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_record_in_a_session_is_a_whole_event(captured: Capture, log: logging.Logger) -> None:
    with voicelog.session("call"), voicelog.turn("t"):
        log.debug("heard %s words", 3)
    (event,) = captured.of("log")
    assert event == Log(
        stream_id="0000000200000000", seq=2, ts=event.ts, session_id="call", turn_id="t", service="test",
        host="test-host",
        level="DEBUG", message="heard 3 words", logger="bot.llm",
    )  # fmt: skip


def test_outside_of_a_session_records_are_sent_from_warning_up(captured: Capture, log: logging.Logger) -> None:
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)(level)
    assert [event.level for event in captured.events] == ["WARNING", "ERROR", "CRITICAL"]


def test_an_exception_is_sent_with_its_stack(captured: Capture, log: logging.Logger) -> None:
    try:
        raise KeyError("k")
    except KeyError:
        log.exception("failed")
    (event,) = captured.events
    assert (event.message, event.error.type) == ("failed", "KeyError")
    assert "test_an_exception_is_sent" in event.error.stack


def test_a_record_that_can_not_be_formatted_is_sent_as_it_is(captured: Capture) -> None:
    for message, args in (("%d words", ("three",)), (Awkward(), ())):
        voicelog.LogHandler().handle(logging.LogRecord("bot", logging.WARNING, __file__, 1, message, args, None))
    assert [event.message for event in captured.events] == ["%d words", "<Awkward whose repr fails>"]


@pytest.mark.parametrize("given", [{}, {"levelno": logging.ERROR}, {"name": "bot", "exc_info": True}])
def test_an_unfinished_record_raises_nothing_and_is_sent_or_counted(given: dict[str, Any]) -> None:
    """makeLogRecord(), for records that came from elsewhere, fills in None."""
    with capture(strict=False) as captured:
        for call in (nullcontext(), voicelog.session()):
            with call:
                voicelog.LogHandler().handle(logging.makeLogRecord({"msg": "x", **given}))
        assert len(captured.of("log")) + captured.counters.get("faults") == 2


def test_a_programs_own_handler_that_raises_does_not_so_through_voicelog() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise LookupError(record.getMessage())

    handler = Broken()
    logging.getLogger("voicelog").addHandler(handler)
    try:
        with capture(strict=False) as captured, voicelog.session(), voicelog.stage("stt") as stt:
            stt.set(confidence="high")
    finally:
        logging.getLogger("voicelog").removeHandler(handler)
    assert captured.counters.snapshot()["invalid"] == {"stage.confidence": 1}
    assert captured.counters.snapshot()["faults"] == {"warning": 1}
    assert len(captured.of("stt_result")) == 1


def test_voicelogs_own_records_are_not_sent(lenient: Capture) -> None:
    """Else a warning about an event would make an event."""
    logger, handler = logging.getLogger("voicelog"), voicelog.LogHandler()
    logger.addHandler(handler)
    try:
        logging.getLogger("voicelog").warning("own")
        logging.getLogger("voicelog.librdkafka").critical("own")
        logging.getLogger("voicelog_sink.run").warning("own")
        with voicelog.stage("outside"):
            pass
    finally:
        logger.removeHandler(handler)
    assert lenient.messages == []


def test_the_handlers_level_counts(captured: Capture) -> None:
    handler = voicelog.LogHandler(level=logging.ERROR)
    logger = logging.getLogger("levelled")
    logger.addHandler(handler)
    try:
        logger.warning("no")
        logger.error("yes")
    finally:
        logger.removeHandler(handler)
    assert [event.message for event in captured.events] == ["yes"]


def test_switched_off_nothing_is_sent(log: logging.Logger) -> None:
    log.warning("nobody hears it")
