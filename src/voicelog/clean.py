"""Cleaning: makes JSON, or a text, of whatever a user attached. Nothing here raises, hangs or grows without bound."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_DEPTH = 8
MAX_ITEMS = 1000
MAX_VALUES = 10_000
"""Values in one cleaned value, however they are nested."""
MAX_REPR_CHARS = 2000
MAX_TEXT_CHARS = 1024
MAX_INT_BITS = 1000
CUT = "..."


def clean(value: Any) -> Any:
    """Return `value` as something JSON can say: lone surrogates replaced, cycles cut, objects as their repr."""
    return Cleaner().clean(value)


def text(value: Any, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return `value` as a text that can be written and is no longer than `max_chars`."""
    try:
        found = value if isinstance(value, str) else str(value)
    except Exception:
        found = shown(value)
    return _writable(found)[:max_chars]


def shown(value: Any, max_chars: int = 200) -> str:
    """Return the repr of `value` for a sentence, or what stands for it where its repr fails."""
    try:
        return repr(value)[:max_chars]
    except Exception:
        return f"<{type(value).__name__} whose repr fails>"


def _writable(value: str) -> str:
    return str.encode(value, "utf-8", "replace").decode("utf-8")


class Cleaner:
    """One cleaning: what is around the value at hand, and how many values may still come.

    Every text of the result went through `say`, keys through `name`.
    """

    max_depth = MAX_DEPTH
    max_items = MAX_ITEMS
    max_values = MAX_VALUES

    def __init__(self) -> None:
        self._around: set[int] = set()
        self._left = self.max_values

    def say(self, value: str) -> str:
        """Return a text as it is to be written."""
        return _writable(value)

    def clean(self, value: Any, depth: int = 0) -> Any:
        """Return `value`, which is at `depth`, as something JSON can say."""
        self._left -= 1
        try:  # isinstance too asks the value: a proxy without its object may raise there
            if value is None or isinstance(value, bool):
                return value
            if isinstance(value, str):
                return self.say(value)
            if isinstance(value, numbers.Real):
                return self.number(value)
            return self._container(value, depth)
        except Exception:
            return self.say(shown(value))

    def number(self, value: numbers.Real) -> Any:
        """Return a number as it is to be written."""
        found = _number(value)
        return self.say(found) if isinstance(found, str) else found

    def _container(self, value: Any, depth: int) -> Any:
        if depth >= self.max_depth or id(value) in self._around or self._left <= 0:
            return CUT
        self._around.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self.mapping(self._first(value.items()), depth)
            if isinstance(value, (list, tuple, set, frozenset)):
                return [self.clean(v, depth + 1) for v in self._first(value)]
            return self._other(value, depth)
        finally:
            self._around.discard(id(value))

    def _first(self, values: Any) -> list[Any]:
        return list(values)[: max(0, min(self.max_items, self._left))]

    def mapping(self, pairs: list[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        """Return an object's members, cleaned."""
        return {self.name(k): self.clean(v, depth + 1) for k, v in pairs}

    def name(self, key: Any) -> str:
        """Return a key as a text."""
        is_plain = issubclass(type(key), (str, int))
        return self.say(text(key, MAX_REPR_CHARS) if is_plain else shown(key, MAX_REPR_CHARS))

    def _other(self, value: Any, depth: int) -> Any:
        if type(value).__name__ in ("bool", "bool_"):  # numpy's
            return bool(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.binary(bytes(value))
        try:
            built = msgspec.to_builtins(
                value, builtin_types=(bytes, bytearray, memoryview)
            )  # a date, UUID, enum, dataclass, ...: as in an event that was not cleaned
        except Exception:
            return self.say(shown(value, MAX_REPR_CHARS))
        return self.clean(built, depth + 1)

    def binary(self, value: bytes) -> Any:
        """Return binary data as it is to be written: base64, as msgspec does."""
        return msgspec.to_builtins(value)


def _number(value: numbers.Real) -> int | float | str | None:
    if isinstance(value, numbers.Integral):
        number = int.__index__(value) if isinstance(value, int) else int(value)
        if number.bit_length() > MAX_INT_BITS:
            return f"<int of {number.bit_length()} bits>"
        return number if -(2**63) <= number < 2**63 else str(number)
    real = float(value)
    return real if math.isfinite(real) else None
