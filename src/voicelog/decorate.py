"""Decorating: the four kinds of callable, in one place. A decorated one behaves as the undecorated.

In a generator the stage is current only while the generator itself runs: it is set before each step and reset after
it, so that nothing leaks into the consumer, and the consumer's time between items is not counted as the producer's.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Token
from typing import TYPE_CHECKING, Any, TypeVar, cast

from voicelog.client import state
from voicelog.context import leave_elsewhere, stage_var
from voicelog.errors import ConfigError

if TYPE_CHECKING:
    from voicelog.stage import Stage

F = TypeVar("F", bound=Callable[..., Any])
MakeStage = Callable[[], "Stage"]


def decorate(function: F, make: MakeStage) -> F:
    """Return `function` timed by a new stage a call; raises ConfigError for what can't be timed."""
    if (
        isinstance(function, (staticmethod, classmethod, property))
        or not callable(function)
        or inspect.isclass(function)
    ):
        message = (
            f"@voicelog.stage on {function!r}: expected a function, coroutine function, generator function or async "
            "generator function; put it below @staticmethod, @classmethod or @property"
        )
        raise ConfigError(message)
    wrap: Callable[[Any, MakeStage], Any]
    if _is(inspect.isasyncgenfunction, function):
        wrap = _async_generator
    elif _is(inspect.isgeneratorfunction, function):
        wrap = _generator
    elif _is(inspect.iscoroutinefunction, function):
        wrap = _coroutine
    else:
        wrap = _function
    return cast(F, functools.wraps(function)(wrap(function, make)))


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    """Return whether a function, or what an object runs when it is called, is of this kind."""
    return kind(function) or kind(type(function).__call__)


def _function(function: Callable[..., Any], make: MakeStage) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if state.current is None:
            return function(*args, **kwargs)
        with make():
            return function(*args, **kwargs)

    return call


def _coroutine(function: Callable[..., Any], make: MakeStage) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        if state.current is None:
            return await function(*args, **kwargs)
        with make():
            return await function(*args, **kwargs)

    return call


def _generator(function: Callable[..., Any], make: MakeStage) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        if state.current is None:
            return (yield from function(*args, **kwargs))
        inner, steps, given = function(*args, **kwargs), _Steps(make()), None
        step = inner.send
        try:
            while True:
                steps.enter()
                try:
                    item = step(given)
                finally:
                    given = None  # an exception that was thrown in must not be held by this frame
                steps.gave()
                step = inner.send
                try:
                    given = yield item
                except BaseException as exc:
                    given, step = steps.thrown(exc), inner.throw
        except StopIteration as stop:
            steps.ended()
            return stop.value
        except BaseException as exc:
            steps.ended(exc)
            raise

    return call


def _async_generator(function: Callable[..., Any], make: MakeStage) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner, steps, given = function(*args, **kwargs), _Steps(make()), None
        step = _first_of(inner)
        try:
            while True:
                steps.enter()
                try:
                    item = await step(given)
                finally:
                    given = None
                steps.gave()
                step = inner.asend
                try:
                    given = yield item
                except BaseException as exc:
                    given, step = steps.thrown(exc), inner.athrow
        except StopAsyncIteration:
            steps.ended()
        except BaseException as exc:
            steps.ended(exc)
            raise

    return call


def _first_of(inner: AsyncGenerator[Any, Any]) -> Callable[[Any], Any]:
    """Return the first step of a generator that the event loop is not told of, as it is told of the one around it.

    A loop that ends closes all that it knows at once, and would find the inner one in the middle of being closed.
    """

    def step(given: Any) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return inner.asend(given)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return step


class _Steps:
    """A stage that is current only within the steps of its generator, and measures them."""

    __slots__ = ("_began_ns", "_closing", "_inside", "_items", "_now_ns", "_span", "_stage", "_token")

    def __init__(self, stage: Stage) -> None:
        stage.begin(streaming=True)
        client = state.current
        self._now_ns = client.now_ns if client is not None else time.perf_counter_ns
        self._stage = stage
        self._items = stage.items
        """None when the stage is not recorded: the steps then do nothing."""
        self._span = stage.span
        self._inside: Stage | None = stage
        """What is current within the generator: the stage, or one that the generator opened and has not left."""
        self._token: Token[Stage | None] | None = None
        self._began_ns = 0
        self._closing: GeneratorExit | None = None

    def enter(self) -> None:
        """Begin a step."""
        if self._items is not None:
            self._token = stage_var.set(self._inside)
            if self._span is not None:
                self._span.enter()
            self._began_ns = self._now_ns()

    def gave(self) -> None:
        """End a step that gave an item, and count it."""
        items = self._items
        if items is None:
            return
        now_ns = self._now_ns()
        self._closing = None
        if items.took(self._began_ns, now_ns) == 1:
            self._stage.first_item(now_ns)
        self._leave()

    def _leave(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            self._inside = stage_var.get()
            try:
                stage_var.reset(token)
            except ValueError:
                leave_elsewhere(stage_var, token, self._inside)
        if self._span is not None:
            self._span.leave()

    def thrown(self, exc: BaseException) -> BaseException:
        """Take an exception that the consumer throws in; a GeneratorExit is the end of the consumer's interest."""
        self._closing = exc if isinstance(exc, GeneratorExit) else None
        return exc

    def ended(self, exc: BaseException | None = None) -> None:
        """Finish the stage: by `exc`, by a close, or in the ordinary way."""
        items, closing = self._items, self._closing
        if items is None:
            return
        now_ns = self._now_ns()
        self._leave()
        if closing is not None and (exc is None or isinstance(exc, GeneratorExit)):
            self._stage.finish(closing, at_last_item=True)
            return
        items.waited(self._began_ns, now_ns)
        self._stage.finish(exc)
