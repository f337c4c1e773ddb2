"""Trying again while a store is away, for commands that run for long: a moment's overload must not end them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from voicelog_sink.backoff import Backoff
from voicelog_sink.stores.base import StoreUnavailable

PATIENCE_S = 60.0

P = ParamSpec("P")
T = TypeVar("T")


def patiently(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `action` does; do it again while it raises StoreUnavailable, for about PATIENCE_S.

    Blocks for that long. Raises what the last try did.
    """
    backoff, end_s = Backoff(), time.monotonic() + PATIENCE_S
    while True:
        try:
            return action(*args, **kwargs)
        except StoreUnavailable:
            if time.monotonic() >= end_s:
                raise
        time.sleep(backoff.next_s())
