"""The keeper's own times: when it looks for what a dead sink has left."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from voicelog_sink import keeper as module
from voicelog_sink.erasures import REFRESH_S, Erasures
from voicelog_sink.keeper import ADOPT_EVERY_S, Keeper
from voicelog_sink.metrics import Metrics
from voicelog_sink.pending import ADOPT_AFTER_MS
from voicelog_sink.status import Status
from voicelog_sink.stores.base import StoreUnavailable


@pytest.mark.parametrize("every_s", [1e9, 20.0], ids=["once", "again and again"])
def test_partitions_that_come_lead_to_one_look_more_and_put_off_none(
    monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    now, looks = SimpleNamespace(s=1000.0), []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s, time=lambda: now.s))
    deriver: Any = SimpleNamespace(adopt=lambda _: looks.append(now.s), run_due=lambda _: 0)
    store: Any = SimpleNamespace(ping=lambda: None, partitions=lambda _: [], select=lambda *_: [])
    keeper = Keeper(store, deriver, SimpleNamespace(), Metrics(), Status())  # type: ignore[arg-type]
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, rows = SimpleNamespace(s=1000.0), list[dict[str, Any]]()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s, time=lambda: now.s))
    deriver: Any = SimpleNamespace(adopt=lambda _: 0, run_due=lambda _: 0)

    def select(*_: Any) -> list[dict[str, Any]]:
        if rows and rows[-1] == {}:
            raise StoreUnavailable
        return rows

    store: Any = SimpleNamespace(ping=lambda: None, partitions=lambda _: [], select=select)
    erasures = Erasures()
    keeper = Keeper(store, deriver, SimpleNamespace(), Metrics(), Status(), erasures)  # type: ignore[arg-type]
    keeper.rest()
    assert not erasures
    rows.append({"subject": "session:call", "kind": "session", "erased_at": 1})
    keeper.rest()
    assert not erasures
    now.s += REFRESH_S
    keeper.rest()
    assert erasures
    rows.append({})
    now.s += REFRESH_S
    keeper.rest()
    assert erasures
