"""Decorated callables behave as undecorated, in each of the four kinds, and are timed."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voicelog
from voicelog.context import stage_var
from voicelog.errors import ConfigError
from voicelog.testing import Capture, capture


def plain(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


async def coroutine(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


def generator(a: int, b: int = 2) -> Generator[int, Any, str]:
    """Count."""
    yield from (a, b)
    return "done"


async def async_generator(a: int, b: int = 2) -> AsyncGenerator[int, Any]:
    """Count."""
    yield a
    yield b


KINDS = (plain, coroutine, generator, async_generator)
FORMS: list[Callable[[Any], Any]] = [voicelog.stage, voicelog.stage(), voicelog.stage("own", provider="p")]
TESTS = (
    inspect.isfunction, inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction,
    asyncio.iscoroutinefunction,
)  # fmt: skip


def drain(made: Any) -> Any:
    """Run what a call of any kind gave, to its end."""
    if inspect.isasyncgen(made):

        async def collect() -> list[Any]:
            return [item async for item in made]

        return asyncio.run(collect())
    if inspect.iscoroutine(made):
        return asyncio.run(made)
    return list(made) if inspect.isgenerator(made) else made


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_kind_name_doc_and_signature_stay(function: Any, form: Any) -> None:
    decorated = form(function)
    assert [test(decorated) for test in TESTS] == [test(function) for test in TESTS]
    assert (decorated.__name__, decorated.__doc__, decorated.__module__) == (
        function.__name__, function.__doc__, function.__module__,
    )  # fmt: skip
    assert inspect.signature(decorated) == inspect.signature(function)
    assert decorated.__wrapped__ is function


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize(("form", "name"), [*zip(FORMS, [None, None, "own"], strict=True)])
def test_the_result_is_the_same_and_a_stage_is_recorded(captured: Capture, function: Any, form: Any, name: Any) -> None:
    decorated = form(function)
    with voicelog.session():
        assert drain(decorated(1, b=5)) == drain(function(1, b=5))
        assert drain(decorated(2)) == drain(function(2))
    first, second = captured.of("stage")
    assert (first.stage, second.stage) == (name or function.__name__,) * 2
    assert first.provider == ("p" if name else None)
    assert first.items == (2 if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function) else None)


@pytest.mark.parametrize("function", KINDS)
def test_switched_off_it_is_the_function(function: Any) -> None:
    assert drain(voicelog.stage(function)(1, b=5)) == drain(function(1, b=5))


@pytest.mark.parametrize("function", KINDS)
def test_outside_of_a_session_it_is_the_function(lenient: Capture, function: Any) -> None:
    assert drain(voicelog.stage(function)(1, b=5)) == drain(function(1, b=5))
    assert lenient.counters.snapshot()["dropped"] == {"no_session": 1}


class Waiting:
    async def __call__(self) -> bool:
        await asyncio.sleep(0)
        return voicelog.current_stage().name == "own"


class Streaming:
    async def __call__(self) -> AsyncGenerator[bool]:
        yield voicelog.current_stage().name == "own"


class Counting:
    def __call__(self) -> Generator[bool]:
        yield voicelog.current_stage().name == "own"


@pytest.mark.parametrize(("called", "result"), [(Waiting(), True), (Streaming(), [True]), (Counting(), [True])])
def test_an_object_that_is_called_is_timed_while_what_it_gave_runs(captured: Capture, called: Any, result: Any) -> None:
    with voicelog.session():
        assert drain(voicelog.stage("own")(called)()) == result
    assert len(captured.of("stage")) == 1


def test_methods_of_each_kind_are_decorated(captured: Capture) -> None:
    class Bot:
        greeting = "hi"

        @voicelog.stage
        def method(self) -> str:
            return self.greeting

        @staticmethod
        @voicelog.stage
        def static(a: int) -> int:
            return a

        @classmethod
        @voicelog.stage
        def of_class(cls) -> str:
            return cls.greeting

        @property
        @voicelog.stage
        def prop(self) -> str:
            return self.greeting

    with voicelog.session():
        bot = Bot()
        assert (bot.method(), Bot.static(5), Bot.of_class(), bot.prop) == ("hi", 5, "hi", "hi")
    assert [event.stage for event in captured.of("stage")] == ["method", "static", "of_class", "prop"]


@pytest.mark.parametrize("wrong", [staticmethod(plain), classmethod(plain), property(plain), 5, None, Exception])
def test_what_can_not_be_timed_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected a function, coroutine function, generator"):
        voicelog.stage("x")(wrong)


def test_a_function_without_a_name_needs_one_given() -> None:
    with pytest.raises(ConfigError, match=r"it has no name; give one: @voicelog.stage\('name'\)"):
        voicelog.stage(functools.partial(plain, 1))
    assert voicelog.stage("x")(functools.partial(plain, 1))() == 3


@pytest.mark.parametrize("function", KINDS)
def test_fields_given_to_the_decorator_are_on_every_event(captured: Capture, function: Any) -> None:
    decorated = voicelog.stage("tts", voice="alloy", sample_rate_hz=8000, room="k", usage={"characters_count": 3})(
        function
    )
    with voicelog.session():
        drain(decorated(1))
        drain(decorated(1))
    for event in captured.of("tts_result"):
        assert (event.voice, event.sample_rate_hz, event.attributes) == ("alloy", 8000, {"room": "k"})
        assert event.usage == {"characters_count": 3}


def test_one_calls_fields_are_not_anothers(captured: Capture) -> None:
    @voicelog.stage
    def work(n: int) -> None:
        if n == 1:
            voicelog.current_stage().set(n=n)
            voicelog.current_stage().usage(input_tokens=n)

    with voicelog.session():
        work(1)
        work(2)
    assert [(event.attributes, event.usage) for event in captured.of("stage")] == [
        ({"n": 1}, {"input_tokens": 1}),
        (None, None),
    ]


def test_recursion_nests(captured: Capture) -> None:
    @voicelog.stage
    def down(n: int) -> int:
        return n and down(n - 1)

    with voicelog.session():
        down(3)
    events = captured.of("stage")
    assert [event.parent_id for event in events] == [*(event.span_id for event in events[1:]), None]


def test_a_recursive_generator_nests_and_counts_its_own_items(captured: Capture) -> None:
    @voicelog.stage
    def walk(n: int) -> Generator[int]:
        yield n
        if n:
            yield from walk(n - 1)

    with voicelog.session():
        assert list(walk(2)) == [2, 1, 0]
    assert [event.items for event in captured.of("stage")] == [1, 2, 3]
    spans = [event.span_id for event in captured.of("stage")]
    assert [event.parent_id for event in captured.of("stage")] == [spans[1], spans[2], None]


def test_one_decorated_function_runs_in_many_tasks_and_threads_at_once(captured: Capture) -> None:
    @voicelog.stage("llm")
    async def tokens(n: int) -> AsyncGenerator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def consume(n: int) -> int:
        return len([token async for token in tokens(n)])

    async def main() -> list[int]:
        return await asyncio.gather(*(consume(n) for n in range(1, 6)))

    def thread() -> None:
        asyncio.run(main())

    with voicelog.session():
        threads = [threading.Thread(target=voicelog.copy_context(thread)) for _ in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert sorted(event.items for event in captured.of("llm_request")) == sorted([1, 2, 3, 4, 5] * 3)


# --- streaming: what is measured --------------------------------------------------------------------------------------


def test_a_stream_is_measured_without_the_consumers_time() -> None:
    with capture(step_ms=0) as captured:

        @voicelog.stage("llm")
        def tokens() -> Generator[str]:
            for wait_ms in (100, 30, 50):
                captured.clock.advance(wait_ms)
                yield "token"
            captured.clock.advance(7)

        with voicelog.session():
            for _ in tokens():
                captured.clock.advance(1000)
    (event,) = captured.of("llm_request")
    assert (event.first_item_ms, event.items, event.longest_gap_ms) == (100, 3, 50)
    assert (event.duration_ms, event.producer_ms) == (3187, 187)


def test_a_stream_without_items_says_so(captured: Capture) -> None:
    @voicelog.stage("llm")
    def nothing() -> Generator[str]:
        yield from ()

    with voicelog.session():
        assert list(nothing()) == []
    (event,) = captured.of("llm_request")
    assert (event.items, event.first_item_ms, event.longest_gap_ms, event.status) == (0, None, None, "ok")


def test_mark_first_in_a_generator_wins_over_its_first_item() -> None:
    with capture(step_ms=0) as captured:

        @voicelog.stage("llm")
        def tokens() -> Generator[str]:
            captured.clock.advance(10)
            voicelog.current_stage().mark_first()
            captured.clock.advance(10)
            yield "token"

        with voicelog.session():
            list(tokens())
    assert captured.of("llm_request")[0].first_item_ms == 10


@pytest.mark.parametrize("how", ["break", "close", "gc"])
def test_an_abandoned_generator_ends_at_its_last_item(how: str) -> None:
    with capture(step_ms=0) as captured:
        closed = []

        @voicelog.stage("tts")
        def audio() -> Generator[bytes]:
            try:
                while True:
                    captured.clock.advance(10)
                    yield b"frame"
            finally:
                closed.append(voicelog.current_stage().name)
                captured.clock.advance(500)

        with voicelog.session():
            frames = audio()
            next(frames)
            next(frames)
            captured.clock.advance(60_000)
            if how == "close":
                frames.close()
            del frames
            gc.collect()
            assert stage_var.get() is None
    assert closed == ["tts"]
    (event,) = captured.of("tts_result")
    assert (event.status, event.items, event.duration_ms, event.error) == ("interrupted", 2, 20, None)


def test_an_abandoned_async_generator_ends_at_its_last_item() -> None:
    with capture(step_ms=0) as captured:

        @voicelog.stage("tts")
        async def audio() -> AsyncGenerator[bytes]:
            while True:
                captured.clock.advance(10)
                yield b"frame"

        async def main(close: bool) -> None:
            frames = audio()
            async for _ in frames:
                break
            captured.clock.advance(60_000)
            if close:
                await frames.aclose()
            del frames
            gc.collect()
            await asyncio.sleep(0)

        with voicelog.session():
            for close in (True, False):
                asyncio.run(main(close))
    assert [(e.status, e.items, e.duration_ms) for e in captured.of("tts_result")] == [("interrupted", 1, 10)] * 2


@pytest.mark.parametrize("decorate", [lambda function: function, voicelog.stage("tts")], ids=["bare", "decorated"])
def test_a_loop_that_ends_closes_an_open_async_generator_in_order(captured: Capture, decorate: Any) -> None:
    said: list[str] = []

    @decorate
    async def audio() -> AsyncGenerator[bytes]:
        try:
            yield b"frame"
        finally:
            await asyncio.sleep(0)
            said.append("closed")

    async def main() -> AsyncGenerator[bytes]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
        frames = audio()
        await anext(frames)
        return frames

    with voicelog.session():
        asyncio.run(main())
    assert said == ["closed"]


def test_a_generator_that_is_never_started_is_no_stage(captured: Capture) -> None:
    with voicelog.session():
        voicelog.stage(generator)(1).close()
        del captured.messages[0]
    assert captured.of("stage") == []


def test_an_exception_after_the_first_item_is_recorded_and_goes_on(captured: Capture) -> None:
    error = ValueError("cut off")

    @voicelog.stage("llm")
    def tokens() -> Generator[str]:
        yield "one"
        raise error

    with voicelog.session():
        made = tokens()
        assert next(made) == "one"
        with pytest.raises(ValueError, match="cut off") as caught:
            next(made)
        assert caught.value is error
    (event,) = captured.of("llm_request")
    assert (event.status, event.items, event.error.message) == ("error", 1, "cut off")


def test_a_cancelled_async_generator_is_cancelled(captured: Capture) -> None:
    @voicelog.stage("llm")
    async def tokens() -> AsyncGenerator[str]:
        yield "one"
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in tokens():
            pass

    async def main() -> None:
        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    with voicelog.session():
        asyncio.run(main())
    (event,) = captured.of("llm_request")
    assert (event.status, event.items, event.error) == ("cancelled", 1, None)


# --- streaming: the context -------------------------------------------------------------------------------------------


def test_nothing_of_a_generator_leaks_into_its_consumer(captured: Capture) -> None:
    seen = []

    @voicelog.stage("llm")
    def tokens() -> Generator[int]:
        for n in range(2):
            with voicelog.stage("inner"):
                seen.append(voicelog.current_stage().name)
                yield n
                seen.append(voicelog.current_stage().name)
            seen.append(voicelog.current_stage().name)

    with voicelog.session(), voicelog.stage("consumer") as consumer:
        for _ in tokens():
            assert voicelog.current_stage() is consumer
        assert voicelog.current_stage() is consumer
    assert seen == ["inner", "inner", "llm"] * 2
    spans = {event.stage: event.span_id for event in captured.events if event.stage}
    parents = {event.stage: event.parent_id for event in captured.events if event.stage}
    assert parents == {"consumer": None, "llm": spans["consumer"], "inner": spans["llm"]}


def test_interleaved_generators_keep_to_their_own_stage(captured: Capture) -> None:
    @voicelog.stage("a")
    def a() -> Generator[str]:
        for _ in range(3):
            yield voicelog.current_stage().name

    @voicelog.stage("b")
    def b() -> Generator[str]:
        for _ in range(3):
            yield voicelog.current_stage().name

    with voicelog.session():
        assert list(zip(a(), b(), strict=True)) == [("a", "b")] * 3
        assert not voicelog.current_stage()


def test_an_async_generator_stepped_by_different_tasks_leaks_into_none(captured: Capture) -> None:
    @voicelog.stage("llm")
    async def tokens() -> AsyncGenerator[str]:
        for _ in range(3):
            with voicelog.stage("inner"):
                yield voicelog.current_stage().name
        yield voicelog.current_stage().name

    async def step(made: AsyncGenerator[str]) -> str:
        name = await anext(made)
        assert not voicelog.current_stage()
        return name

    async def main() -> list[str]:
        made = tokens()
        names = [await asyncio.create_task(step(made)) for _ in range(4)]
        await made.aclose()
        return names

    with voicelog.session():
        assert asyncio.run(main()) == ["inner"] * 3 + ["llm"]


# --- send, throw and close: the same as undecorated, whatever is done -------------------------------------------------


class ThrownError(Exception):
    pass


def stubborn(script: tuple[str, ...]) -> Generator[Any, Any, Any]:
    """Answer each step by the script: yield what came, swallow or transform what is thrown, raise, or return."""
    came: Any = None
    for action in script:
        try:
            if action == "raise":
                raise KeyError(str(came))
            if action == "return":
                return came
            came = yield (action, came)
        except ThrownError as exc:
            came = ("caught", str(exc))
        except GeneratorExit:
            if action == "swallow":
                return "closed"
            if action == "fail":
                raise LookupError("in cleanup") from None
            raise
    return ("end", came)


async def async_stubborn(script: tuple[str, ...]) -> AsyncGenerator[Any, Any]:
    """The same, without a value to return."""
    came: Any = None
    for action in script:
        try:
            if action == "raise":
                raise KeyError(str(came))
            if action == "return":
                return
            await asyncio.sleep(0)
            came = yield (action, came)
        except ThrownError as exc:
            came = ("caught", str(exc))
        except GeneratorExit:
            if action == "swallow":
                return
            if action == "fail":
                raise LookupError("in cleanup") from None
            raise


SCRIPTS = st.lists(st.sampled_from(["yield", "yield", "raise", "return", "swallow", "fail"]), max_size=5).map(tuple)
STEPS = st.lists(st.sampled_from(["next", "next", "send", "throw", "stop", "exit", "close"]), max_size=6)
THROWN: dict[str, Callable[[], BaseException]] = {
    "throw": lambda: ThrownError("t"), "stop": lambda: StopIteration("s"), "exit": GeneratorExit,
}  # fmt: skip


def outcome(step: Callable[[], Any]) -> Any:
    try:
        return ("gave", step())
    except BaseException as exc:
        return (type(exc), str(exc), type(exc.__cause__))


def played(made: Generator[Any, Any, Any], steps: list[str]) -> list[Any]:
    actions = {"next": lambda: next(made), "send": lambda: made.send("sent"), "close": made.close}
    return [
        outcome(lambda step=step: made.throw(THROWN[step]()) if step in THROWN else actions[step]())
        for step in [*steps, "close", "close"]
    ]


async def async_outcome(awaitable: Any) -> Any:
    try:
        return ("gave", await awaitable)
    except BaseException as exc:
        return (type(exc), str(exc), type(exc.__cause__))


async def async_played(made: AsyncGenerator[Any, Any], steps: list[str]) -> list[Any]:
    actions = {"next": made.__anext__, "send": lambda: made.asend("sent"), "close": made.aclose}
    return [
        await async_outcome(made.athrow(THROWN[step]()) if step in THROWN else actions[step]())
        for step in [*steps, "close", "close"]
    ]


@given(SCRIPTS, STEPS)
def test_a_generator_answers_as_undecorated(script: tuple[str, ...], steps: list[str]) -> None:
    with capture() as captured, voicelog.session():
        decorated = voicelog.stage("x")(stubborn)(script)
        assert played(decorated, steps) == played(stubborn(script), steps)
        assert stage_var.get() is None
        assert decorated.gi_frame is None
        before_the_first_throw = itertools.takewhile(lambda step: step in ("next", "send"), steps)
        assert len(captured.of("stage")) == ("next" in before_the_first_throw)


@given(SCRIPTS, STEPS)
def test_an_async_generator_answers_as_undecorated(script: tuple[str, ...], steps: list[str]) -> None:
    async def main() -> tuple[list[Any], list[Any]]:
        decorated = voicelog.stage("x")(async_stubborn)(script)
        return await async_played(decorated, steps), await async_played(async_stubborn(script), steps)

    with capture(), voicelog.session():
        found, expected = asyncio.run(main())
        assert found == expected
        assert stage_var.get() is None


def test_a_thrown_exception_leaves_no_cycle_behind(captured: Capture) -> None:
    """A frame that holds the exception that holds the frame would keep the user's objects until a collection."""

    @voicelog.stage("x")
    def echo() -> Generator[None]:
        yield

    class Held:
        pass

    import weakref

    def run() -> weakref.ref[Held]:
        held = Held()
        made = echo()
        next(made)
        with suppress(ThrownError):
            made.throw(ThrownError(held))
        return weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        with voicelog.session():
            assert run()() is None
    finally:
        gc.enable()
