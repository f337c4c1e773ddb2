"""What is current: the session in a context variable, the turn an attribute of that session, the stage its own.

A turn opened in one task is therefore seen by the tasks that were started before it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voicelog.session import Session
    from voicelog.stage import Stage

session_var: ContextVar[Session | None] = ContextVar("voicelog_session", default=None)
stage_var: ContextVar[Stage | None] = ContextVar("voicelog_stage", default=None)
