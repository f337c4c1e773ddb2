"""Cleaning: makes JSON of whatever a user attached, when the encoder refused it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 8
MAX_ITEMS = 1000
INT64 = range(-(2**63), 2**63)


def clean(value: Any, depth: int = 0) -> Any:
    """Return `value` as something JSON can say: lone surrogates replaced, cycles cut, objects as their repr."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int):
        return int(value) if value in INT64 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {str(clean(_text(k))): clean(v, depth + 1) for k, v in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean(v, depth + 1) for v in list(value)[:MAX_ITEMS]]
    return clean(_text(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return repr(value)[:2000]
    except Exception:
        return f"<{type(value).__name__} whose repr fails>"
