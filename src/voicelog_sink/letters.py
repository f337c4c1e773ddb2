"""What a dead letter is: the headers that make one of a record, and what a message of that topic says. Pure.

The added headers are one run at the end, which begins with the topic, so that a record which carries headers of the
same names, as one from Kafka Connect may, gets back exactly its own.
"""

from __future__ import annotations

import attrs
import msgspec

from voicelog_sink.pipeline import DeadLetter, Headers, Record

MAX_HEADER_CHARS = 4_000
"""A stack trace or a message in a header is cut after it."""

TOPIC = "__connect.errors.topic"
PARTITION = "__connect.errors.partition"
OFFSET = "__connect.errors.offset"
STAGE = "__connect.errors.stage"
CLASS = "__connect.errors.exception.class.name"
MESSAGE = "__connect.errors.exception.message"
STACK = "__connect.errors.exception.stacktrace"
REASON = "voicelog.reason"
VERSION = "voicelog.sink.version"
ADDED = frozenset({TOPIC, PARTITION, OFFSET, STAGE, CLASS, MESSAGE, STACK, REASON, VERSION})

REPLAYED = "voicelog.replayed"
"""How often a message was sent again from the dead letters: the only header that a replay leaves on it."""

Sent = list[tuple[str, str | bytes | None]]


class _Named(msgspec.Struct):
    session_id: str | None = None


_named = msgspec.json.Decoder(_Named)


@attrs.frozen
class Letter:
    """A message among the dead letters.

    `topic`, `topic_partition` and `topic_offset` say where it was before; `headers` are those that it had there,
    `at_ms` (epoch milliseconds) is when it came in there. What no header says is None: others may write to this topic.
    """

    partition: int
    offset: int
    at_ms: int | None
    topic: str | None
    topic_partition: int | None
    topic_offset: int | None
    reason: str | None
    stage: str | None
    error: str | None
    message: str | None
    stack: str | None
    sink_version: str | None
    replays: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def place(self) -> str:
        """Its name on the command line, PARTITION:OFFSET."""
        return f"{self.partition}:{self.offset}"

    @property
    def size_bytes(self) -> int:
        """Return the bytes of its value."""
        return len(self.value or b"")


def headers_of(letter: DeadLetter, version: str) -> Sent:
    """Return the headers that say where the record came from and why it is here, by Kafka Connect's names."""
    record = letter.record
    fields = {
        TOPIC: record.topic,
        PARTITION: str(record.partition),
        OFFSET: str(record.offset),
        STAGE: letter.stage,
        CLASS: letter.error,
        MESSAGE: letter.message[:MAX_HEADER_CHARS],
        STACK: (letter.stack or "")[-MAX_HEADER_CHARS:],
        REASON: letter.reason,
        VERSION: version,
    }
    return [(name, text.encode("utf-8", "replace")) for name, text in fields.items() if text]


def letter_of(record: Record) -> Letter:
    """Return what a message of the dead letters' topic says. Never raises, whatever is in it."""
    own, added = _apart(record.headers)
    told = {name: (value or b"").decode("utf-8", "replace") for name, value in added}
    before = [value for name, value in own if name == REPLAYED]
    return Letter(
        record.partition, record.offset, record.timestamp_ms, told.get(TOPIC), _number(told.get(PARTITION)),
        _number(told.get(OFFSET)), told.get(REASON), told.get(STAGE), told.get(CLASS), told.get(MESSAGE),
        told.get(STACK), told.get(VERSION), _count(before), record.key, record.value,
        [header for header in own if header[0] != REPLAYED],
    )  # fmt: skip


def original_of(letter: Letter) -> Record:
    """Return the record that became the letter, for whoever asks what would become of it now."""
    return Record(
        letter.topic or "", letter.topic_partition or 0, letter.topic_offset or 0, letter.key, letter.value,
        letter.headers, letter.at_ms,
    )  # fmt: skip


def headers_to_send(letter: Letter) -> Sent:
    """Return the headers under which the message goes back: its own, and how often it was replayed with this time."""
    return [*letter.headers, (REPLAYED, str(letter.replays + 1).encode())]


def session_of(letter: Letter) -> str | None:
    """Return the call that the message's JSON names, or else its key; None where neither tells one."""
    try:
        found = _named.decode(letter.value or b"").session_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return found or _session_of_key(letter.key)


def text_of(value: bytes | None) -> str | None:
    """Return bytes as text; None where they are none, or not UTF-8."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _session_of_key(key: bytes | None) -> str | None:
    text = text_of(key)
    return text if text and not text.startswith("~") else None


def _apart(headers: Headers) -> tuple[Headers, Headers]:
    """Return the message's own headers, and those that made a dead letter of it."""
    begin = max((index for index, (name, _) in enumerate(headers) if name == TOPIC), default=len(headers))
    run = headers[begin:]
    return [*headers[:begin], *(h for h in run if h[0] not in ADDED)], [h for h in run if h[0] in ADDED]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 19 else None


def _count(values: list[bytes | None]) -> int:
    return (_number(text_of(values[-1])) or 0) if values else 0
