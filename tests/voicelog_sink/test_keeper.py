"""The keeper's own times: when it looks for what a dead sink has left."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.builders import START_US, realistic_call, sqlite_store

from voicelog import wire
from voicelog_sink import keeper as module
from voicelog_sink.deadletter import DeadLetters
from voicelog_sink.derived import Deriver
from voicelog_sink.erasures import REFRESH_S, Erasure
from voicelog_sink.keeper import ADOPT_EVERY_S, Keeper, Parcel
from voicelog_sink.metrics import Metrics
from voicelog_sink.pending import ADOPT_AFTER_MS
from voicelog_sink.pipeline import Pipeline, Record
from voicelog_sink.retention import KINDS, Rule
from voicelog_sink.status import HEARTBEAT_TIMEOUT_S, Status
from voicelog_sink.stores.base import Row, Store, StoreUnavailable
from voicelog_sink.stores.cql_rows import Encoded
from voicelog_sink.stores.flight import Flight, Request
from voicelog_sink.stores.lifetime import DAY_MS
from voicelog_sink.stores.window import Window
from voicelog_sink.watermark import Ticket

PIPELINE = Pipeline(10**6, 90)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The keeper's clocks, both: `s` is seconds, which pass when a test says so."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s, time=lambda: now.s))
    return now


@pytest.mark.parametrize("every_s", [1e9, 20.0], ids=["once", "again and again"])
def test_partitions_that_come_lead_to_one_look_more_and_put_off_none(now: SimpleNamespace, every_s: float) -> None:
    looks: list[float] = []
    deriver: Any = SimpleNamespace(adopt=lambda _: looks.append(now.s), run_due=lambda _, idle: 0)
    store: Any = SimpleNamespace(ping=lambda: None, partitions=lambda _: [], select=lambda *_: [],
                                 keep_for=lambda _: None)  # fmt: skip
    keeper = Keeper(store, deriver, SimpleNamespace(), Metrics(), Status(), PIPELINE)  # type: ignore[arg-type]
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


def test_it_is_idle_where_no_batch_came_since_it_last_rested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite_store(tmp_path / "calls.db")
    keeper, said = keeper_of(store, Pipeline(10**6, 90), Status()), []
    monkeypatch.setattr(keeper._deriver, "run_due", lambda _, idle: said.append(idle) or 0)
    keeper.rest()
    keeper.rest()
    keeper.keep(Parcel(keeper._pipeline.sort([], START_US // 1000), Ticket({}), 0.0))
    keeper.rest()
    keeper.rest()
    assert said == [False, True, False, True]
    store.close()


def test_what_was_erased_is_read_again_every_while_and_an_outage_changes_nothing(
    tmp_path: Path, now: SimpleNamespace
) -> None:
    store, pipeline = sqlite_store(tmp_path / "calls.db"), Pipeline(10**6, 90)
    keeper, erasures = keeper_of(store, pipeline, Status()), pipeline.erasures
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


def test_rule_that_changes_is_gone_by_soon_and_an_outage_changes_nothing(tmp_path: Path, now: SimpleNamespace) -> None:
    store, pipeline = sqlite_store(tmp_path / "calls.db"), Pipeline(10**6, 90)
    keeper, retention = keeper_of(store, pipeline, Status()), pipeline.retention
    keeper.rest()
    at_ms = START_US // 1000 - 8 * DAY_MS
    old = Row("voice_interactions", {"session_id": "c", "ts": at_ms, "stream_id": "s", "seq": 1, "text": "my card"})
    store.write([Rule("kind", "text", 7).row, old])
    keeper.rest()
    assert retention.lifetimes.texts_ms == {}
    now.s += REFRESH_S
    keeper.rest()
    week = retention.lifetimes
    assert set(week.texts_ms) == set(KINDS["text"].tables)
    store.write([])
    assert [row["text"] for row in store.select("voice_interactions", [{"session_id": "c"}])] == [None]
    store.close()
    now.s += REFRESH_S
    keeper.rest()
    assert retention.lifetimes == week


def keeper_of(store: Store, pipeline: Pipeline, status: Status) -> Keeper:
    return Keeper(store, Deriver(store, "sink"), cast("DeadLetters", None), Metrics(), status, pipeline)


@pytest.mark.parametrize("away", [False, True], ids=["queued", "retried"])
def test_what_is_erased_after_a_batch_was_sorted_is_not_stored_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """Also where the store is away meanwhile: it is asked what was erased before it gets the batch again."""
    store, pipeline = sqlite_store(tmp_path / "calls.db"), Pipeline(10**6, 90)
    keeper = keeper_of(store, pipeline, Status(store_up=True))
    gone, kept = (realistic_call(name, seed=seed) for seed, name in enumerate(("gone", "kept")))
    records = [
        Record("t", 0, offset, None, wire.encode(event).value, (), 1)
        for offset, event in enumerate([*gone.events, *kept.events])
    ]
    batch, write = pipeline.sort(records, 0), store.write
    assert len(batch.events) == len(records)

    def fails_once(_: list[Row]) -> list[Any]:
        monkeypatch.setattr(store, "write", write)
        write([Erasure("session", "gone", 1).row])
        raise StoreUnavailable("away")

    if away:
        monkeypatch.setattr(store, "write", fails_once)
    else:
        write([Erasure("session", "gone", 1).row])
        keeper.rest()
    keeper.keep(Parcel(batch, Ticket([]), 0.0))
    stored = {name: list(store.select("voice_interactions", [{"session_id": name}])) for name in ("gone", "kept")}
    assert {name: len(rows) for name, rows in stored.items()} == {"gone": 0, "kept": len(kept.events)}
    assert keeper._metrics.value("erased_total") == len(gone.events)


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
    keeper = Keeper(store, deriver, SimpleNamespace(), Metrics(), status, PIPELINE)  # type: ignore[arg-type]
    requests = 3 + round(2 * HEARTBEAT_TIMEOUT_S / answer_s)
    rows = [Row("voice_interactions", {})] * requests
    batch: Any = SimpleNamespace(rows=rows, events=[], dead=[], records=[], expired=0, erased=0, refused=lambda _: [])
    keeper.keep(SimpleNamespace(batch=batch))  # type: ignore[arg-type]
    assert len(store.alive) == requests
    assert set(store.alive) == {alive}
