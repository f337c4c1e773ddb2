"""How far an export is: counted rows, and how much of the period lies behind them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rich.progress import Progress
from tests.builders import START_US, realistic_call, sqlite_store, store_calls

from voicelog_sink import export_progress
from voicelog_sink.export import EXPORTS
from voicelog_sink.export_progress import counted
from voicelog_sink.stores.sqlite import SqliteStore

NOW = START_US // 1000
HOUR_MS = 3_600_000
SINCE = NOW - 4 * HOUR_MS


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """Calls of now and of each of the three hours before."""
    store = sqlite_store(tmp_path_factory.mktemp("progress") / "calls.db")
    store_calls(store, [realistic_call(f"call-{n}", seed=n, start_us=START_US - n * HOUR_MS * 1000) for n in range(4)])
    yield store
    store.close()


def told(rows: Iterator[Any], name: str, since_ms: int | None) -> list[tuple[float | None, float, str]]:
    """Return the bar's length, how much of it is done, and its text, each time that changes."""
    bar, found, seconds = Progress(disable=True), [], iter(range(100_000))
    for _ in counted(rows, EXPORTS[name], since_ms, bar, lambda: float(next(seconds))):
        (task,) = bar.tasks
        found.append((task.total, task.completed, task.description))
    return [now for before, now in zip([None, *found], found, strict=False) if now != before]


def test_calls_of_a_period_have_a_bar_of_the_time_that_lies_behind(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_progress, "TELL_EVERY", 1)
    assert told(EXPORTS["sessions"].between(store, SINCE, NOW + 1), "sessions", SINCE) == [
        (4 * HOUR_MS, 0, "1 sessions, 1/s, back to 2026-11-22 10:00:00"),
        (4 * HOUR_MS, 1 * HOUR_MS, "2 sessions, 1/s, back to 2026-11-22 09:00:00"),
        (4 * HOUR_MS, 2 * HOUR_MS, "3 sessions, 1/s, back to 2026-11-22 08:00:00"),
        (4 * HOUR_MS, 3 * HOUR_MS, "4 sessions, 1/s, back to 2026-11-22 07:00:00"),
    ]


def test_bar_of_events_goes_on_from_call_to_call_and_never_back(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_progress, "TELL_EVERY", 1)
    found = told(EXPORTS["events"].between(store, SINCE, NOW + 1), "events", SINCE)
    assert [total for total, _, _ in found] == [4 * HOUR_MS] * len(found)
    done = [done for _, done, _ in found]
    assert done == sorted(done)
    assert set(done) == {0, HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS}


@pytest.mark.parametrize(("name", "since_ms"), [("metrics", SINCE), ("events", None)])
def test_rows_of_which_nobody_knows_how_many_there_are_are_counted(
    store: SqliteStore, name: str, since_ms: int | None
) -> None:
    if since_ms is None:
        rows = EXPORTS[name].of_call(store, "call-1", 2000.0)
    else:
        rows = EXPORTS[name].between(store, since_ms, NOW + HOUR_MS)
    known = list(rows) * 10
    every = export_progress.TELL_EVERY
    assert len(known) > every
    assert told(iter(known), name, since_ms) == [
        (None, 0, f"no {name} yet"),
        *((None, n, f"{n:,} {name}, {n / (n // every):,.0f}/s") for n in range(every, len(known) + 1, every)),
    ]
