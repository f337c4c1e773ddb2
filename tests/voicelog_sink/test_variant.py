"""A session's variant reaches every event of the call and every row that is made of them."""

from __future__ import annotations

import voicelog
from voicelog.events import EVENT_TYPES
from voicelog.testing import capture
from voicelog_sink.rows import rows_of


def test_the_sessions_variant_is_on_every_event_and_every_row() -> None:
    with (
        capture() as captured,
        voicelog.session("call", variant=voicelog.choose_variant("voice", {"a": 1}, key="call")),
    ):
        with voicelog.turn() as turn:
            turn.mark("user_speech_end")
            for name in ("stt", "llm", "tts", "tool"):
                with voicelog.stage(name):
                    pass
            turn.mark("playback_start")
        voicelog.metric("m", 1)
        voicelog.publish_log("l", "ERROR")
        voicelog.log_error(ValueError("x"))
        voicelog.health("bot", "ok")
        voicelog.publish_stt_result("hello")
    events = captured.events
    assert {event.TYPE for event in events} == EVENT_TYPES.keys() - {"stage_started"}
    assert {event.variant for event in events} == {"a"}
    rows = [row for event in events for row in rows_of(event) if row.table != "system_health"]
    assert {row.table for row in rows} == {"voice_interactions", "performance_metrics", "error_logs"}
    assert {row.values.get("variant") for row in rows} == {"a"}
