"""Attempts: retries and failovers within a stage, who answered, and that the program's own retrying is left alone."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.voicelog.strategies import ANYTHING, Awkward, BadMapping

import voicelog
from voicelog.attempts import MAX_ATTEMPTS, MAX_MESSAGE_CHARS, MAX_STACK_CHARS, NO_ATTEMPT
from voicelog.errors import ConfigError
from voicelog.events import Attempt, ErrorInfo, LlmRequest
from voicelog.testing import START_US, Capture, capture


class BusyError(Exception):
    pass


def fail_late(captured: Capture, exc: BaseException) -> None:
    captured.clock.advance(100)
    raise exc


def tell_and_raise(attempt: voicelog.Attempt, exc: BaseException) -> None:
    attempt.fail(BusyError("before"))
    raise exc


def bare(attempts: list[Attempt] | None) -> list[tuple[str | None, str | None, str]]:
    return [(attempt.provider, attempt.model, attempt.status) for attempt in attempts or []]


def test_a_failover_is_recorded_and_the_stage_names_who_answered(captured: Capture) -> None:
    with voicelog.session("call"), voicelog.stage("llm", provider="openai", model="gpt-4o") as llm:
        captured.clock.advance(10)
        with pytest.raises(BusyError) as caught, llm.attempt():
            fail_late(captured, BusyError("429"))
        with llm.attempt(provider="anthropic", model="haiku") as second:
            assert second
            captured.clock.advance(50)
            llm.mark_first()
    (event,) = captured.of("llm_request")
    assert caught.value.args == ("429",)
    stack = event.attempts[0].error.stack
    assert stack.endswith("test_attempts.BusyError: 429\n")
    assert event == LlmRequest(
        stream_id="0000000200000000", seq=2, ts=START_US + 3_000, session_id="call", stage="llm", duration_ms=166.0,
        first_item_ms=164.0, status="ok", service="test", host="test-host", provider="anthropic", model="haiku",
        span_id=event.span_id,
        attempts=[
            Attempt(
                provider="openai", model="gpt-4o", start_ms=11.0, duration_ms=101.0, status="error",
                error=ErrorInfo(type="tests.voicelog.test_attempts.BusyError", message="429", stack=stack),
            ),
            Attempt(provider="anthropic", model="haiku", start_ms=113.0, duration_ms=52.0, status="ok"),
        ],
    )  # fmt: skip


def test_one_attempt_that_answered_is_no_list(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm") as llm, llm.attempt(provider="openai", model="gpt-4o"):
        pass
    (event,) = captured.of("llm_request")
    assert (event.provider, event.model, event.attempts) == ("openai", "gpt-4o", None)


def test_one_attempt_that_failed_is_recorded_and_so_is_the_stage(captured: Capture) -> None:
    with (
        voicelog.session(),
        pytest.raises(BusyError),
        voicelog.stage("llm", provider="openai") as llm,
        llm.attempt(model="gpt-4o"),
    ):
        raise BusyError("429")
    (event,) = captured.of("llm_request")
    assert bare(event.attempts) == [("openai", "gpt-4o", "error")]
    assert (event.provider, event.model, event.status, event.error.message) == ("openai", "gpt-4o", "error", "429")
    assert captured.of("error") == []


def test_where_all_failed_the_last_one_is_named_and_the_stage_is_as_it_ended(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm", provider="openai", model="a") as llm:
        for model in ("b", "c"):
            with pytest.raises(BusyError), llm.attempt(model=model):
                raise BusyError
    (event,) = captured.of("llm_request")
    assert (event.status, event.error, event.provider, event.model) == ("ok", None, "openai", "c")
    assert bare(event.attempts) == [("openai", "b", "error"), ("openai", "c", "error")]


def test_the_last_that_was_ok_answered_and_not_the_last(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm") as llm:
        with llm.attempt(provider="fast"):
            pass
        with pytest.raises(BusyError), llm.attempt(provider="slow"):
            raise BusyError
    assert captured.of("llm_request")[0].provider == "fast"


@pytest.mark.parametrize(
    ("given_fields", "attempt", "named"),
    [
        ({"provider": "openai", "model": "a"}, {}, ("openai", "a")),
        ({"provider": "openai", "model": "a"}, {"model": "b"}, ("openai", "b")),
        ({"provider": "openai", "model": "a"}, {"provider": "openai"}, ("openai", "a")),
        ({"provider": "openai", "model": "a"}, {"provider": "groq"}, ("groq", None)),
        ({"provider": "openai", "model": "a"}, {"provider": "groq", "model": "c"}, ("groq", "c")),
        ({"model": "a"}, {"provider": "groq"}, ("groq", None)),
        ({"model": "a"}, {}, (None, "a")),
        ({}, {}, (None, None)),
    ],
)
def test_what_is_not_given_is_the_stages_and_a_model_belongs_to_its_provider(
    captured: Capture, given_fields: dict[str, Any], attempt: dict[str, Any], named: tuple[str | None, str | None]
) -> None:
    with voicelog.session(), voicelog.stage("llm", **given_fields) as llm:
        with pytest.raises(BusyError), llm.attempt(provider="first", model="x"):
            raise BusyError
        with llm.attempt(**attempt):
            pass
    (event,) = captured.of("llm_request")
    assert bare(event.attempts)[1] == (*named, "ok")
    if named != (None, None):
        assert (event.provider, event.model) == named


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: BusyError("x"), "error"), (asyncio.CancelledError, "cancelled"), (GeneratorExit, "interrupted"),
        (KeyboardInterrupt, "interrupted"),
    ],
)  # fmt: skip
def test_an_exception_goes_on_unchanged_and_decides_the_status(
    captured: Capture, make: Callable[[], BaseException], status: str
) -> None:
    exc = make()
    with voicelog.session(), voicelog.stage("llm") as llm, pytest.raises(type(exc)) as caught, llm.attempt():
        raise exc
    assert caught.value is exc
    (attempt,) = captured.of("llm_request")[0].attempts
    assert (attempt.status, attempt.error is not None) == (status, status == "error")


def test_a_failure_without_an_exception_is_told_with_fail(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm") as llm:
        with llm.attempt(provider="a") as attempt:
            attempt.fail(BusyError("503 in the body"))
        with pytest.raises(asyncio.CancelledError), llm.attempt(provider="b") as attempt:
            tell_and_raise(attempt, asyncio.CancelledError())
        with pytest.raises(ValueError, match="later"), llm.attempt(provider="c") as attempt:
            tell_and_raise(attempt, ValueError("later"))
    (event,) = captured.of("llm_request")
    assert [(a.status, a.error.message) for a in event.attempts] == [
        ("error", "503 in the body"), ("error", "before"), ("error", "later"),
    ]  # fmt: skip
    assert event.status == "ok"


def attempts_of_a_library(times: int) -> Iterator[Any]:
    """A loop as tenacity and stamina have: a context manager per try that swallows what it will try again."""
    left = [times]

    class Try:
        def __enter__(self) -> None:
            left[0] -= 1

        def __exit__(self, kind: Any, exc: BaseException | None, tb: Any) -> bool:
            done.append(exc is None)
            return exc is not None and left[0] > 0

    done: list[bool] = []
    while not (done and done[-1]):
        yield Try()


def test_a_retry_loop_of_a_library_goes_round_it(captured: Capture) -> None:
    answers = iter([BusyError("1"), BusyError("2"), "yes"])
    with voicelog.session(), voicelog.stage("llm", provider="openai") as llm:
        for attempt in attempts_of_a_library(5):
            with attempt, llm.attempt():
                answer = next(answers)
                if isinstance(answer, Exception):
                    raise answer
    (event,) = captured.of("llm_request")
    assert [a.status for a in event.attempts] == ["error", "error", "ok"]
    assert event.status == "ok"


def test_a_decorated_async_generator_finds_its_stage_and_streams_on(captured: Capture) -> None:
    @voicelog.stage("llm", provider="openai")
    async def answer() -> Any:
        llm = voicelog.current_stage()
        for provider in ("openai", "groq"):
            try:
                async with llm.attempt(provider=provider):
                    if provider == "openai":
                        raise BusyError
                    yield "a"
                    yield "b"
            except BusyError:
                continue

    async def main() -> list[str]:
        async with voicelog.session():
            return [token async for token in answer()]

    assert asyncio.run(main()) == ["a", "b"]
    (event,) = captured.of("llm_request")
    assert (event.status, event.provider, event.items) == ("ok", "groq", 2)
    assert bare(event.attempts) == [("openai", None, "error"), ("groq", None, "ok")]
    assert event.first_item_ms > event.attempts[0].duration_ms


def test_a_generator_that_is_closed_within_an_attempt_interrupts_both(captured: Capture) -> None:
    @voicelog.stage("llm")
    def answer() -> Iterator[str]:
        with voicelog.current_stage().attempt(provider="openai"):
            yield "a"
            yield "b"

    with voicelog.session():
        stream = answer()
        assert next(stream) == "a"
        stream.close()  # type: ignore[attr-defined]
    (event,) = captured.of("llm_request")
    assert (event.status, bare(event.attempts)) == ("interrupted", [("openai", None, "interrupted")])


def test_the_same_decorated_function_has_attempts_of_its_own_each_call(captured: Capture) -> None:
    @voicelog.stage("llm", provider="openai", model="a")
    def answer(provider: str) -> None:
        with voicelog.current_stage().attempt(provider=provider):
            raise BusyError

    with voicelog.session():
        for provider in ("x", "y"):
            with pytest.raises(BusyError):
                answer(provider)
    assert [bare(e.attempts) for e in captured.of("llm_request")] == [[("x", None, "error")], [("y", None, "error")]]


def test_a_stage_that_is_entered_again_is_what_it_was(captured: Capture) -> None:
    llm = voicelog.stage("llm", provider="openai", model="a")
    with voicelog.session():
        with llm:
            with pytest.raises(BusyError), llm.attempt(provider="groq"):
                raise BusyError
            with llm.attempt(provider="groq"):
                pass
        with llm:
            pass
    first, second = captured.of("llm_request")
    assert (first.provider, first.model, len(first.attempts)) == ("groq", None, 2)
    assert (second.provider, second.model, second.attempts) == ("openai", "a", None)


def test_an_attempt_that_is_still_open_at_the_stages_end_was_given_up(captured: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm") as llm:
        hedge = llm.attempt(provider="slow")
        hedge.__enter__()
        with llm.attempt(provider="fast"):
            captured.clock.advance(20)
    hedge.__exit__(None, None, None)
    (event,) = captured.of("llm_request")
    assert bare(event.attempts) == [("slow", None, "interrupted"), ("fast", None, "ok")]
    assert event.attempts[0].start_ms + event.attempts[0].duration_ms == event.duration_ms
    assert event.provider == "fast"


@pytest.fixture
def switching() -> Iterator[None]:
    """Let the threads take turns a thousand times as often, so that a race is met."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
