"""A handler for the standard logging module: log records as `log` events."""

from __future__ import annotations

import logging
from typing import Any

from voicelog.clean import text
from voicelog.client import state
from voicelog.context import session_var
from voicelog.failure import describe
from voicelog.publish import emit_here


class LogHandler(logging.Handler):
    """Sends what is logged inside a session, and from WARNING up what is logged outside of one.

    `logging.basicConfig(); logging.getLogger().addHandler(voicelog.LogHandler())`: as the only handler it would keep
    Python from printing warnings, voicelog's own among them. Never blocks; raises nothing. What voicelog itself logs is
    not sent.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; its exception, when it has one, with the stack trace."""
        client = state.current
        if client is None:
            return
        try:
            if self._is_sent(record):
                emit_here("log", self._fields(record), {})
        except Exception as exc:
            client.fault("log", exc)

    @staticmethod
    def _is_sent(record: logging.LogRecord) -> bool:
        if text(record.name).partition(".")[0] in ("voicelog", "voicelog_sink"):
            return False
        return session_var.get() is not None or record.levelno >= logging.WARNING

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "level": text(record.levelname),
            "logger": text(record.name),
            "message": self.format_message(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = describe(record.exc_info[1])
        return fields

    @staticmethod
    def format_message(record: logging.LogRecord) -> str:
        """Return the message with its arguments; the template alone where they don't fit."""
        try:
            return record.getMessage()
        except Exception:
            return text(record.msg)
