"""Opening a store to read from it, which makes nothing that is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from voicelog.settings import Settings
from voicelog_sink.errors import SinkError
from voicelog_sink.opening import open_store, store_of
from voicelog_sink.stores.base import Store
from voicelog_sink.stores.url import sqlite_path


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
