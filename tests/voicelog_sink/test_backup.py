"""Taking a backup: files that are what the manifest says, and runs that are cut short and go on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backups import START_US, brought, fill, fresh, now_ms, rows_in, some_calls, taken
from tests.builders import roll_up
from tests.contracts.store_kit import values_of

from voicelog.events import Event
from voicelog.settings import load
from voicelog_sink import backup as module
from voicelog_sink import backup_file, patience, restore
from voicelog_sink.backup import begin, only_run
from voicelog_sink.backup_manifest import Asked, BackupRefused, complete, read
from voicelog_sink.backup_parquet import batches, writer
from voicelog_sink.derived import Deriver
from voicelog_sink.rows import event_of, rows_of
from voicelog_sink.stores.base import Store, StoreUnavailable, Values
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.tables import DERIVED_PENDING, ERASURES, RETENTION, TABLES


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """A store that no test changes."""
    store = fresh(tmp_path_factory.mktemp("store") / "a.db")
    fill(store, some_calls(3))
    yield store
    store.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut files and slices small, so that tables have several."""
    monkeypatch.setattr(backup_file, "FILE_ROWS", 30)
    monkeypatch.setattr(backup_file, "SLICE_ROWS", 30)
    monkeypatch.setattr(backup_file, "FIRST_PARTITIONS", 1)


@settings(max_examples=40)
@given(st.data(), st.sampled_from(sorted(TABLES)))
def test_any_row_of_any_table_comes_out_of_a_file_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    table = TABLES[name]
    rows = data.draw(st.lists(values_of(table), max_size=5))
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    with path.open("wb") as file:
        made = writer(table, file)
        for row in rows:
            made.write({**dict.fromkeys(table.columns), **row})
        made.finish()
    found = [row for batch in batches(table, path) for row in batch]
    assert found == [{name: value for name, value in row.items() if value is not None} for row in rows]


def test_manifest_names_each_file_with_its_rows_bytes_hash_and_times(
    store: SqliteStore, small: None, tmp_path: Path
) -> None:
    manifest = taken(store, tmp_path / "b")
    assert read(tmp_path / "b") == manifest
    assert manifest.rows == {name: len(rows) for name, rows in rows_in(store, but=()).items() if rows} | {
        name: 0 for name in manifest.tables if not manifest.rows[name]
    }
    for part in manifest.files:
        content = (tmp_path / "b" / part.file).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part.bytes, part.sha256)
        rows = [row for batch in batches(TABLES[part.table], tmp_path / "b" / part.file) for row in batch]
        assert len(rows) == part.rows
    (first, *_) = manifest.of("voice_interactions")
    times = [row["ts"] for batch in batches(TABLES[first.table], tmp_path / "b" / first.file) for row in batch]
    assert (first.first, first.last) == (min(times), max(times))
    named = {part.file for part in manifest.files} | {"manifest.json"}
    assert {each.name for each in (tmp_path / "b").iterdir()} == named


def test_duckdb_reads_the_files(store: SqliteStore, tmp_path: Path) -> None:
    taken(store, tmp_path / "b")
    with duckdb.connect() as db:
        found = db.execute(f"SELECT count(*), min(epoch_ms(ts)) FROM '{tmp_path}/b/voice_interactions-*.parquet'")
        count, first = found.fetchall()[0]
    rows = rows_in(store)["voice_interactions"]
    assert (count, first) == (len(rows), min(row["ts"] for row in rows))


def test_same_store_makes_the_same_files(store: SqliteStore, tmp_path: Path) -> None:
    first, second = taken(store, tmp_path / "b"), taken(store, tmp_path / "c")
    assert first.files == second.files


class Killed(BaseException):
    pass


