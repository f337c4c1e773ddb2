"""Bringing a backup back: what is newer stays, what was erased stays so, and it can be done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.backups import brought, fill, fresh, now_ms, pending_keys, rows_in, some_calls, taken
from tests.builders import realistic_call, store_calls

from voicelog.events import Event
from voicelog_sink import backup_file, restore_chunks
from voicelog_sink import restore as module
from voicelog_sink.backup_manifest import BackupRefused, complete
from voicelog_sink.backup_parquet import batches
from voicelog_sink.derived import Deriver
from voicelog_sink.erasures import Erasure, Erasures, Kind
from voicelog_sink.forget import erase, forget
from voicelog_sink.restore_chunks import Chunk, chunks
from voicelog_sink.restore_gate import Gate
from voicelog_sink.restored import Counts
from voicelog_sink.retention import Retention, Rule, read_rules
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Row, Values
from voicelog_sink.stores.lifetime import DAY_MS
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.summary import summarise, summary_rows
from voicelog_sink.tables import VOICE_INTERACTIONS

OF_CALLS = ("voice_interactions", "performance_metrics", "error_logs", "session_summaries", "sessions_by_day")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """A store that no test changes."""
    store = fresh(tmp_path_factory.mktemp("source") / "a.db")
    fill(store, some_calls())
    yield store
    store.close()


@pytest.fixture(scope="module")
def saved(source: SqliteStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its backup, in small files."""
    folder = tmp_path_factory.mktemp("saved") / "b"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backup_file, "FILE_ROWS", 30)
        patched.setattr(backup_file, "FIRST_PARTITIONS", 1)
        patched.setattr(backup_file, "SLICE_ROWS", 30)
        taken(source, folder)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Iterator[SqliteStore]:
    store = fresh(tmp_path / "t.db")
    yield store
    store.close()


class Killed(BaseException):
    pass


def test_second_restore_writes_nothing(source: SqliteStore, saved: Path, target: SqliteStore) -> None:
    brought(target, saved)
    assert rows_in(target) == rows_in(source)
    again = brought(target, saved)
    assert {name: counts for name, counts in again.tables.items() if counts != Counts(there=counts.there)} == {}
    assert rows_in(target) == rows_in(source)


