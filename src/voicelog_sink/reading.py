"""Opening a store to read from it, which makes nothing that is not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import attrs

from voicelog.settings import Settings
from voicelog_sink.errors import SinkError
from voicelog_sink.opening import open_store, store_of
from voicelog_sink.stores.base import Store
from voicelog_sink.stores.url import sqlite_path

IN_MEMORY = "sqlite:///:memory:"


@contextmanager
def reading(settings: Settings) -> Iterator[Store]:
    """Give the open store for the length of the block. Blocks up to start_timeout_ms.

    Raises SinkError where SQLite's file does not exist, and as open_store does.
    """
    store_of(settings)
    if urlsplit(settings.store).scheme == "sqlite" and not os.path.exists(sqlite_path(settings.store)):
        message = (
            f"no calls are stored yet: the file {os.path.abspath(sqlite_path(settings.store))} does not exist; it is "
            "made by `voicelog-sink dev` or `run`; --store or VOICELOG_STORE say where it is"
        )
        raise SinkError(message)
    with open_store(settings, settings.start_timeout_ms) as store:
        yield store


@contextmanager
def reading_or_empty(settings: Settings, tell: Callable[[str], object]) -> Iterator[Store]:
    """Give the open store, or where a write would make SQLite's file, an empty one in memory, and `tell` so.

    Blocks and raises as open_store does, also where the file can't be made since its directory does not exist.
    """
    why = _unmade(settings)
    if not why:
        with open_store(settings, settings.start_timeout_ms) as store:
            yield store
        return
    tell(why)
    in_memory = attrs.evolve(settings, values={**settings.values, "store": IN_MEMORY})
    with open_store(in_memory, settings.start_timeout_ms) as store:
        store.init()
        yield store


def _unmade(settings: Settings) -> str:
    """Return why there is nothing to read from yet, where that is for want of SQLite's file or of anything in it."""
    store_of(settings)
    if urlsplit(settings.store).scheme != "sqlite":
        return ""
    path = os.path.abspath(sqlite_path(settings.store))
    if not os.path.exists(path) and os.path.isdir(os.path.dirname(path)):
        return f"the file {path} does not exist and would be made"
    return f"the file {path} is empty, and its tables would be made" if _is_empty(path) else ""


def _is_empty(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0
