"""The marks that a program gives to a turn: by its own clock, or by another process's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voicelog.clean import shown, text
from voicelog.clock import Anchor
from voicelog.events import ANCHORS, TS_MAX_US, TS_MIN_US
from voicelog.fields import fit
from voicelog.marks import START

if TYPE_CHECKING:
    from voicelog.client import Client

MAX_MARKS = 200
MAX_AGO_MS = 86_400_000


class TurnMarks:
    """A turn's marks as they were given. Safe from any thread; what can't be a mark is counted and left out."""

    __slots__ = ("_own_ns", "anchor", "foreign_us")

    def __init__(self) -> None:
        self._own_ns: dict[str, int] = {}
        self.foreign_us: dict[str, int] = {}
        """Those of another clock, epoch microseconds."""
        self.anchor: str | None = None

    def take(
        self, client: Client, name: str, *, ago_ms: float = 0, at_us: float | None = None, anchor: str | None = None
    ) -> None:
        """Keep a mark; what was kept under its name before, by either clock, no longer holds."""
        ago = fit((float,), ago_ms)
        if not issubclass(type(name), str) or not name or ago is None or abs(ago) > MAX_AGO_MS:
            what = f"mark({shown(name)}, ago_ms={shown(ago_ms)})"
            client.invalid("mark", f"{what}: expected a name and milliseconds within a day")
            return
        moment_us = fit((float,), at_us)
        if at_us is not None and (moment_us is None or not TS_MIN_US <= moment_us < TS_MAX_US or ago):
            what = f"mark({shown(name)}, at_us={shown(at_us)}, ago_ms={ago:g})"
            client.invalid("mark.at_us", f"{what}: expected epoch microseconds from 2000 to 2100, without ago_ms")
            return
        name, taken_from = text(name), _anchor(client, anchor)
        if name not in self._own_ns and name not in self.foreign_us and self._is_full():
            client.invalid("mark.many", f"a turn keeps {MAX_MARKS} marks; mark({shown(name)}) is left out")
            return
        self._keep(name, client.now_ns() - int(ago * 1e6), moment_us)
        if name == START:
            self.anchor = taken_from

    def _is_full(self) -> bool:
        return len(self._own_ns) + len(self.foreign_us) >= MAX_MARKS

    def _keep(self, name: str, at_ns: int, at_us: float | None) -> None:
        if at_us is None:
            self._own_ns[name] = at_ns
            self.foreign_us.pop(name, None)
        else:
            self.foreign_us[name] = int(at_us)
            self._own_ns.pop(name, None)

    def epoch_us(self, clocks: Anchor) -> dict[str, int]:
        """Return all marks as epoch microseconds."""
        own = {name: clocks.epoch_us(at_ns) for name, at_ns in self._own_ns.copy().items()}
        return own | self.foreign_us


def _anchor(client: Client, given: str | None) -> str:
    if given is None or (issubclass(type(given), str) and given in ANCHORS):
        return given or "manual"
    client.invalid("mark.anchor", f"mark(anchor={shown(given)}): expected one of {', '.join(ANCHORS)}")
    return "manual"
