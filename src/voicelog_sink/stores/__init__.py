"""The stores: a URL's scheme names the file that serves it."""

from __future__ import annotations

from importlib import import_module

from voicelog.settings import Settings
from voicelog_sink.stores.base import Store, StoreMisconfigured

SCHEMES = {
    "sqlite": "voicelog_sink.stores.sqlite:SqliteStore",
    "scylla": "voicelog_sink.stores.cql_store:CqlStore",
    "cassandra": "voicelog_sink.stores.cql_store:CqlStore",
}


def make_store(settings: Settings) -> Store:
    """Return the store that settings.store names, not yet open; raises StoreMisconfigured for a wrong URL."""
    scheme = settings.store.partition(":")[0]
    if scheme not in SCHEMES:
        message = (
            f"store {settings.store!r}: expected sqlite:///path.db or scylla://host:9042/voice_ai_ks?local_dc=dc1; "
            "set VOICELOG_STORE or --store"
        )
        raise StoreMisconfigured(message)
    module, _, name = SCHEMES[scheme].partition(":")
    store: Store = getattr(import_module(module), name)(settings)
    return store
