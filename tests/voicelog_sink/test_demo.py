"""The recorded calls, and `voicelog-sink demo` as it is called: a broker, the sink, a SQLite file."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from collections import defaultdict
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import attrs
import pytest
from tests.running import SINK, environment

from voicelog.events import Event, Turn
from voicelog_sink.demo import RECORDED, anew, moved, recorded, sent_us
from voicelog_sink.rows import event_of, rows_of
from voicelog_sink.summary import summarise
from voicelog_sink.tables import VOICE_INTERACTIONS
from voicelog_sink.tally import COMPLETE

MOST_BYTES = 300_000


def by_call(events: list[Event]) -> dict[str, list[Event]]:
    calls: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        calls[str(event.session_id)].append(event)
    return dict(calls)


def demo(folder: Path, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = environment(**settings)
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2] / "src"), env.get("PYTHONPATH", "")])
    return subprocess.run([*SINK, "demo", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=100)


# What was recorded


def test_every_recorded_event_is_of_this_schema_and_comes_back_from_its_row() -> None:
    events = recorded()
    assert [event for event in events if event.extra] == []
    rows = [row for event in events for row in rows_of(event) if row.table == VOICE_INTERACTIONS.name]
    assert [event_of(row.values) for row in rows] == events


def test_every_recorded_call_is_complete_and_in_the_order_in_which_it_was_sent() -> None:
    calls = by_call(recorded())
    assert list(calls) == ["human", "story", "table"]
    for events in calls.values():
        summary = summarise(events)
        assert summary is not None
        assert (summary.completeness, summary.host) == (COMPLETE, "demo")
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_contributions_of_every_recorded_turn_sum_to_its_latency() -> None:
    turns = [event for event in recorded() if isinstance(event, Turn)]
    assert len(turns) == 7
    for turn in turns:
        assert turn.contributions
        assert turn.user_bot_latency_ms is not None
        assert sum(part.us for part in turn.contributions) == round(turn.user_bot_latency_ms * 1000)


def test_recorded_calls_have_an_error_an_interruption_and_nothing_of_the_machine() -> None:
    events = recorded()
    assert {"ok", "error", "interrupted"} <= {event.status for event in events}
    text = (files("voicelog_sink") / RECORDED).read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    stacks = [event.error.stack for event in events if event.error and event.error.stack]
    assert stacks
    assert [name for stack in stacks for name in re.findall(r'File "([^"]*)"', stack) if "/" in name] == []
    assert re.findall(r"/(?:home|root|tmp|usr|work|Users)/", text) == []


# Moved to another time


def test_moving_keeps_every_length_and_moves_every_moment() -> None:
    day_us = 86_400_000_000
    for event in recorded():
        there = moved(event, day_us)
        assert moved(there, -day_us) == event
        assert (there.ts, there.duration_ms, sent_us(there)) == (
            event.ts + day_us, event.duration_ms, sent_us(event) + day_us,
        )  # fmt: skip
        marks = getattr(event, "marks", None) or {}
        assert (getattr(there, "marks", None) or {}) == {name: at + day_us for name, at in marks.items()}


def test_calls_played_twice_share_no_id_and_are_otherwise_the_same() -> None:
    events = recorded()
    first, second = anew(events, 10**15, "a"), anew(events, 10**15, "b")
    for name in ("session_id", "stream_id", "turn_id", "span_id"):
        ids = [{getattr(event, name) for event in each} - {None} for each in (events, first, second)]
        assert len(set.union(*ids)) == 3 * len(ids[0]), name
    blank = {"session_id": None, "stream_id": "", "turn_id": None, "span_id": None, "parent_id": None}
    assert [attrs.evolve(event, **blank) for event in first] == [attrs.evolve(event, **blank) for event in second]
    assert min(event.ts for event in first) == 10**15


def test_parents_of_spans_stay_those_of_the_same_call() -> None:
    events = recorded()
    played = anew(events, 10**15, "a")
    spans = {event.span_id: number for number, event in enumerate(events) if event.span_id}
    renamed = {event.span_id: number for number, event in enumerate(played) if event.span_id}
    parents = [spans.get(event.parent_id or "") for event in events]
    assert [renamed.get(event.parent_id or "") for event in played] == parents


# The command


def test_demo_shows_the_calls_and_a_second_one_adds_its_own(tmp_path: Path) -> None:
    ended = demo(tmp_path, store="scylla://elsewhere:9042/voice_ai_ks?local_dc=dc1")
    assert ended.returncode == 0, ended.stderr
    assert re.findall(r"^\$ voicelog-sink (\w+) ", ended.stdout, re.MULTILINE) == ["sessions", "show", "stats"]
    for seen in ("Do you have a free table this evening?", "TimeoutError", "user_bot_latency", "complete (11 events)"):
        assert seen in ended.stdout
    count = len(recorded())
    assert f"\n{count} events produced, {count} stored. More of it:\n" in ended.stdout

    again = demo(tmp_path, "--json")
    played = json.loads(again.stdout)
    assert (again.returncode, played["produced"], played["stored"]) == (0, count, count)
    assert played["store"] == "sqlite:///voicelog-demo.db"
    with closing(sqlite3.connect(tmp_path / "voicelog-demo.db")) as database:
        names = [name for (name,) in database.execute("SELECT session_id FROM session_summaries")]
    assert len(set(names)) == 6
    assert set(played["sessions"]) <= set(names)


def test_demo_whose_events_are_not_all_stored_says_so_with_status_1(tmp_path: Path) -> None:
    ended = demo(tmp_path, "--json", max_message_bytes="1500")
    played = json.loads(ended.stdout)
    assert 0 < played["stored"] < played["produced"] == len(recorded())
    *_, why, last = ended.stderr.splitlines()
    assert "(too_large)" in why
    says = f"{played['produced']} events were produced and {played['stored']} are stored: see what is said above"
    assert (ended.returncode, last) == (1, f"voicelog-sink: {says}")


@pytest.mark.parametrize("args", [("--speed", "slow"), ("--store", "mysql://elsewhere")])
def test_wrong_use_is_status_2(tmp_path: Path, args: tuple[str, ...]) -> None:
    ended = demo(tmp_path, *args)
    assert (ended.returncode, ended.stdout) == (2, "")
