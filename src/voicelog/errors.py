"""The errors voicelog raises, all of them below `VoicelogError`.

    VoicelogError
    ├── ConfigError     a setting is wrong, or a decorator was put on what can't be timed
    ├── EncodeError     an event can't be written as JSON
    └── DecodeError     a message is not an event; `.reason` is one of REASONS

At run time the library raises none of them into the caller's code: what goes wrong is counted in
`voicelog.stats()` and said once in a warning.
"""

from __future__ import annotations

REASONS: dict[str, str] = {
    "not_json": "the value is not JSON",
    "not_an_event": "the value is JSON, but no object with a `type` and a `v`",
    "unsupported_version": "the event's major version is not one that this sink knows",
    "unknown_type": "the event's type is none that this sink knows",
    "missing_field": "a field that the event's type needs is absent or empty",
    "invalid_field": "a field has the wrong type or lies outside of its range",
    "too_large": "the message is larger than max_message_bytes",
    "sink_failed": "an error inside the sink itself; its stack trace is in the headers",
    "store_rejected": "the store refused the row for good, while it took others",
}
"""Why a message goes to the dead letters: the header `voicelog.reason`, and its meaning."""


class VoicelogError(Exception):
    """Base of every error that voicelog raises."""


class ConfigError(VoicelogError):
    """A setting or a use that can't work; says which value, what was expected and what to do."""


class EncodeError(VoicelogError):
    """An event can't be written as JSON."""


class DecodeError(VoicelogError):
    """A message is not an event that can be stored."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep `reason` (a key of REASONS) beside the sentence `message`."""
        super().__init__(message)
        self.reason = reason
