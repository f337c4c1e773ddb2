"""The keeper's own times: when it looks for what a dead sink has left."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from voicelog_sink import keeper as module
from voicelog_sink.keeper import ADOPT_EVERY_S, Keeper
from voicelog_sink.metrics import Metrics
from voicelog_sink.pending import ADOPT_AFTER_MS
from voicelog_sink.status import Status


@pytest.mark.parametrize("every_s", [1e9, 20.0], ids=["once", "again and again"])
def test_partitions_that_come_lead_to_one_look_more_and_put_off_none(
    monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    now, looks = SimpleNamespace(s=1000.0), []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s, time=lambda: now.s))
    deriver: Any = SimpleNamespace(adopt=lambda _: looks.append(now.s), run_due=lambda _: 0)
    store: Any = SimpleNamespace(ping=lambda: None)
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