def test_run_that_is_killed_anywhere_goes_on_and_ends_in_the_same(
    store: SqliteStore, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = taken(store, tmp_path / "whole")
    folder, runs, steps, whole_file, save = tmp_path / "b", 0, 0, module.whole_file, module.save

    def dying(action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*given: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == 4 + runs % 2:  # after a file, and before the manifest or the next file is written
                raise Killed
            return action(*given)

        return act

    monkeypatch.setattr(module, "whole_file", dying(whole_file))
    monkeypatch.setattr(module, "save", dying(save))
    folder.mkdir()
    (folder / ".voice_interactions-000001.parquet.1.part").touch()  # what kill -9 leaves
    while runs < 100:
        runs, steps = runs + 1, 0
        with suppress(Killed):
            found = taken(store, folder)
            break
    assert runs > len(expected.files) / 2
    assert (found.files, found.rows) == (expected.files, expected.rows)
    assert sorted(each.name for each in folder.iterdir()) == sorted(
        each.name for each in (tmp_path / "whole").iterdir()
    )


def test_store_that_is_away_for_a_moment_is_waited_for(
    store: SqliteStore, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    expected = taken(store, tmp_path / "whole")
    asked, select = 0, store.select

    def away(*given: Any, **bounds: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked % 2:
            raise StoreUnavailable
        return select(*given, **bounds)

    monkeypatch.setattr(store, "select", away)
    monkeypatch.setattr(backup_file, "SLICE_ROWS", 10**6)
    monkeypatch.setattr(backup_file, "FILE_ROWS", 1)
    assert taken(store, tmp_path / "b").rows == expected.rows
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    monkeypatch.setattr(store, "select", lambda *_, **__: (_ for _ in ()).throw(StoreUnavailable()))
    with pytest.raises(StoreUnavailable):
        taken(store, tmp_path / "c")


def test_period_cuts_rows_by_their_own_time_and_two_side_by_side_are_all(store: SqliteStore, tmp_path: Path) -> None:
    middle = START_US // 1000 + 3_600_000
    taken(store, tmp_path / "before", until=middle)
    taken(store, tmp_path / "after", since=middle)
    target = fresh(tmp_path / "t.db")
    brought(target, tmp_path / "before")
    half = rows_in(target)
    assert all(row["ts"] < middle for row in half["voice_interactions"])
    assert half["voice_interactions"]
    brought(target, tmp_path / "after")
    assert rows_in(target) == rows_in(store)
    target.close()


def test_every_table_is_in_a_backup_and_comes_back() -> None:
    restored = [*restore.ORDER, DERIVED_PENDING, ERASURES, RETENTION]
    for order in (module.ORDER, restored):
        assert sorted(table.name for table in order) == sorted(TABLES)


class Busy(SqliteStore):
    """A store into which a sink writes while it is read: some events of `coming` with every question."""

    coming: Iterator[list[Event]] = iter(())
    sink: Deriver

    def select(self, *given: Any, **bounds: Any) -> Any:
        self.take_in(next(self.coming, []))
        return super().select(*given, **bounds)

    def partitions(self, table: str) -> Any:
        self.take_in(next(self.coming, []))
        return super().partitions(table)

    def take_in(self, events: list[Event]) -> None:
        if not events:
            return
        coming, self.coming = self.coming, iter(())  # what the sink itself asks is no moment for more
        self.write([*(row for event in events for row in rows_of(event)), *self.sink.pending(events, now_ms())])
        if len(events) % 3 == 0:
            self.sink.run_all(now_ms())
        self.coming = coming


@pytest.mark.parametrize("at_once", [3, 7])
def test_backup_of_a_store_that_is_written_is_consistent_once_it_was_derived(
    small: None, tmp_path: Path, at_once: int
) -> None:
    """Every event that is in it has its rows in the other tables, and is in a summary and in the rollups."""
    events = sorted((event for call in some_calls(9) for event in call.events), key=lambda event: event.ts)
    busy = Busy(load({"store": f"sqlite:///{tmp_path}/busy.db"}, {})[0], now_ms)
    busy.open(1000)
    busy.init()
    busy.sink = Deriver(busy, "sink-1")
    busy.take_in(events[:40])
    busy.coming = iter([events[first : first + at_once] for first in range(40, len(events), at_once)])
    taken(busy, tmp_path / "b")
    target = fresh(tmp_path / "t.db")
    brought(target, tmp_path / "b")
    sink = Deriver(target, "sink-9")
    sink.adopt(now_ms() + 120_000)
    sink.run_all(now_ms())
    found = rows_in(target)
    stored = [event_of(row) for row in found["voice_interactions"]]
    assert 40 < len(stored) < len(events)
    for event in stored:
        for table, values in rows_of(event):
            assert {**dict.fromkeys(TABLES[table].columns), **values} in found[table]
    counts = Counter(event.session_id for event in stored)
    rows_read = {row["session_id"]: row["rows_read"] for row in found["session_summaries"]}
    assert {each: rows_read[each] >= count for each, count in counts.items()} == dict.fromkeys(counts, True)
    expected = fresh(tmp_path / "expected.db")
    roll_up(expected, stored, now_ms())
    rolled = {row_key(row): row["count"] for row in found["metric_rollups"]}
    for row in rows_in(expected)["metric_rollups"]:
        assert rolled[row_key(row)] >= row["count"]
    for store in (busy, target, expected):
        store.close()


def row_key(row: Values) -> tuple[Any, ...]:
    return tuple(row[name] for name in TABLES["metric_rollups"].key)


class Settling(SqliteStore):
    """A store in which the sink brings summaries up to date between a backup's reading of both tables about them."""

    sink: Deriver
    read: frozenset[str] = frozenset()

    def partitions(self, table: str) -> Any:
        if table in ("derived_pending", "session_summaries"):
            if self.read - {table}:
                self.sink.run_all(now_ms())
            self.read |= {table}
        return super().partitions(table)


def test_call_that_is_summed_up_while_a_backup_is_taken_has_its_new_summary_after_the_restore(tmp_path: Path) -> None:
    events = some_calls(2)[0].events
    store = Settling(load({"store": f"sqlite:///{tmp_path}/settling.db"}, {})[0], now_ms)
    store.open(1000)
    store.init()
    store.sink = Deriver(store, "sink-1")
    for some in (events[:9], events[9:]):
        store.sink.run_all(now_ms())
        store.write([*(row for event in some for row in rows_of(event)), *store.sink.pending(some, now_ms())])
    taken(store, tmp_path / "b")
    target = fresh(tmp_path / "t.db")
    brought(target, tmp_path / "b")
    sink = Deriver(target, "sink-9")
    sink.adopt(now_ms() + 120_000)
    sink.run_all(now_ms())
    assert [row["rows_read"] for row in rows_in(target)["session_summaries"]] == [len(events)]
    store.close()
    target.close()


def test_one_table_comes_with_what_was_erased(store: SqliteStore, tmp_path: Path) -> None:
    manifest = taken(store, tmp_path / "b", tables=("error_logs",))
    assert list(manifest.tables) == ["error_logs", "derived_pending", "erasures"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("complete", "holds a backup that is complete: give a new directory"),
        ("foreign", "has 'notes.txt' in it and no manifest.json"),
        ("other store", "was begun from another store"),
        ("other options", "was begun with since=None"),
        ("no plan", "has no voice_interactions.plan any more"),
        ("damaged", "manifest.json' is damaged"),
        ("newer", "is a backup of format 99: expected 1; update voicelog"),
    ],
)
def test_directory_that_can_not_be_gone_on_with_is_refused(
    store: SqliteStore, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, message: str
) -> None:
    folder, asked = tmp_path / "b", {}
    if made == "foreign":
        folder.mkdir()
        (folder / "notes.txt").touch()
    elif made == "complete":
        taken(store, folder)
    else:
        half_done(store, folder, monkeypatch)
    manifest = folder / "manifest.json"
    if made == "damaged":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    if made == "newer":
        manifest.write_text(json.dumps({"format": 99}), encoding="utf-8")
    if made == "no plan":
        (folder / "voice_interactions.plan").unlink()
    if made == "other options":
        asked = {"since": 1_000}
    with pytest.raises(BackupRefused, match=message):
        taken(store, folder, "sqlite:///other" if made == "other store" else "sqlite:///a", **asked)


def half_done(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a backup up to its second file."""
    files = 0

    def dies(path: str) -> Any:
        nonlocal files
        files += path.endswith(".parquet")
        if files == 2:
            raise Killed
        return whole_file(path)

    whole_file = module.whole_file
    with monkeypatch.context() as patched:
        patched.setattr(module, "whole_file", dies)
        with pytest.raises(Killed):
            taken(store, folder)


def test_unfinished_backup_is_not_restored(
    store: SqliteStore, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_done(store, tmp_path / "b", monkeypatch)
    with pytest.raises(BackupRefused, match="is not complete: finish it with `voicelog-sink backup"):
        complete(tmp_path / "b")


def test_two_runs_do_not_write_into_one_directory(store: SqliteStore, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    with only_run(folder):
        begin(folder, "sqlite:///a", Asked(since=None, until=None, tables=()), (None, None))
        with pytest.raises(BackupRefused, match="another backup is writing into"):
            taken(store, folder)
    taken(store, folder)
