"""The sum itself: whatever is lost, doubled or changed in a store makes it fail, and names it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.builders import sqlite_store
from tests.calls import a_call
from tests.chaos.audit import check_rollups, check_summaries, check_tables
from tests.chaos.load import fleet
from tests.real.sinks import Place

from voicelog.events import Event
from voicelog_sink.derived import Deriver
from voicelog_sink.rows import rows_of

NOWHERE = Place("127.0.0.1:1", "", "")


@pytest.fixture
def events(random: Random) -> list[Event]:
    return [*fleet(random, 12), *a_call("every-type", 25)]


@pytest.fixture
def path(events: list[Event], tmp_path: Path) -> Path:
    """A store in which these events are, as they should be."""
    with closing(sqlite_store(tmp_path / "calls.db")) as store:
        deriver = Deriver(store, "sink-1")
        assert store.write([row for event in events for row in rows_of(event)]) == []
        store.write(deriver.pending(events, 0))
        deriver.run_all()
    return tmp_path / "calls.db"


def audit_tables(path: Path, events: list[Event]) -> None:
    place = attrs.evolve(NOWHERE, store=f"sqlite:///{path}")
    check_tables(place, events)
    check_summaries(place, events, 0)
    check_rollups(place, events, 0)


def test_store_with_all_events_passes(path: Path, events: list[Event]) -> None:
    audit_tables(path, events)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("DELETE FROM voice_interactions WHERE type = 'turn' LIMIT 1", "1 missing, 0 unexpected, 0 changed"),
        ("UPDATE voice_interactions SET status = 'x' WHERE type = 'llm_request'", "changed: "),
        ("UPDATE voice_interactions SET seq = seq + 1000 WHERE type = 'turn'", "unexpected: "),
        ("UPDATE voice_interactions SET stage_hour = 'llm#x#0' WHERE stage IS NOT NULL", "stage_hour: 0 missing"),
        ("DELETE FROM performance_metrics WHERE name = 'llm'", "row of performance_metrics"),
        ("UPDATE performance_metrics SET value = value + 1 WHERE unit IS NOT NULL", "row of performance_metrics"),
        ("UPDATE error_logs SET error_stack = NULL WHERE error_stack IS NOT NULL", "row of error_logs"),
        ("DELETE FROM error_logs WHERE level = 'WARNING'", "row of error_logs"),
        ("UPDATE system_health SET state = 'down'", "row of system_health"),
        ("DELETE FROM session_summaries", "summary, 0 s after the last commit: "),
        ("UPDATE session_summaries SET received = received - 1", "summary, 0 s after the last commit: 0 missing"),
        ("DELETE FROM sessions_by_day", "summaries that are not listed"),
        (
            "DELETE FROM metric_rollups WHERE tier = 'hour' AND name = 'llm.duration_ms'",
            "hour of rollups, .* 1 missing",
        ),
        (
            "INSERT INTO metric_rollups SELECT name, tier, period, start + 1, service, provider, model, variant, "
            "sketch, count, errors, excluded, cost_usd, rows_read FROM metric_rollups "
            "WHERE tier = 'day' AND name = 'llm.duration_ms'",
            "day of rollups, .* 1 changed",
        ),
    ],
)
def test_store_that_was_harmed_fails(path: Path, events: list[Event], harm: str, says: str) -> None:
    harm = harm.replace(" LIMIT 1", " AND rowid = (SELECT min(rowid) FROM voice_interactions WHERE type = 'turn')")
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(harm).rowcount > 0
    with pytest.raises(AssertionError, match=says):
        audit_tables(path, events)


def test_event_that_was_never_sent_fails(path: Path, events: list[Event]) -> None:
    with pytest.raises(AssertionError, match=r"0 missing, 1 unexpected"):
        audit_tables(path, [event for event in events if event != events[0]])
