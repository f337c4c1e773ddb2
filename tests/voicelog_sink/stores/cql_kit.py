"""What the tests of the CQL store share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voicelog_sink.stores.base import Row, Store
from voicelog_sink.stores.cql_store import CqlStore
from voicelog_sink.stores.lifetime import wall_ms

Make = Callable[..., CqlStore]


def keyspace_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


def row(session: str, number: int = 1, at_ms: int = 0, **values: Any) -> Row:
    key = {"session_id": session, "ts": wall_ms() + at_ms, "stream_id": "s", "seq": number}
    return Row("voice_interactions", {**key, **values})


def sessions(store: Store, *names: str) -> list[str]:
    return [r["session_id"] for r in store.select("voice_interactions", [{"session_id": name} for name in names])]
