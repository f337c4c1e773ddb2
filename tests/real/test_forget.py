"""`forget` on a real broker and real stores: gone, and not stored again by a sink that reads it all anew."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
from tests.calls import calls, messages
from tests.real.sinks import Place, drained, stored
from tests.running import produce, sink

pytestmark = pytest.mark.real


def test_erased_call_is_not_stored_again_by_a_sink_that_reads_everything_anew(place: Place, tmp_path: Path) -> None:
    events = calls(3)
    gone, *stay = sorted({event.session_id or "" for event in events})
    produce(place.brokers, messages(events), place.prefix)
    drained(place, tmp_path / "first.log")
    given = {name: value for name, value in place.settings().items() if name in {"brokers", "topic_prefix", "store"}}
    ended = sink("forget", gone, "--yes", "--no-wait", "--reason", "ticket 1", "--json", **given)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["sessions"] == [gone]
    assert told["rows"]["voice_interactions"] == 25
    assert set(told["topics_ms"]) == {place.prefix + name for name in
        ("stt-results", "llm-requests", "tts-results", "voice-events", "voicelog-dlq")}  # fmt: skip
    drained(attrs.evolve(place, group=place.prefix + "another"), tmp_path / "second.log")
    with place.opened() as store:
        found = stored(store, [gone, *stay])
        assert {session_id: len(events) for session_id, events in found.items()} == {gone: 0, **dict.fromkeys(stay, 25)}
        for table in ("performance_metrics", "error_logs", "session_summaries", "sessions_by_day"):
            assert gone not in str(list(store.select(table, list(store.partitions(table)))))
