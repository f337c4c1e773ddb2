"""What is given to a stage: typed fields, usage, and attributes for every other name."""

from __future__ import annotations

import sys
from typing import Any

from voicelog.clean import clean, shown, text
from voicelog.client import Client, state
from voicelog.fields import SETTABLE, fit
from voicelog.plan import Plan
from voicelog.usage import usage_of, whole_number
from voicelog.wire import encode_value

UNNAMED = "unnamed"
MAX_NAME_CHARS = 64
MAX_FLOAT = sys.float_info.max
YIELDED = (
    "usage", "cost_usd", "transcript", "confidence", "is_final", "response", "finish_reason", "audio_ms", "characters",
    "bytes",
)  # fmt: skip
"""What one run of a stage yields: were it kept, the next run would be counted and charged with it."""


class Given:
    """The fields of one stage. Raises nothing into the caller; a value that does not fit is left out and counted."""

    __slots__ = ("_client", "_fields", "_plan", "name")

    name: str
    _plan: Plan
    _client: Client | None
    _fields: dict[str, Any]

    def _named(self, name: Any) -> str:
        """Return the name of a stage that has no event of its own."""
        return name if type(name) is str and 0 < len(name) <= MAX_NAME_CHARS else text(name)

    def set(self, /, **fields: Any) -> None:
        """Set fields of the event: those its type knows are typed fields, any other name becomes an attribute.

        A known field with a value of the wrong type is left out and counted.
        """
        known, mine = self._plan.known, self._fields
        for name, value in fields.items():
            kind = known.get(name)
            if (kind is str and type(value) is str) or (
                kind is float and type(value) is float and -MAX_FLOAT <= value <= MAX_FLOAT
            ):
                mine[name] = value
            elif kind is None:
                self._set_other(name, value)
            else:
                self._set_unfit(name, SETTABLE[self._plan.kind][name], value)

    def usage(self, reported: Any = None, /, **counts: float) -> None:
        """Set what was used: input_tokens, output_tokens, characters_count, audio_seconds, ...; the last value wins.

        Or `llm.usage(response.usage)`: what the provider reports, an object or a dict, under its own names. A count of
        tokens includes its parts: input_tokens the cached and audio ones, output_tokens the reasoning and audio ones.
        """
        if reported is not None:
            counts = {**self._reported(reported), **counts}
        for name, value in counts.items():
            number = fit((float,), value)
            if number is not None and number >= 0:
                self._fields.setdefault("usage", {})[name] = whole_number(number)
            elif value is not None:
                self._invalid(f"usage.{name}", f"usage({name}={shown(value)}): expected a number from 0 on")

    def _set_other(self, name: str, value: Any) -> None:
        if name == "usage":
            self._set_usage(value)
            return
        self._fields.setdefault("attributes", {})[name] = value

    def _set_usage(self, value: Any) -> None:
        counts = fit((dict,), value)
        if counts is not None:
            self.usage(**{text(k): v for k, v in counts.items()})
        else:
            self.usage(value)

    def _reported(self, reported: Any) -> dict[str, float]:
        found = usage_of(reported)
        if not found:
            self._invalid(
                "stage.usage", f"usage={shown(reported)}: expected a dict of numbers, or what a provider reports"
            )
        return found

    def _set_unfit(self, name: str, kinds: tuple[type, ...], value: Any) -> None:
        if value is None:
            self._fields.pop(name, None)
            return
        if name == "prompt" and issubclass(type(value), (list, dict, tuple)):
            if not self._captures(name):
                return
            value = encode_value(clean(value)).decode()
        found = fit(kinds, value)
        if found is None:
            self._invalid(f"stage.{name}", f"{name}={self._shown(name, value)}: expected {kinds[0].__name__}")
        else:
            self._fields[name] = found

    def _shown(self, name: str, value: Any) -> str:
        client = self._client or state.current
        return client.shown(name, value) if client is not None else ""

    @staticmethod
    def _captures(name: str) -> bool:
        client = state.current
        return client is not None and name not in client.left_out

    def _given(self) -> dict[str, Any]:
        """Return everything as keywords for another of the same kind."""
        given = self._own()
        attributes = given.pop("attributes", {})
        return {**attributes, **given}

    def _own(self) -> dict[str, Any]:
        """Return a copy of what was given, without what the library fills itself."""
        priced = "price_version" in self._fields
        known = self._plan.known
        own = {n: v for n, v in self._fields.items() if n in known and not (priced and n == "cost_usd")}
        return own | {n: dict(self._fields[n]) for n in ("attributes", "usage") if n in self._fields}

    def _invalid(self, what: str, sentence: str) -> None:
        client = self._client or state.current
        if client is not None:
            client.invalid(what, f"stage {self.name!r}: {sentence}")
