"""An export of every store: each event once and whole, and the list of calls by its filters and pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import CallBuilder, realistic_call, store_calls, troubled_call
from tests.contracts.store_kit import NOW_MS
from tests.exported import events_in_parquet, objects_in

from voicelog import wire
from voicelog.events import Error, ErrorInfo, Event
from voicelog_sink.derived import Deriver
from voicelog_sink.export import EXPORTS
from voicelog_sink.export_formats import JsonLines
from voicelog_sink.export_parquet import Parquet
from voicelog_sink.queries import sessions, sessions_page
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Store
from voicelog_sink.wanted import Wanted

BEGIN_MS = NOW_MS - 20 * 3_600_000
END_MS = NOW_MS - 3_600_000


@pytest.fixture(scope="module")
def calls(store: Store) -> list[CallBuilder]:
    """Calls of a day, listed; the last one goes on."""
    step_us = (END_MS - BEGIN_MS) * 1000 // 41
    calls = [realistic_call(f"call-{n:02d}", seed=n, start_us=BEGIN_MS * 1000 + n * step_us, variant="ab"[n % 2],
                            user_id=None if n % 4 else "okafor")
             for n in range(1, 39)]  # fmt: skip
    calls.append(troubled_call("call-39", seed=39, start_us=BEGIN_MS * 1000 + 39 * step_us))
    store_calls(store, calls)
    live = realistic_call("call-40", seed=40, start_us=BEGIN_MS * 1000 + 40 * step_us)
    del live.events[9:]
    pending = Deriver(store, "sink-1").pending(live.events, NOW_MS)
    assert store.write([*(row for event in live.events for row in rows_of(event)), *pending]) == []
    return [*calls, live]


def sorted_events(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.session_id, event.seq))


def test_export_holds_every_event_of_the_store_once_and_whole(
    store: Store, calls: list[CallBuilder], tmp_path: Path
) -> None:
    export = EXPORTS["events"]
    for name, make in (("calls.parquet", Parquet), ("calls.jsonl", JsonLines)):
        with (tmp_path / name).open("wb") as file:
            writer = make(export, file)
            for row in export.between(store, BEGIN_MS, END_MS):
                writer.write(row)
            writer.finish()
    expected = sorted_events([event for call in calls for event in call.events])
    assert sorted_events(events_in_parquet(tmp_path / "calls.parquet")) == expected
    lines = (tmp_path / "calls.jsonl").read_bytes().splitlines()
    assert sorted_events([wire.decode(line) for line in lines]) == expected
    assert len(objects_in(tmp_path / "calls.jsonl")) == len(expected)


def test_errors_of_no_call_are_exported_with_those_of_calls(store: Store, calls: list[CallBuilder]) -> None:
    own = Error(
        stream_id="process-1", seq=1, ts=BEGIN_MS * 1000 + 5, service="door", error=ErrorInfo(type="OSError")
    )  # fmt: skip
    assert store.write(rows_of(own)) == []
    found = {(row["stream_id"], row["seq"]) for row in EXPORTS["errors"].between(store, BEGIN_MS, END_MS)}
    failed = {(e.stream_id, e.seq) for e in calls[38].events if e.status == "error" or e.TYPE == "log"}
    assert found == failed | {("process-1", 1)}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(variant="a"), range(38, 0, -2)),
        (Wanted(failed=True, slow_ms=2900), [39]),
        (Wanted(interrupted=True, provider="cartesia", service="front-desk"), [39]),
        (Wanted(model="gpt-9"), []),
        (Wanted(text="FOR SUNDAY"), [39]),
        (Wanted(user="okafor"), range(36, 0, -4)),
        (Wanted(user="okafor", provider="openai", text="okafor"), range(36, 0, -4)),
        (Wanted(user="okafor", failed=True), []),
        (Wanted(user="okaf"), []),
        (Wanted(user=""), [n for n in range(39, 0, -1) if n % 4]),
        (Wanted(user="", variant=""), [39]),
        (Wanted(provider=""), []),
    ],
)
def test_list_shows_the_calls_that_are_wanted(
    store: Store, calls: list[CallBuilder], wanted: Wanted, expected: list[int]
) -> None:
    found = [call.session_id for call in sessions(store, BEGIN_MS, END_MS, 100, wanted)]
    assert found == [f"call-{n:02d}" for n in expected]


@pytest.mark.parametrize(
    ("wanted", "count"), [(Wanted(), 39), (Wanted(user="okafor"), 9), (Wanted(model="gpt-4o-mini", text="call"), 39)]
)
def test_pages_side_by_side_are_the_whole_list(
    store: Store, calls: list[CallBuilder], wanted: Wanted, count: int
) -> None:
    found, after = [], None
    while True:
        page = sessions_page(store, BEGIN_MS, END_MS, 7, wanted, after)
        found += page.calls
        after = page.after
        if after is None:
            break
    assert found == sessions(store, BEGIN_MS, END_MS, 100, wanted)
    assert len(found) == count
