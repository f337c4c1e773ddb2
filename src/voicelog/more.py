"""More: what few stages have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voicelog.attempts import Attempts
    from voicelog.items import Items
    from voicelog.otel import Span
    from voicelog.turn import Turn


class More:
    """Made when a stage needs it, so that the others pay nothing for it."""

    __slots__ = ("attempts", "entered_again", "items", "span", "turn", "untimed")

    def __init__(self) -> None:
        self.turn: Turn | None = None
        """The turn that was given."""
        self.items: Items | None = None
        self.span: Span | None = None
        """Its OpenTelemetry span."""
        self.attempts: Attempts | None = None
        self.untimed = False
        """Whether neither start nor duration is known."""
        self.entered_again = 0
