"""The watcher: a stage that hangs is told of while it hangs, once, and none is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import voicelog
from voicelog.client import state
from voicelog.events import StageStarted
from voicelog.testing import START_US, Capture, capture
from voicelog.watch import Watcher

HOUR_MS = 3_600_000


@pytest.fixture
def watched() -> Iterator[tuple[Capture, Watcher]]:
    """Captured events, and a watcher without a thread."""
    with capture(step_ms=0) as captured:
        client = state.current
        assert client is not None
        watcher = client.watcher = Watcher(client, HOUR_MS)
        yield captured, watcher


def test_a_stage_that_is_open_for_too_long_is_told_of_once(watched: tuple[Capture, Watcher]) -> None:
    captured, watcher = watched
    with voicelog.session("call"), voicelog.turn("t"), voicelog.stage("llm", provider="p", model="m", prompt="secret"):
        watcher.tell()
        captured.clock.advance(HOUR_MS)
        watcher.tell()
        watcher.tell()
    assert captured.of("stage_started") == [
        StageStarted(
            stream_id="0000000200000000", seq=2, ts=START_US, session_id="call", turn_id="t", stage="llm", provider="p",
            model="m", service="test", host="test-host", span_id="0000000210000000",
        )
    ]  # fmt: skip
    assert captured.of("llm_request")[0].span_id == "0000000210000000"


def test_a_stage_that_ended_in_time_is_not_told_of(watched: tuple[Capture, Watcher]) -> None:
    captured, watcher = watched
    with voicelog.session():
        with voicelog.stage("x"):
            captured.clock.advance(HOUR_MS - 1)
            watcher.tell()
        captured.clock.advance(HOUR_MS)
        watcher.tell()
    assert captured.of("stage_started") == []


def test_each_stage_of_many_is_told_of_although_addresses_come_again(watched: tuple[Capture, Watcher]) -> None:
    captured, watcher = watched
    with voicelog.session():
        for _ in range(20):
            with voicelog.stage("x"):
                captured.clock.advance(HOUR_MS)
                watcher.tell()
    assert len(captured.of("stage_started")) == 20


def test_stages_that_never_end_are_not_kept(watched: tuple[Capture, Watcher]) -> None:
    captured, watcher = watched
    with voicelog.session():
        for _ in range(100):
            voicelog.stage("x").begin()
        captured.clock.advance(HOUR_MS)
        watcher.tell()
    assert watcher.open == {}
    assert len(captured.of("stage_started")) == 100


def test_after_the_session_nothing_is_told(watched: tuple[Capture, Watcher]) -> None:
    captured, watcher = watched
    with voicelog.session():
        voicelog.stage("x").begin()
    captured.clock.advance(HOUR_MS)
    watcher.tell()
    assert [event.TYPE for event in captured.events] == ["session_started", "session_ended"]
