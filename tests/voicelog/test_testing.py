"""What users get for their own tests."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path

import pytest

import voicelog
from voicelog.client import state
from voicelog.errors import ConfigError
from voicelog.testing import START_US, Capture, CountingIds, StepClock, capture

pytest_plugins = ["pytester"]


def bot() -> None:
    with voicelog.session(), voicelog.turn(), voicelog.stage("llm") as llm:
        llm.mark_first()


def test_two_runs_are_equal_to_the_last_field() -> None:
    runs = []
    for _ in range(2):
        with capture() as captured:
            bot()
            runs.append(captured.messages)
    assert runs[0] == runs[1]


def test_the_clock_steps_at_each_reading_and_by_hand() -> None:
    clock = StepClock(step_ms=2)
    assert [clock.now_ns(), clock.now_ns()] == [2_000_000, 4_000_000]
    clock.advance(0.5)
    assert (clock.wall_us(), clock.now_ns()) == (START_US + 4500, 6_500_000)


def test_ids_count() -> None:
    ids = CountingIds()
    assert [ids.session(), ids.session(), ids.stream(), ids.stream()] == [
        "session-1", "session-2", "0000000100000000", "0000000200000000",
    ]  # fmt: skip


def test_what_was_before_is_back_after_it() -> None:
    with capture() as outer, voicelog.session("outer"):
        with capture() as inner:
            assert not voicelog.current_session()
            bot()
        assert voicelog.current_session().id == "outer"
    assert state.current is None
    assert {event.session_id for event in outer.events} == {"outer"}
    assert {event.session_id for event in inner.events} == {"session-1"}


def test_what_was_before_is_back_after_an_exception() -> None:
    with pytest.raises(KeyError), capture():
        raise KeyError
    assert state.current is None


def test_configure_in_the_code_under_test_leaves_the_capture_in_place(captured: Capture) -> None:
    client = state.current
    voicelog.configure(brokers="127.0.0.1:1", service="bot")
    assert state.current is client
    with pytest.raises(ConfigError, match="did you mean brokers"):
        voicelog.configure(broker="127.0.0.1:1")
    bot()
    assert len(captured.events) == 4


def test_shutdown_in_the_code_under_test_is_seen(lenient: Capture) -> None:
    bot()
    assert voicelog.shutdown() == 0
    bot()
    assert len(lenient.events) == 4
    assert voicelog.stats()["dropped"] == {"closed": 4}


def test_stats_and_flush_work_as_with_a_broker(captured: Capture) -> None:
    bot()
    assert voicelog.flush() == 0
    found = voicelog.stats()
    assert (found["enabled"], found["produced"], found["delivered"], found["queued"]) == (True, 4, 4, 0)


def test_a_full_queue_can_be_tried(captured: Capture) -> None:
    captured.full = True
    bot()
    assert captured.events == []
    assert voicelog.stats()["dropped"] == {"queue_full": 4}


def test_wrong_use_raises_or_is_counted_as_asked() -> None:
    with capture(), pytest.raises(ConfigError, match="outside of a session"), voicelog.stage("x"):
        pass
    with capture(strict=False), voicelog.stage("x"):
        assert voicelog.stats()["dropped"] == {"no_session": 1}


def test_settings_can_be_given_and_are_checked() -> None:
    with capture(capture_content="none", service="bot") as captured, voicelog.session():
        voicelog.publish_stt_result("secret")
    assert (captured.of("stt_result")[0].transcript, captured.of("stt_result")[0].service) == (None, "bot")
    with pytest.raises(ConfigError, match="is no setting of voicelog"), capture(nonsense=1):
        pass


def test_events_are_found_by_type_stage_and_session(captured: Capture) -> None:
    for name in ("first", "second"):
        with voicelog.session(name), voicelog.turn():
            voicelog.publish_stt_result("hello")
            with voicelog.stage("llm"), voicelog.stage("tool"):
                pass
    voicelog.metric("m", 1)
    assert [event.stage for event in captured.stages()] == ["stt", "tool", "llm"] * 2
    assert [event.TYPE for event in captured.stages("llm")] == ["llm_request"] * 2
    assert [turn.turn_number for turn in captured.turns] == [1, 1]
    assert captured.turns == captured.of("turn")
    first = captured.session("first")
    assert [event.TYPE for event in first] == [
        "session_started", "stt_result", "stage", "llm_request", "turn", "session_ended",
    ]  # fmt: skip
    assert captured.events == [*first, *captured.session("second"), *captured.of("metric")]


def test_clear_forgets_the_events_so_far_and_the_ids_go_on(captured: Capture) -> None:
    bot()
    captured.clear()
    assert captured.events == []
    bot()
    assert {event.session_id for event in captured.events} == {"session-2"}


def test_no_thread_runs(captured: Capture) -> None:
    before = threading.active_count()
    bot()
    voicelog.metric("m", 1)
    assert threading.active_count() == before


def test_left_in_another_context_than_entered_it_ends() -> None:
    """As fixtures of asynchronous test plugins do."""
    block = capture()

    async def run(step: str) -> None:
        await asyncio.create_task(one(step))

    async def one(step: str) -> None:
        block.__enter__() if step == "enter" else block.__exit__(None, None, None)

    asyncio.run(run("enter"))
    asyncio.run(run("exit"))
    assert state.current is None


def test_the_fixture_is_there_for_who_installed_voicelog(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        import voicelog

        def test_my_bot(voicelog_capture):
            with voicelog.session(), voicelog.stage("stt"):
                pass
            assert [event.stage for event in voicelog_capture.events if event.stage] == ["stt"]

        @pytest.mark.voicelog(service="bot", strict=False, step_ms=5)
        def test_with_settings(voicelog_capture):
            with voicelog.session(), voicelog.stage("stt"):
                voicelog.metric("m", "no number")
            (stage,) = voicelog_capture.stages("stt")
            assert (stage.service, stage.duration_ms) == ("bot", 5.0)
            assert voicelog.stats()["invalid"] == {"metric": 1}

        def test_off_again():
            assert voicelog.stats()["enabled"] is False
        """
    )
    options = ("-q", "--strict-markers", "-p", "no:randomly", "-p", "no:cacheprovider")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=3)


def page_blocks() -> list[str]:
    page = (Path(__file__).parents[2] / "docs/how-to/test-your-bot.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def test_what_the_how_to_page_shows_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("\n".join(page_blocks()))
    pytester.runpytest_subprocess("-q", "--strict-markers", "-p", "no:cacheprovider").assert_outcomes(passed=6)
