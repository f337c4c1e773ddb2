"""Failures: an exception as the `error` field, and what an exception that leaves a block means for its status."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import suppress
from typing import Any

MAX_STACK_CHARS = 16_000
MAX_MESSAGE_CHARS = 4_000
_MARK = "_voicelog_recorded_in"
_CANCELLED: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
_INTERRUPTED: tuple[type[BaseException], ...] = (GeneratorExit, KeyboardInterrupt, SystemExit)


def status_of(exc: BaseException) -> str:
    """Return how a stage ended that `exc` left: error, cancelled or interrupted."""
    kind = type(exc)
    if issubclass(kind, _CANCELLED):
        return "cancelled"
    return "interrupted" if issubclass(kind, _INTERRUPTED) else "error"


def describe(exc: BaseException) -> dict[str, Any]:
    """Return type, message and stack trace; never raises, however broken the exception's own methods are."""
    kind = type(exc)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "message": _message(exc)[:MAX_MESSAGE_CHARS], "stack": _stack(exc)}


def recorded(exc: BaseException, stream_id: str) -> None:
    """Remember on the exception that a stream has it, so that no other event of the stream repeats it.

    On the exception itself: its id() is another's as soon as it is gone, and holding it would hold its frames.
    """
    with suppress(Exception):
        BaseException.__setattr__(exc, _MARK, stream_id)


def is_recorded(exc: BaseException, stream_id: str) -> bool:
    """Return whether a stream has the exception already."""
    return getattr(exc, "__dict__", {}).get(_MARK) == stream_id


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:
        return f"<str() of it fails: {type(broken).__name__}>"


def _stack(exc: BaseException) -> str | None:
    if not issubclass(type(exc), BaseException):
        return None
    try:
        text = "".join(traceback.format_exception(exc))
    except Exception as broken:
        return f"<its traceback can't be formatted: {type(broken).__name__}>"
    if len(text) <= MAX_STACK_CHARS:
        return text
    half = MAX_STACK_CHARS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters cut ...\n{text[-half:]}"
