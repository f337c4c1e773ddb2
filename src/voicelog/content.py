"""Content: what of a call's content is not sent, by the setting capture_content."""

from __future__ import annotations

from typing import Any

import attrs

from voicelog.settings import CONTENT_KINDS

_FIELDS = frozenset(CONTENT_KINDS) - {"errors", "logs"}
"""The kinds that are fields of an event."""


class Own(dict[str, Any]):
    """The fields of an event of the library's own, such as a heartbeat: nothing of a user's is in them."""


class Content:
    """Takes out what is not sent of fields that are, before anything is encoded.

    What is not sent of whole fields the client leaves out itself. Raises nothing; safe from any thread. The values in
    an event are the user's own, and stay as they are.
    """

    def __init__(self, captured: frozenset[str]) -> None:
        self._attributes = "attributes" in captured
        self.deep = not {"errors", "logs"} <= captured
        """Whether every event is to be looked into, and not only one with attributes."""
        self._named = _FIELDS - captured - {"attributes"}
        self._errors = "errors" not in captured
        self._logs = "logs" not in captured

    @classmethod
    def without(cls, captured: frozenset[str]) -> Content | None:
        """Return what leaves out everything but `captured`; None where that is nothing."""
        return cls(captured) if CONTENT_KINDS.keys() - captured else None

    def leave_out_within(self, fields: dict[str, Any]) -> None:
        """Take out what is not sent of fields that stay."""
        if not self._attributes:
            fields.pop("attributes", None)
        elif "attributes" in fields:
            self._leave_out_attributes(fields)
        if self._errors:
            self._leave_out_errors(fields)
        if self._logs and "message" in fields:
            fields["message"] = ""

    def _leave_out_attributes(self, fields: dict[str, Any]) -> None:
        """A stage that has no field `prompt` keeps one as an attribute: it is a prompt all the same."""
        attributes = fields["attributes"]
        if not self._named.isdisjoint(attributes):
            fields["attributes"] = {name: value for name, value in attributes.items() if name not in self._named}

    def _leave_out_errors(self, fields: dict[str, Any]) -> None:
        if "error" in fields:
            fields["error"] = _type_only(fields["error"])
        if "attempts" in fields:
            fields["attempts"] = [_attempt(one) for one in fields["attempts"]]


def as_dict(value: Any) -> dict[str, Any]:
    """Return an error or attempt, whether it is a dict or one of the events' classes, as a new dict."""
    return attrs.asdict(value, recurse=False) if attrs.has(type(value)) else dict(value)


def _type_only(error: Any) -> dict[str, Any]:
    return {"type": as_dict(error)["type"]}


def _attempt(attempt: Any) -> dict[str, Any]:
    fields = as_dict(attempt)
    if fields.get("error") is not None:
        fields["error"] = _type_only(fields["error"])
    return fields
