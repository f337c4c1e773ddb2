"""`verify` on a real broker and real stores: nothing is missing after a sink ran, and what is taken away is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.calls import calls, messages
from tests.real.sinks import Place, drained
from tests.running import Raw, produce, sink

pytestmark = pytest.mark.real


def verified(place: Place) -> tuple[int, dict[str, Any]]:
    names = {"brokers", "topic_prefix", "store", "group"}
    given = {name: value for name, value in place.settings().items() if name in names}
    ended = sink("verify", "--json", **given)
    assert ended.stderr == ""
    return ended.returncode, json.loads(ended.stdout)


def totals(told: dict[str, Any]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for counts in told["topics"].values():
        for outcome, count in counts.items():
            sums[outcome] = sums.get(outcome, 0) + count
    return {outcome: count for outcome, count in sums.items() if count}


def test_before_the_sink_all_waits_then_all_is_stored_or_dead_then_a_row_taken_away_is_named(
    place: Place, tmp_path: Path
) -> None:
    events = calls(3)
    count = produce(place.brokers, [*messages(events), Raw("voice-events", b"garbage", b"k")], place.prefix)
    assert totals(verified(place)[1]) == {"waiting": count}
    drained(place, tmp_path / "sink.log")
    status, told = verified(place)
    assert (status, totals(told), told["missing"]) == (0, {"stored": count - 1, "dead": 1}, [])
    lost = events[7]
    with place.opened() as store:
        key = {"session_id": lost.session_id, "ts": lost.ts // 1000, "stream_id": lost.stream_id, "seq": lost.seq}
        store.delete("voice_interactions", [key])
    status, told = verified(place)
    assert (status, totals(told)) == (1, {"stored": count - 2, "dead": 1, "missing": 1})
    assert [(m["session_id"], m["event_id"]) for m in told["missing"]] == [(lost.session_id, lost.event_id)]