def test_restore_that_is_killed_anywhere_goes_on_and_ends_in_the_same(
    source: SqliteStore, saved: Path, target: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, writes, runs = target.write, 0, 0

    def dying(rows: Any) -> Any:
        nonlocal writes
        writes += 1
        if writes == 3:
            write(rows[: len(rows) // 2])
            raise Killed
        return write(rows)

    monkeypatch.setattr(target, "write", dying)
    while True:
        runs, writes = runs + 1, 0
        try:
            brought(target, saved)
            break
        except Killed:
            assert runs < 200
    assert runs > 5
    assert rows_in(target) == rows_in(source)


def test_dry_run_counts_what_would_be_written_and_writes_nothing(
    source: SqliteStore, saved: Path, target: SqliteStore
) -> None:
    write_some = [row for event in some_calls()[0].events for row in rows_of(event)]
    target.write(write_some)
    before = rows_in(target, but=())
    told = brought(target, saved, dry_run=True)
    assert rows_in(target, but=()) == before
    assert told.tables == brought(target, saved).tables
    assert told.tables["voice_interactions"].there == len(some_calls()[0].events)


@pytest.mark.parametrize("how", ["changed", "shorter", "missing"])
def test_damaged_file_is_named_and_nothing_of_it_is_written(
    source: SqliteStore, saved: Path, target: SqliteStore, tmp_path: Path, how: str
) -> None:
    copy = copied(saved, tmp_path / "copy")
    victim = copy / "voice_interactions-000002.parquet"
    content = bytearray(victim.read_bytes())
    if how == "changed":
        content[len(content) // 2] ^= 1
    victim.write_bytes(content[:-1] if how == "shorter" else content)
    if how == "missing":
        victim.unlink()
    done = brought(target, copy)
    assert len(done.damaged) == 1
    assert done.damaged[0].startswith(f"{victim} is {'missing' if how == 'missing' else 'damaged'}")
    size = f"{len(content) - 1} bytes, expected {len(content)}"
    assert (size in done.damaged[0]) == (how == "shorter")  # known without reading it
    lost = [row["session_id"] for rows in batches(VOICE_INTERACTIONS, saved / victim.name) for row in rows]
    expected = rows_in(source)
    left = [row for row in expected["voice_interactions"] if row["session_id"] not in lost]
    assert len(left) + len(lost) == len(expected["voice_interactions"])
    assert rows_in(target) == {**expected, "voice_interactions": left}
    assert brought(target, saved).damaged == []
    assert rows_in(target) == expected


def test_without_its_erasures_nothing_is_restored(saved: Path, target: SqliteStore, tmp_path: Path) -> None:
    copy = copied(saved, tmp_path / "copy")
    (copy / "erasures-000001.parquet").unlink()
    with pytest.raises(BackupRefused, match="it says what was erased"):
        brought(target, copy)
    assert not any(rows_in(target).values())


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for each in folder.iterdir():
        (to / each.name).write_bytes(each.read_bytes())
    return to


# --- over live data


def test_nothing_that_is_newer_changes(source: SqliteStore, saved: Path, target: SqliteStore) -> None:
    """Every row of a table with a version is there in a newer one, and every other row is there as it is."""
    brought(target, saved)
    newer = [
        Row(name, {**row, "rows_read": row["rows_read"] + 1, "errors": 77})
        for name, rows in rows_in(source).items()
        for row in rows
        if "rows_read" in row
    ]
    newer.append(Erasure("session", "call-long-gone", now_ms(), "ticket 2").row)
    target.write(newer)
    before = rows_in(target)
    brought(target, saved)
    assert rows_in(target) == before


def test_older_summary_gives_way_to_the_backups(source: SqliteStore, saved: Path, target: SqliteStore) -> None:
    call = some_calls()[0]
    early = summarise(call.events[:9])
    assert early
    target.write([*summary_rows(early), *(row for event in call.events[:9] for row in rows_of(event))])
    brought(target, saved)
    assert rows_in(target)["session_summaries"] == rows_in(source)["session_summaries"]


def test_call_and_metrics_that_both_sides_have_in_part_are_derived_anew(
    saved: Path, target: SqliteStore, tmp_path: Path
) -> None:
    """The backup knows the first half of a call and the store the second half, each with its summary and rollups."""
    call = some_calls()[0]
    other, whole = fresh(tmp_path / "other.db"), fresh(tmp_path / "whole.db")
    take_in(other, "sink-1", call.events[:15])
    taken(other, tmp_path / "first")
    take_in(target, "sink-2", call.events[15:])
    done = brought(target, tmp_path / "first")
    assert (done.calls, done.hours >= 1) == (1, True)
    take_in(whole, "sink-1", call.events)
    derive(target)
    found, expected = rows_in(target), rows_in(whole)
    for table in ("voice_interactions", "session_summaries", "metric_rollups", "performance_metrics"):
        assert found[table] == expected[table]
    assert pending_keys(target) == set()
    other.close()
    whole.close()


def take_in(store: SqliteStore, sink_id: str, events: list[Event]) -> None:
    """Store events as a sink does, with all that it derives from them."""
    deriver = Deriver(store, sink_id)
    assert store.write([*(row for event in events for row in rows_of(event)), *deriver.pending(events, now_ms())]) == []
    deriver.run_all(now_ms())


def derive(store: SqliteStore) -> None:
    """Do what a sink does that finds what was announced."""
    deriver = Deriver(store, "sink-9")
    deriver.adopt(now_ms() + 120_000)
    deriver.run_all(now_ms())


def test_what_was_not_derived_yet_is_announced(target: SqliteStore, tmp_path: Path) -> None:
    call = some_calls()[0]
    live, whole = fresh(tmp_path / "live.db"), fresh(tmp_path / "whole.db")
    deriver = Deriver(live, "sink-1")
    rows = [row for event in call.events for row in rows_of(event)]
    live.write([*rows, *deriver.pending(call.events, now_ms())])
    taken(live, tmp_path / "b")
    brought(target, tmp_path / "b")
    assert rows_in(target)["session_summaries"] == []
    derive(target)
    store_calls(whole, [call])
    found, expected = rows_in(target), rows_in(whole)
    assert found["session_summaries"] == expected["session_summaries"]
    assert found["metric_rollups"] == expected["metric_rollups"]
    live.close()
    whole.close()


def test_tables_by_themselves_are_derived_from(source: SqliteStore, target: SqliteStore, tmp_path: Path) -> None:
    taken(source, tmp_path / "b", tables=("voice_interactions", "metric_parts"))
    done = brought(target, tmp_path / "b")
    assert done.calls == len(some_calls())
    derive(target)
    found, expected = rows_in(target), rows_in(source)
    for table in ("voice_interactions", "session_summaries", "metric_rollups", "metric_names"):
        assert found[table] == expected[table]


# --- erased


def test_erased_call_stays_erased(source: SqliteStore, saved: Path, target: SqliteStore) -> None:
    forget(target, ["call-01"], None, Erasure("session", "", now_ms()), settle=lambda: None)
    done = brought(target, saved)
    expected = rows_in(source)
    for table in OF_CALLS:
        assert rows_in(target)[table] == [row for row in expected[table] if row.get("session_id") != "call-01"]
    assert done.tables["voice_interactions"].erased == len(some_calls()[0].events)


def test_erased_persons_calls_of_before_stay_away_in_every_table_and_are_written_down(
    source: SqliteStore, saved: Path, target: SqliteStore
) -> None:
    """Also rows that do not name the person; a later call of theirs comes back."""
    calls = some_calls()
    gone = [call.session_id for call in calls if call.base.get("user_id") == "user-1"]
    assert gone == ["call-01"]
    target.write([Erasure("user", "user-1", calls[0].start_us // 1000 + 60_000).row])
    target.write([Erasure("user", "user-2", calls[1].start_us // 1000 - 1).row])
    brought(target, saved)
    expected = rows_in(source)
    for table in OF_CALLS:
        assert rows_in(target)[table] == [row for row in expected[table] if row.get("session_id") not in gone]
    written = Erasures()
    written.load(target)
    assert [written.of_session(call.session_id) for call in calls] == [True, False, False, False]


def test_person_who_is_erased_in_the_backup_loses_the_calls_that_only_the_store_knows(
    target: SqliteStore, tmp_path: Path
) -> None:
    """And keeps a call that began after it."""
    calls = some_calls(6)
    other = fresh(tmp_path / "other.db")
    other.write([Erasure("user", "user-2", calls[1].start_us // 1000 + 60_000).row])
    taken(other, tmp_path / "b")
    store_calls(target, calls)
    before = rows_in(target)
    of_user = [call.session_id for call in calls if call.base.get("user_id") == "user-2"]
    assert of_user == ["call-02", "call-05"]
    gone = of_user[:1]
    brought(target, tmp_path / "b")
    after = rows_in(target)
    for table in OF_CALLS:
        assert after[table] == [row for row in before[table] if row["session_id"] not in gone]
    assert {row["subject"] for row in after["erasures"]} == {"user:user-2", *(f"session:{each}" for each in gone)}
    other.close()


@pytest.mark.parametrize(("kind", "name"), [("session", "call-01"), ("user", "user-1")])
def test_dry_run_counts_what_the_backup_itself_says_was_erased(
    target: SqliteStore, tmp_path: Path, kind: Kind, name: str
) -> None:
    """A call that was erased while the backup was taken: its rows were read before, its erasure after."""
    other, calls = fresh(tmp_path / "other.db"), some_calls(2)
    store_calls(other, calls)
    other.write([Erasure(kind, name, now_ms()).row])
    taken(other, tmp_path / "b")
    told = brought(target, tmp_path / "b", dry_run=True)
    assert told.tables["voice_interactions"].erased == len(calls[0].events)
    assert told.tables == brought(target, tmp_path / "b").tables
    other.close()


def test_backups_erasures_delete_what_the_store_has_of_them_and_outrank_earlier_ones(
    target: SqliteStore, tmp_path: Path
) -> None:
    """The store was filled from the topics, and sinks that run know of the erasure only after they have waited."""
    calls = some_calls(4)
    other = fresh(tmp_path / "other.db")
    fill(other, calls)
    forget(other, ["call-01"], None, Erasure("session", "", now_ms()), settle=lambda: None)
    forget(other, [], "user-2", Erasure("user", "", now_ms()), settle=lambda: None)
    taken(other, tmp_path / "b")
    store_calls(target, calls[:2])
    target.write([Erasure("user", "user-2", 1_000).row])
    waited = []

    def settle() -> None:
        waited.append(True)
        target.write([row for event in calls[0].events for row in rows_of(event)])

    done = brought(target, tmp_path / "b", settle=settle)
    assert waited == [True]
    assert done.erased > len(calls[0].events) + len(calls[1].events)
    assert {row["session_id"] for row in rows_in(target)["voice_interactions"]} == {"call-03", "call-04"}
    assert {row["subject"]: row["erased_at"] for row in rows_in(target)["erasures"]}["user:user-2"] > 1_000
    assert brought(target, tmp_path / "b", settle=lambda: pytest.fail("waits for nothing new")).erased == 0
    other.close()


def test_what_is_erased_while_a_restore_runs_is_not_written_after_a_sinks_time(
    saved: Path, target: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, select = [0.0], target.tuples
    monkeypatch.setattr(module, "Gate", partial(Gate, clock=lambda: clock[0]))

    def forgotten(source: str, *given: Any, **bounds: Any) -> Any:
        if source == "performance_metrics" and not clock[0]:
            target.write([Erasure("session", "call-03", now_ms()).row])
            erase(target, ["call-03"])
            clock[0] = 16.0
        return select(source, *given, **bounds)

    monkeypatch.setattr(target, "tuples", forgotten)
    brought(target, saved)
    left = {row["session_id"] for row in rows_in(target)["error_logs"]} | {
        row["session_id"] for row in rows_in(target)["performance_metrics"]
    }
    assert "call-03" not in left


# --- lifetimes


def test_expired_rows_are_counted_and_not_written(source: SqliteStore, saved: Path, tmp_path: Path) -> None:
    later = fresh(tmp_path / "t.db")
    done = module.restore(later, saved, complete(saved), ttl_days=1)
    expected = rows_in(source)
    for table in ("voice_interactions", "performance_metrics"):
        old = [row for row in expected[table] if row["ts"] + DAY_MS <= now_ms()]
        assert done.tables[table] == Counts(written=len(expected[table]) - len(old), expired=len(old))
    assert done.tables["session_summaries"].expired == 0
    later.close()


# --- chunks


@pytest.mark.parametrize("own", [None, Rule("kind", "text", 7)], ids=["none", "some"])
def test_rules_of_retention_come_back_where_there_are_none_and_hold_at_once(
    target: SqliteStore, tmp_path: Path, own: Rule | None
) -> None:
    """Figures of 100 days ago are restored by a rule of 200 days, and are over by the setting's 90."""
    old = realistic_call("old", start_us=(now_ms() - 100 * DAY_MS) * 1000)
    rule = Rule("kind", "figures", 200, changed_at=5, changed_by="me")
    with closing(fresh(tmp_path / "source.db")) as source:
        source.write([rule.row])
        Retention(90).load(source)
        assert source.write([row for event in old.events for row in rows_of(event)]) == []
        manifest = taken(source, tmp_path / "backup")
    target.write([own.row] if own else [])
    done = module.restore(target, tmp_path / "backup", manifest, ttl_days=90)
    assert read_rules(target) == ({own.name: own} if own else {rule.name: rule})
    counts = done.tables["voice_interactions"]
    kept = 0 if own else len(old.events)
    assert (counts.written, counts.expired) == (kept, len(old.events) - kept)
    assert len(list(target.select("voice_interactions", [{"session_id": "old"}]))) == kept


def batch(*rows: tuple[str, int]) -> list[Values]:
    return [{"session_id": session_id, "seq": seq} for session_id, seq in rows]


def test_chunks_hold_whole_partitions_or_a_part_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_chunks, "CHUNK_ROWS", 4)
    given = [("a", 1), ("a", 2), ("b", 1), *(("c", n) for n in range(9)), ("d", 1)]
    batches = [batch(*given[first : first + 3]) for first in range(0, len(given), 3)]
    found = list(chunks(VOICE_INTERACTIONS, batches))
    assert [row for chunk in found for row in chunk.rows] == batch(*given)
    assert found == [
        Chunk(batch(("a", 1), ("a", 2)), whole=True),
        Chunk(batch(("b", 1)), whole=True),
        Chunk(batch(*(("c", n) for n in range(6))), whole=False),
        Chunk(batch(*(("c", n) for n in range(6, 9))), whole=False),
        Chunk(batch(("d", 1)), whole=True),
    ]


def test_partitions_that_are_cut_are_compared_by_their_own_time(
    source: SqliteStore, saved: Path, target: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_chunks, "CHUNK_ROWS", 5)
    monkeypatch.setattr("voicelog_sink.backup_parquet.BATCH_ROWS", 5)
    brought(target, saved)
    assert rows_in(target) == rows_in(source)
    again = brought(target, saved)
    assert {(counts.written, again.calls) for counts in again.tables.values()} == {(0, 0)}
