"""What the tests with real servers share: the sink's settings for them, and what is in the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from tests.running import committed, ends, running_sink, sink, wait_until

from voicelog.events import TOPICS, Event
from voicelog.settings import load
from voicelog_sink.rows import event_of
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Store


@attrs.frozen
class Place:
    """Where a test's sink reads and writes.

    Its group is its own: in a common one, the next test would wait until a member is given up that this one has killed.
    """

    brokers: str
    prefix: str
    store: str
    group: str = attrs.field()

    @group.default
    def _own_group(self) -> str:
        return f"{self.prefix}sink"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the settings of a sink process."""
        given = {"brokers": self.brokers, "topic_prefix": self.prefix, "store": self.store, "group": self.group}
        return {**given, "topic_partitions": 4, "http": "off", "start_timeout_ms": 20_000, **more}

    def topics(self) -> list[str]:
        """Return the names of the topics that carry events."""
        return [self.prefix + name for name in TOPICS]

    def init(self, *args: str) -> str:
        """Run `voicelog-sink init` and return what it printed."""
        ended = sink("init", *args, **self.settings())
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """Give the open store, as a reader."""
        store = make_store(load({"store": self.store}, {})[0])
        store.open(20_000)
        try:
            yield store
        finally:
            store.close()


def stored(store: Store, session_ids: Iterable[str]) -> dict[str, list[Event]]:
    """Return the events of each call in the order in which the store gives them."""
    return {
        session_id: [event_of(row) for row in store.select("voice_interactions", [{"session_id": session_id}])]
        for session_id in session_ids
    }


def by_call(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Return events by their call, in their order."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(str(event.session_id), []).append(event)
    return found


def drained(place: Place, log: Path) -> None:
    """Let a sink read the topics to their ends, and end it in order."""
    with running_sink(log, "run", **place.settings()) as running:
        wait_until(
            lambda: committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics()),
            "everything to be stored",
        )
        assert running.stop() == 0
