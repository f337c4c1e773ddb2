"""The keeper's own times: when it looks for what a dead sink has left."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.builders import sqlite_store

from voicelog_sink import keeper as module
from voicelog_sink.deadletter import DeadLetters
from voicelog_sink.derived import Deriver
from voicelog_sink.erasures import REFRESH_S, Erasure, Erasures
from voicelog_sink.keeper import ADOPT_EVERY_S, Keeper
from voicelog_sink.metrics import Metrics
from voicelog_sink.pending import ADOPT_AFTER_MS
from voicelog_sink.status import HEARTBEAT_TIMEOUT_S, Status
from voicelog_sink.stores.base import Row
from voicelog_sink.stores.cql_rows import Encoded
from voicelog_sink.stores.flight import Flight, Request
from voicelog_sink.stores.window import Window


@pytest.mark.parametrize("every_s", [1e9, 20.0], ids=["once", "again and again"])
def test_partitions_that_come_lead_to_one_look_more_and_put_off_none(
    monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    now, looks = SimpleNamespace(s=1000.0), []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s, time=lambda: now.s))
    deriver: Any = SimpleNamespace(adopt=lambda _: looks.append(now.s), run_due=lambda _: 0)
    store: Any = SimpleNamespace(ping=lambda: None, partitions=lambda _: [], select=lambda *_: [])
    keeper = Keeper(store, deriver, SimpleNamespace(), Metrics(), Status(), Erasures())  # type: ignore[arg-type]
    keeper.rest()
    came_s, next_s = now.s + 30, now.s + 30
    while now.s < came_s + 300:
        now.s += 1
        if now.s >= next_s:
            keeper.adopt_soon()
            next_s += every_s
        keeper.rest()
    assert max(later - earlier for earlier, later in itertools.pairwise(looks)) <= ADOPT_EVERY_S
    assert every_s < 60 or came_s + ADOPT_AFTER_MS / 1000 in looks


def test_what_was_erased_is_read_again_every_while_and_an_outage_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s, time=lambda: now.s))
    store, erasures, letters = sqlite_store(tmp_path / "calls.db"), Erasures(), cast("DeadLetters", None)
    keeper = Keeper(store, Deriver(store, "sink"), letters, Metrics(), Status(), erasures)
    keeper.rest()
    store.write([Erasure("session", "call", 1).row])
    keeper.rest()
    assert not erasures
    now.s += REFRESH_S
    keeper.rest()
    assert erasures
    store.close()
    now.s += REFRESH_S
    keeper.rest()
    assert erasures


class SlowStore:
    """Sends its rows through a real flight, one a request; each answer comes `answer_s` later on the given clock."""

    def __init__(self, now: SimpleNamespace, answer_s: float, status: Status) -> None:
        self.now, self.answer_s, self.status = now, answer_s, status
        self.on_asked: Any = None
        self.alive: list[bool] = []

    def write(self, rows: list[Row]) -> list[Any]:
        flight = Flight(self._start, Window(1, start=1), (OSError,), (), self.on_asked, lambda: self.now.s)
        for row in rows:
            flight.send(Request({}, row.table, [Encoded(0, b"", [], 1)]))
        flight.land()
        return []

    def ping(self) -> None:
        pass

    def _start(self, _: Request) -> Any:
        def answer(good: Any, _bad: Any, args: Any, *_others: Any) -> None:
            self.now.s += self.answer_s
            self.alive.append(self.status.is_alive())
            good(None, *args)

        return SimpleNamespace(add_callbacks=answer)


@pytest.mark.parametrize(
    ("answer_s", "alive"), [(HEARTBEAT_TIMEOUT_S - 1, True), (0.25, True), (HEARTBEAT_TIMEOUT_S + 1, False)]
)
def test_long_write_is_alive_while_each_request_is_answered_in_time(answer_s: float, alive: bool) -> None:
    now = SimpleNamespace(s=1000.0)
    status = Status(clock=lambda: now.s, store_up=True)
    store: Any = SlowStore(now, answer_s, status)
    deriver: Any = SimpleNamespace(pending=lambda *_: [])
    keeper = Keeper(store, deriver, SimpleNamespace(), Metrics(), status, Erasures())  # type: ignore[arg-type]
    requests = 3 + round(2 * HEARTBEAT_TIMEOUT_S / answer_s)
    rows = [Row("voice_interactions", {})] * requests
    batch: Any = SimpleNamespace(rows=rows, events=[], dead=[], records=[], expired=0, erased=0, refused=lambda _: [])
    keeper.keep(SimpleNamespace(batch=batch))  # type: ignore[arg-type]
    assert len(store.alive) == requests
    assert set(store.alive) == {alive}
