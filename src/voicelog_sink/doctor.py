"""Looks at broker, topics, group, store, clocks, rights and disk, and says what is wrong. Changes nothing.

Where one thing can't be reached, what depends on it is `unknown`, and the rest is still looked at.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from voicelog.settings import Settings
from voicelog_sink import checkup
from voicelog_sink.checkup import Finding
from voicelog_sink.errors import SinkError
from voicelog_sink.group import GroupAdmin
from voicelog_sink.reading import reading
from voicelog_sink.stores.base import Store, StoreError
from voicelog_sink.stores.url import sqlite_path
from voicelog_sink.tables import DERIVED_PENDING
from voicelog_sink.topics import TopicAdmin, wanted

NOBODY = {"bucket": -1, "key": "voicelog-sink doctor", "sink_id": "-"}
"""The key of a row that never exists."""

BROKER, STORE = "broker", "store"
FINE_EMBEDDED = Finding("rights", "ok", "the embedded broker lets everybody read and write")

Step = Callable[[], list[Finding]]


def examine(settings: Settings, only: str | None = None) -> Iterator[Finding]:
    """Yield a finding for each thing, as soon as it is known. Blocks up to about start_timeout_ms for each server.

    `only` BROKER or STORE looks at that one, and connects to it alone.
    """
    if only != STORE:
        yield from _broker(settings)
    if only != BROKER:
        yield from _store(settings)


def _broker(settings: Settings) -> Iterator[Finding]:
    topics = TopicAdmin(settings)
    try:
        topics.wait(settings.start_timeout_ms)
        embedded = topics.is_embedded()
    except SinkError as exc:
        yield Finding("broker", "failed", str(exc))
        yield from checkup.unknown(("topics", "rights", "sinks", "lag", "dead letters"), "no broker")
        return
    yield Finding("broker", "ok", f"answers at {settings.brokers}")
    names = [topic.name for topic in wanted(settings)]
    fine = f"all {len(names)} are there" + ("; the embedded broker keeps no settings of theirs" if embedded else "")
    missing = topics.missing()
    there = [name for name in names if name not in missing]
    yield from _guarded("topics", lambda: checkup.of_differences("topics", topics.check(), fine))
    admin = GroupAdmin(settings)
    yield from (
        [FINE_EMBEDDED]
        if embedded
        else _guarded("rights", lambda: checkup.of_rights(admin.rights(there), names[-1], settings.group))
    )
    yield from _group(settings, admin, there, names[-1], embedded)


def _group(
    settings: Settings, admin: GroupAdmin, there: list[str], dead_letters: str, embedded: bool
) -> Iterator[Finding]:
    def standings() -> list[Finding]:
        found = admin.standings(there)
        events = [standing for standing in found if standing.topic != dead_letters]
        newest_ms = checkup.newest_ms(events)
        ahead_ms = max(0, newest_ms - int(time.time() * 1000)) if newest_ms is not None else 0
        return [
            *checkup.of_group(settings.group, None if embedded else admin.members(), events),
            checkup.of_dead_letters(dead_letters, found),
            checkup.of_clock("broker's clock", ahead_ms),
        ]

    yield from _guarded("lag", standings)


def _store(settings: Settings) -> Iterator[Finding]:
    local = urlsplit(settings.store).scheme == "sqlite"
    try:
        with reading(settings) as store:
            yield Finding("store", "ok", f"answers at {settings.store}")
            yield from _guarded("schema", lambda: checkup.of_differences("schema", store.check(), "as it should be"))
            yield from _guarded("store's rights", lambda: _writable(store))
            if not local:
                yield from _guarded("store's clock", lambda: [checkup.of_clock("store's clock", _ahead_ms(store))])
    except (SinkError, StoreError) as exc:
        yield Finding("store", "failed", str(exc))
        yield from checkup.unknown(("schema", "store's rights"), "no store")
    if local:
        folder = os.path.dirname(os.path.abspath(sqlite_path(settings.store)))
        yield from _guarded("disk", lambda: [checkup.of_disk(folder, shutil.disk_usage(folder).free)])


def _writable(store: Store) -> list[Finding]:
    """Delete a row that does not exist: what needs the same right as a write, and changes nothing."""
    store.delete(DERIVED_PENDING.name, [NOBODY])
    return [Finding("store's rights", "ok", "may write")]


def _ahead_ms(store: Store) -> int:
    """Return how far the store's clock is ahead; what the question took is halved between both."""
    before_ms = time.time() * 1000
    store_ms = store.clock_ms()
    return int(store_ms - (before_ms + time.time() * 1000) / 2)


def _guarded(name: str, step: Step) -> list[Finding]:
    try:
        return step()
    except (SinkError, StoreError, OSError) as exc:
        return [Finding(name, "failed", str(exc))]
