"""Hot: whether stages run in C, where the extension `voicelog._hot` was built, or in Python. Same events either way.

`VOICELOG_PURE_PYTHON=1` in the environment chooses Python; it is read once, at the import. `voicelog.stats()` says
which one runs, as `accelerated`.
"""

from __future__ import annotations

import logging
from types import ModuleType
from typing import TypeVar

from voicelog.client import Client, state
from voicelog.clock import Anchor
from voicelog.context import leave_elsewhere, session_var, stage_var
from voicelog.events import TOPIC_OF
from voicelog.given import MAX_NAME_CHARS, Given
from voicelog.plan import OTHER, PLANS, Plan
from voicelog.session import Session
from voicelog.settings import runs_in_python
from voicelog.stream import Stream
from voicelog.turn import MAX_STAGES, Turn
from voicelog.watch import Watcher

CONTRACT = 1
"""What this version expects of the extension; another one was built from other sources, and is not used."""

S = TypeVar("S", bound=Given)
_log = logging.getLogger("voicelog")


def accelerated(stage: type[S]) -> type[S]:
    """Return the subclass of `stage` that does the common case in C; `stage` itself where the extension is not used.

    A subclass without slots or a `__dict__` of its own, so that copies, pickles and weak references are as before.
    """
    extension = _extension()
    if extension is None:
        return stage
    try:
        found: type[S] = extension.bind(
            stage=stage, client=Client, session=Session, turn=Turn, stream=Stream, anchor=Anchor, plan=Plan,
            watcher=Watcher, plans=PLANS, other=OTHER, topics=TOPIC_OF, process=state, session_var=session_var,
            stage_var=stage_var, leave_elsewhere=leave_elsewhere, max_runs=MAX_STAGES, max_name=MAX_NAME_CHARS,
        )  # fmt: skip
    except (TypeError, AttributeError, RuntimeError) as exc:
        _log.warning("voicelog: stages run in Python, which is slower: the extension can't be used: %s", exc)
        return stage
    return found


def _extension() -> ModuleType | None:
    """Return the extension where it was built from these sources and is wanted."""
    if runs_in_python():
        return None
    try:
        from voicelog import _hot
    except ImportError:  # not built: no compiler was there, or another kind of Python
        return None
    if _hot.CONTRACT != CONTRACT:
        _log.warning("voicelog: stages run in Python, which is slower: the extension is of another version; rebuild it")
        return None
    return _hot
