"""The list of calls, one call, and finding it by what a person types; against a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder, realistic_call, sqlite_store, store_calls, troubled_call

from voicelog_sink.calls import call_of
from voicelog_sink.queries import PAGE, NoSuchSession, call, find, sessions
from voicelog_sink.rows import DAY_MS, rows_of
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.summary import summarise, summary_rows

NOW = START_US // 1000
HOUR_US = 3_600_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


def short_call(session_id: str, start_us: int) -> CallBuilder:
    built = CallBuilder(session_id, start_us=start_us)
    built.started(), built.ended(10)
    return built


def listed(store: SqliteStore, since_ms: int, until_ms: int, limit: int = 1000) -> list[str]:
    return [summary.session_id for summary in sessions(store, since_ms, until_ms, limit)]


def test_no_calls_make_an_empty_list(store: SqliteStore) -> None:
    assert sessions(store, NOW - DAY_MS, NOW, 10) == []


def test_calls_are_listed_newest_first_over_days_and_shards(store: SqliteStore) -> None:
    calls = [short_call(f"call-{n}", START_US - n * 5 * HOUR_US) for n in range(40)]
    store_calls(store, calls)
    assert listed(store, NOW - 20 * DAY_MS, NOW + 1) == [c.session_id for c in calls]
    assert listed(store, NOW - 20 * DAY_MS, NOW + 1, limit=3) == ["call-0", "call-1", "call-2"]


def test_since_is_included_and_until_is_not(store: SqliteStore) -> None:
    store_calls(store, [short_call(f"call-{n}", START_US + n * 1000) for n in range(4)])
    assert listed(store, NOW + 1, NOW + 3) == ["call-2", "call-1"]


def test_listed_call_is_its_whole_summary(store: SqliteStore) -> None:
    built = realistic_call()
    store_calls(store, [built])
    assert sessions(store, NOW, NOW + 1, 1) == [summarise(built.events)]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 200))
def test_more_calls_than_a_page_within_one_millisecond_are_all_listed(
    tmp_path_factory: pytest.TempPathFactory, offsets_ms: list[int], limit: int
) -> None:
    store = sqlite_store(tmp_path_factory.mktemp("list") / "calls.db")
    calls = [
        short_call(f"call-{place}-{n}", START_US + offset * 1000)
        for place, offset in enumerate(offsets_ms)
        for n in range(PAGE)
    ]
    store_calls(store, calls)
    expected = sorted(calls, key=lambda c: (-c.start_us, c.session_id))
    assert listed(store, NOW, NOW + 10, limit) == [c.session_id for c in expected][:limit]
    store.close()


def test_one_shard_with_many_pages_is_read_to_its_end(store: SqliteStore) -> None:
    summary = summarise(short_call("call", START_US).events)
    assert summary is not None
    in_table, in_list = summary_rows(summary)
    rows = [
        row._replace(values={**row.values, "session_id": f"call-{n:03d}", "started_at": NOW + n // 50})
        for n in range(300)
        for row in (in_table, in_list)
    ]
    store.write(rows)
    expected = [f"call-{n:03d}" for group in range(5, -1, -1) for n in range(group * 50, group * 50 + 50)]
    assert listed(store, NOW, NOW + 1000) == expected


def test_list_row_that_disagrees_with_its_summary_is_left_out(store: SqliteStore) -> None:
    late, whole = short_call("call-1", START_US).events[1:], short_call("call-1", START_US).events
    for events in (late, whole):
        summary = summarise(events)
        assert summary is not None
        store.write(summary_rows(summary))
    assert [s.started_at for s in sessions(store, NOW - 1, NOW + 100, 10)] == [NOW]


def test_call_whose_summary_was_erased_is_not_listed(store: SqliteStore) -> None:
    store_calls(store, [short_call("call-1", START_US)])
    store.delete("session_summaries", [{"session_id": "call-1"}])
    assert listed(store, NOW, NOW + 1) == []


def test_call_comes_back_whole(store: SqliteStore) -> None:
    for built in (realistic_call(), troubled_call()):
        store_calls(store, [built])
        summary = summarise(built.events)
        assert summary is not None
        assert call(store, built.session_id) == call_of(summary, built.events)


def test_live_call_without_a_summary_is_right_too(store: SqliteStore) -> None:
    events = realistic_call().events[:8]
    store.write([row for event in events for row in rows_of(event)])
    found = call(store, "call-1")
    assert found is not None
    assert found.summary == summarise(events)
    assert [turn.event is not None for turn in found.turns] == [True, False]


def test_call_whose_events_expired_has_its_summary_and_no_turns(store: SqliteStore) -> None:
    summary = summarise(realistic_call().events)
    assert summary is not None
    store.write(summary_rows(summary))
    found = call(store, "call-1")
    assert found is not None
    assert (found.summary, found.turns, found.outside) == (summary, (), ())


def test_unknown_call_is_none(store: SqliteStore) -> None:
    assert call(store, "call-1") is None


def test_call_is_found_by_its_id_a_unique_beginning_or_as_the_last(store: SqliteStore) -> None:
    store_calls(
        store, [short_call("ab-1", START_US), short_call("ab-12", START_US - HOUR_US), short_call("cd", START_US - 1)]
    )
    assert [find(store, given, NOW) for given in ("ab-1", "ab-12", "c", "last")] == ["ab-1", "ab-12", "cd", "ab-1"]


def test_live_call_is_found_by_its_whole_id(store: SqliteStore) -> None:
    store.write([row for event in short_call("call-1", START_US).events for row in rows_of(event)])
    assert find(store, "call-1", NOW) == "call-1"


def test_beginning_of_several_calls_names_them(store: SqliteStore) -> None:
    store_calls(store, [short_call(f"call-{n}", START_US) for n in range(7)])
    with pytest.raises(
        NoSuchSession,
        match=r"7 calls begin with 'call-': call-0, call-1, call-2, call-3, call-4, \.\.\.; give more of the id",
    ):
        find(store, "call-", NOW)


def test_unknown_call_names_near_ones_or_the_command_that_lists_them(store: SqliteStore) -> None:
    store_calls(store, [short_call("call-trouble", START_US)])
    with pytest.raises(NoSuchSession, match="no call 'cal-trouble' is stored: did you mean call-trouble") as caught:
        find(store, "cal-trouble", NOW)
    assert caught.value.near == ("call-trouble",)
    with pytest.raises(
        NoSuchSession, match="no call 'x' is stored: `voicelog-sink sessions --since 90d` lists the calls"
    ):
        find(store, "x", NOW)


def test_last_call_of_an_empty_store_is_a_sentence(store: SqliteStore) -> None:
    with pytest.raises(NoSuchSession, match="there is no call yet within 90 days"):
        find(store, "last", NOW)
