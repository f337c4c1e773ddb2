"""The sink's own log lines, on stderr: text for people, JSON for machines; what repeats is said once a minute."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable

from voicelog.errors import ConfigError

REPEAT_AFTER_S = 60.0
MAX_KEYS = 1_000
KEY_CHARS = 120

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHANGING = re.compile(r"0x[0-9a-f]+|\d+")
_LIBRDKAFKA_PREFIX = re.compile(r"^[A-Z_]+ \[[^\]]*\] (\[thrd:[^\]]*\]: )?")
_OTHER_CLIENTS = "property and will be ignored by this "


class Repeats(logging.Filter):
    """Lets a line through once a minute; lines that differ in their numbers only are the same line."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing said."""
        super().__init__()
        self._clock_s = clock_s
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is new, and add to it how often it was left out since."""
        if record.levelno < logging.WARNING and record.name != "voicelog_sink.librdkafka":
            return True
        key = f"{record.name}{_CHANGING.sub('#', record.getMessage())[:KEY_CHARS]}"
        now_s = self._clock_s()
        said_s, left_out = self._said.get(key, (-REPEAT_AFTER_S, 0))
        if now_s - said_s < REPEAT_AFTER_S:
            self._said[key] = (said_s, left_out + 1)
            return False
        if len(self._said) >= MAX_KEYS:
            self._said.clear()
        self._said[key] = (now_s, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it)", ()
        return True


class TextLine(logging.Formatter):
    """One line a record: time, level, where, what."""

    def __init__(self) -> None:
        """Take the format."""
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback's lines are joined into it."""
        return super().format(record).replace("\n", " | ")


class JsonLine(logging.Formatter):
    """One JSON object a record: ts, level, logger, message, and stack where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "ts": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["stack"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class Tidied(logging.Filter):
    """Takes librdkafka's own prefix off its lines, and leaves out what it says of settings of the other kind of client.

    kafka_config goes to producer, consumer and admin client alike, so each is given some that are not its own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; return whether it is worth a line."""
        record.msg, record.args = _LIBRDKAFKA_PREFIX.sub("", record.getMessage()), ()
        return _OTHER_CLIENTS not in record.msg


FORMATS: dict[str, type[logging.Formatter]] = {"text": TextLine, "json": JsonLine}


def set_up(log_format: str, level: int = logging.INFO) -> None:
    """Send the sink's log lines to stderr in this format; raises ConfigError for one that is not known."""
    if log_format not in FORMATS:
        message = f"VOICELOG_LOG_FORMAT is {log_format!r}: expected {' or '.join(FORMATS)}"
        raise ConfigError(message)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATS[log_format]())
    handler.addFilter(Repeats())
    logger = logging.getLogger("voicelog_sink")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    librdkafka = logging.getLogger("voicelog_sink.librdkafka")
    librdkafka.filters[:] = [Tidied()]
