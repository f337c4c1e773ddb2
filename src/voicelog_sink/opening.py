"""Opening the store that the settings name, with patience, and with the sentence for what does not work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from voicelog.errors import ConfigError
from voicelog.settings import Settings
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Store, StoreError, StoreMisconfigured, StoreUnavailable

RETRY_S = 0.5


def store_of(settings: Settings) -> Store:
    """Return the store, not yet open; raises ConfigError for a wrong URL."""
    try:
        return make_store(settings)
    except StoreMisconfigured as exc:
        raise ConfigError(str(exc)) from exc


def wait_for(store: Store, url: str, timeout_ms: int, ready: Callable[[], None] = lambda: None) -> None:
    """Open the store and see that it is `ready`, trying again for `timeout_ms`.

    Raises StoreUnavailable, StoreMisconfigured at once when it can't be opened, and at last what `ready` raises.
    """
    end_s = time.monotonic() + timeout_ms / 1000
    try:
        _patiently(lambda: store.open(max(int((end_s - time.monotonic()) * 1000), 1)), StoreUnavailable, end_s)
        _patiently(ready, StoreError, end_s)
    except StoreUnavailable as exc:
        raise StoreUnavailable(unreachable(url, timeout_ms, exc)) from exc


@contextmanager
def open_store(settings: Settings, timeout_ms: int) -> Iterator[Store]:
    """Give the open store for the length of the block. Raises as store_of and wait_for do."""
    store = store_of(settings)
    try:
        wait_for(store, settings.store, timeout_ms)
        yield store
    finally:
        store.close()


def unreachable(url: str, timeout_ms: int, exc: Exception) -> str:
    """Return the sentence for a store that does not answer."""
    return (
        f"no store answers at {url} (waited {timeout_ms / 1000:g} s; {exc}): start it, set VOICELOG_STORE or "
        "--store to where it is, or wait for longer with --start-timeout-ms"
    )


def _patiently(action: Callable[[], None], failure: type[StoreError], end_s: float) -> None:
    while True:
        try:
            return action()
        except failure:
            if (left_s := end_s - time.monotonic()) <= 0:
                raise
        time.sleep(min(RETRY_S, left_s))