def test_attempts_of_threads_that_begin_at_once_are_all_kept(captured: Capture) -> None:
    threads = 4
    ready = threading.Barrier(threads)

    def work(llm: voicelog.Stage, n: int) -> None:
        ready.wait(10)
        with llm.attempt(provider=f"p{n}"):
            pass

    with voicelog.session(), ThreadPoolExecutor(threads) as pool:
        for _ in range(200):
            with voicelog.stage("llm") as llm:
                list(pool.map(work, [llm] * threads, range(threads)))
    expected = [(f"p{n}", None, "ok") for n in range(threads)]
    assert [sorted(bare(event.attempts)) for event in captured.of("llm_request")] == [expected] * 200


def test_attempts_are_bounded_the_last_is_kept_and_who_answered_is_known(lenient: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm") as llm:
        for n in range(MAX_ATTEMPTS + 10):
            with llm.attempt(provider=f"p{n}") as attempt:
                if n != MAX_ATTEMPTS + 4:
                    attempt.fail(BusyError())
    (event,) = lenient.of("llm_request")
    assert len(event.attempts) == MAX_ATTEMPTS
    assert (event.attempts[-1].provider, event.provider) == (f"p{MAX_ATTEMPTS + 9}", f"p{MAX_ATTEMPTS + 4}")
    assert lenient.counters.snapshot()["invalid"] == {"stage.attempts": 10}


def test_an_attempts_error_is_cut_to_a_length_of_its_own(captured: Capture) -> None:
    def deep(n: int) -> None:
        if not n:
            raise BusyError("x" * 10_000)
        deep(n - 1) if n % 2 else _other(n)

    def _other(n: int) -> None:
        deep(n - 1)

    with voicelog.session(), voicelog.stage("llm") as llm, pytest.raises(BusyError), llm.attempt():
        deep(200)
    (attempt,) = captured.of("llm_request")[0].attempts
    assert len(attempt.error.message) == MAX_MESSAGE_CHARS
    assert MAX_STACK_CHARS < len(attempt.error.stack) < MAX_STACK_CHARS + 100


def test_where_nothing_is_recorded_an_attempt_does_nothing() -> None:
    def use(stage: voicelog.Stage) -> None:
        with pytest.raises(BusyError), stage.attempt(provider=Awkward()) as attempt:  # type: ignore[arg-type]
            tell_and_raise(attempt, BusyError())
        assert not attempt
        assert stage.attempt() is NO_ATTEMPT

    with voicelog.stage("llm") as off:
        use(off)
    use(voicelog.current_stage())
    with capture(strict=False) as captured, voicelog.stage("llm") as outside:
        use(outside)
    assert captured.messages == []


@given(ANYTHING, ANYTHING)
def test_whatever_an_attempt_is_given_the_stage_is_recorded(provider: Any, model: Any) -> None:
    with capture(strict=False) as captured:
        with voicelog.session(), voicelog.stage("llm") as llm:
            for _ in range(2):
                with llm.attempt(provider=provider, model=model):
                    pass
        assert len(captured.of("llm_request")[0].attempts) == 2
        assert captured.counters.snapshot()["faults"] == {}


def test_a_wrong_provider_is_left_out_and_counted(lenient: Capture) -> None:
    with voicelog.session(), voicelog.stage("llm", provider="openai") as llm, llm.attempt(provider=5):  # type: ignore[arg-type]
        pass
    assert lenient.of("llm_request")[0].provider == "openai"
    assert lenient.counters.snapshot()["invalid"] == {"attempt.provider": 1}


STATUS = st.sampled_from(["ok", "error", "cancelled"])


@given(st.lists(st.tuples(st.sampled_from("abc"), STATUS), max_size=8), st.booleans())
def test_who_answered_is_the_last_ok_or_the_last(tries: list[tuple[str, str]], nested: bool) -> None:
    """Holds for published attempts, and for those of a block; `nested` opens the stage within another."""
    raised = {"error": BusyError, "cancelled": asyncio.CancelledError}
    with capture() as captured, voicelog.session():
        with voicelog.stage("outer" if nested else "other"), voicelog.stage("llm") as llm:
            for provider, status in tries:
                try:
                    with llm.attempt(provider=provider):
                        if status != "ok":
                            raise raised[status]
                except (BusyError, asyncio.CancelledError):
                    pass
        voicelog.publish_llm_request(attempts=[{"provider": p, "status": s} for p, s in tries])
    answered = [provider for provider, status in tries if status == "ok"] or [provider for provider, _ in tries]
    for event in captured.of("llm_request"):
        assert event.provider == (answered[-1] if answered else None)
        several = len(tries) > 1 or any(status != "ok" for _, status in tries)
        assert bare(event.attempts) == ([(p, None, s) for p, s in tries] if several else [])


def test_published_attempts_are_recorded_and_name_who_answered(captured: Capture) -> None:
    with voicelog.session():
        voicelog.publish_llm_request(
            "yes", duration_ms=900,
            attempts=[
                {"provider": "openai", "model": "a", "duration_ms": 600, "error": BusyError("429")},
                {"provider": "groq", "duration_ms": 250, "start_ms": None},
            ],
        )  # fmt: skip
        voicelog.publish_llm_request("yes", provider="mine", attempts=[{"error": "429"}, {"provider": "groq"}])
    first, second = captured.of("llm_request")
    error = ErrorInfo(type="tests.voicelog.test_attempts.BusyError", message="429", stack=first.attempts[0].error.stack)
    assert first.attempts == [
        Attempt(provider="openai", model="a", start_ms=0, duration_ms=600, status="error", error=error),
        Attempt(provider="groq", start_ms=600, duration_ms=250, status="ok"),
    ]
    assert (first.provider, first.model, first.status) == ("groq", None, "ok")
    assert second.provider == "mine"
    assert second.attempts[0].error == ErrorInfo(type="error", message="429")


def test_a_published_attempt_whose_times_are_not_known_has_none(captured: Capture) -> None:
    with voicelog.session():
        voicelog.publish_llm_request(attempts=[{"error": "429"}, {"error": "429", "start_ms": 5}, {"duration_ms": 7}])
    times = [(one.start_ms, one.duration_ms) for one in captured.of("llm_request")[0].attempts]
    assert times == [(0.0, None), (5.0, None), (None, 7.0)]
    with voicelog.session():
        voicelog.publish_llm_request(attempts=[{"duration_ms": 1e308, "start_ms": 1e308}, {"duration_ms": 1e308}])
    assert captured.of("llm_request")[1].attempts[1].start_ms is None


@pytest.mark.parametrize(
    ("attempts", "kept"),
    [
        ("openai", None), ([5], None), (Awkward(), None), ([BadMapping(provider="a"), {}], None),
        ([{"provider": 5}, {}], [(None, None, "ok")] * 2),
        ([{"duration_ms": -1}, {}], [(None, None, "ok")] * 2),
        ([{"status": "fine"}, {}], [(None, None, "ok")] * 2),
        ([{"error": 5, "provider": "a"}, {}], [("a", None, "ok"), (None, None, "ok")]),
        ([{"unheard": 1}, {}], [(None, None, "ok")] * 2),
        ([{}] * (MAX_ATTEMPTS + 1), [(None, None, "ok")] * MAX_ATTEMPTS),
    ],
)  # fmt: skip
def test_published_attempts_that_do_not_fit_are_left_out_and_counted(attempts: Any, kept: Any) -> None:
    with capture(strict=False) as captured, voicelog.session():
        voicelog.publish_llm_request("yes", attempts=attempts)
    (event,) = captured.of("llm_request")
    assert (bare(event.attempts) if event.attempts is not None else None) == kept
    assert captured.counters.snapshot()["invalid"] == {"publish.attempts": 1}
    with capture(), voicelog.session(), pytest.raises(ConfigError, match="attempts"):
        voicelog.publish_llm_request("yes", attempts=attempts)


@given(
    st.one_of(
        ANYTHING,
        st.lists(
            st.one_of(
                ANYTHING,
                st.dictionaries(
                    st.sampled_from(["provider", "model", "start_ms", "duration_ms", "status", "error", "x"]), ANYTHING
                ),
            ),
            max_size=4,
        ),
    )
)
def test_whatever_is_published_as_attempts_the_event_can_be_read(attempts: Any) -> None:
    with capture(strict=False) as captured, voicelog.session():
        voicelog.publish_llm_request("yes", attempts=attempts)
    assert captured.of("llm_request")[0].response == "yes"
    assert captured.counters.snapshot()["faults"] == {}
