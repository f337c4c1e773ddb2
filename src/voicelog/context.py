"""What is current: the session in a context variable, the turn an attribute of that session, the stage its own.

A turn opened in one task is therefore seen by the tasks that were started before it.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from voicelog.session import Session
    from voicelog.stage import Stage

session_var: ContextVar[Session | None] = ContextVar("voicelog_session", default=None)
stage_var: ContextVar[Stage | None] = ContextVar("voicelog_stage", default=None)

T = TypeVar("T")


def restore(var: ContextVar[T | None], token: Token[T | None], mine: T) -> None:
    """Undo the `set` that gave `token`, also where `mine` is left in another context than it was entered in."""
    try:
        var.reset(token)
    except ValueError:
        leave_elsewhere(var, token, mine)


def leave_elsewhere(var: ContextVar[T | None], token: Token[T | None], mine: T) -> None:
    """Undo the `set` that gave `token` in another context, where `mine` is still what is current here."""
    if var.get() is mine:
        before = token.old_value
        var.set(None if before is Token.MISSING else before)
