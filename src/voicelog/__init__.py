"""voicelog: what happened in a voice call, and how long each part took.

configure()                            switch it on: where events go, and as whom
session(), turn(), stage()             a call, a turn in it, a timed part of the turn
current_session(), current_turn(), current_stage()
choose_variant()                       the A/B variant of a call
inject(), extract(), copy_context()    hand a session to another process or thread
publish_*(), metric(), log_error(), health(), LogHandler    what has no block to wrap
flush(), shutdown(), stats()           the end, and what was counted
voicelog.redact                        ready-made redactors for configure(redact=...)
voicelog.testing                       the same without a broker, for tests

Nothing of it blocks or breaks the program: what goes wrong is counted, and said once.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from voicelog.api import configure, flush, shutdown, stats
from voicelog.attempts import Attempt
from voicelog.handover import copy_context, extract, inject
from voicelog.logs import LogHandler
from voicelog.publish import (
    health,
    log_error,
    metric,
    publish_llm_request,
    publish_log,
    publish_stt_result,
    publish_tts_result,
)
from voicelog.session import Session, current_session, session
from voicelog.stage import Stage, current_stage, stage
from voicelog.turn import Turn, current_turn, turn
from voicelog.variants import choose_variant

try:
    __version__ = version("voicelog")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+unknown"

__all__ = [
    "Attempt",
    "LogHandler",
    "Session",
    "Stage",
    "Turn",
    "choose_variant",
    "configure",
    "copy_context",
    "current_session",
    "current_stage",
    "current_turn",
    "extract",
    "flush",
    "health",
    "inject",
    "log_error",
    "metric",
    "publish_llm_request",
    "publish_log",
    "publish_stt_result",
    "publish_tts_result",
    "session",
    "shutdown",
    "stage",
    "stats",
    "turn",
]
