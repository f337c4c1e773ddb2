"""Decorating: the four kinds of callable, in one place. A decorated one behaves as the undecorated.

In a generator the stage is current only while the generator itself runs: it is set before each step and reset after
it, so that nothing leaks into the consumer, and the consumer's time between items is not counted as the producer's.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from voicelog.client import state
from voicelog.context import stage_var
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
    if inspect.isasyncgenfunction(function):
        wrap = _async_generator
    elif inspect.isgeneratorfunction(function):
        wrap = _generator
    elif inspect.iscoroutinefunction(function):
        wrap = _coroutine
    else:
        wrap = _function
    return cast(F, functools.wraps(function)(wrap(function, make)))


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


def _now_ns() -> int:
    client = state.current
    return client.clock.now_ns() if client is not None else time.perf_counter_ns()


def _generator(function: Callable[..., Any], make: MakeStage) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        stage = make()
        stage.begin()
        step, given = inner.send, None
        try:
            while True:
                began_ns, token = _now_ns(), stage_var.set(stage)
                try:
                    item = step(given)
                finally:
                    stage_var.reset(token)
                stage.took_item(began_ns, _now_ns())
                try:
                    given, step = (yield item), inner.send
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as exc:
                    given, step = exc, inner.throw
        except StopIteration as stop:
            stage.finish()
            return stop.value
        except GeneratorExit as exc:
            stage.finish(exc, at_last_item=True)
            raise
        except BaseException as exc:
            stage.finish(exc)
            raise

    return call


def _async_generator(function: Callable[..., Any], make: MakeStage) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = function(*args, **kwargs)
        stage = make()
        stage.begin()
        step, given = inner.asend, None
        try:
            while True:
                began_ns, token = _now_ns(), stage_var.set(stage)
                try:
                    item = await step(given)
                finally:
                    stage_var.reset(token)
                stage.took_item(began_ns, _now_ns())
                try:
                    given, step = (yield item), inner.asend
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as exc:
                    given, step = exc, inner.athrow
        except StopAsyncIteration:
            stage.finish()
        except GeneratorExit as exc:
            stage.finish(exc, at_last_item=True)
            raise
        except BaseException as exc:
            stage.finish(exc)
            raise

    return call
