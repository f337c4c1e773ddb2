"""Items: the stream of a streaming stage, measured by the waits of its consumer. Nanoseconds in, milliseconds out."""

from __future__ import annotations

from typing import Any


class Items:
    """How many items came, and how long each was waited for; the consumer's own time between them is not in it."""

    __slots__ = ("count", "last_ns", "longest_ns", "waited_ns")

    def __init__(self) -> None:
        self.count = 0
        self.waited_ns = 0
        self.longest_ns = 0
        self.last_ns: int | None = None

    def took(self, began_ns: int, now_ns: int) -> int:
        """Count an item that was waited for from `began_ns` to `now_ns`; return the count."""
        waited = now_ns - began_ns
        self.waited_ns += waited
        self.last_ns = now_ns
        count = self.count = self.count + 1
        if waited > self.longest_ns and count > 1:
            self.longest_ns = waited
        return count

    def waited(self, began_ns: int, now_ns: int) -> None:
        """Add a wait that no item ended: the last one, for the stream's end."""
        self.waited_ns += now_ns - began_ns

    def fields(self) -> dict[str, Any]:
        """Return the event's fields."""
        fields: dict[str, Any] = {"items": self.count, "producer_ms": self.waited_ns / 1e6}
        if self.count > 1:
            fields["longest_gap_ms"] = self.longest_ns / 1e6
        return fields
