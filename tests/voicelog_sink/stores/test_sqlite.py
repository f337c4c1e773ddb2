"""What SQLite alone does: durability, its lock, a full disk, files that are none, expiry."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from voicelog.settings import load
from voicelog_sink.retention import Rule, lifetimes
from voicelog_sink.stores import sqlite, sqlite_sweep
from voicelog_sink.stores.base import Row, StoreMisconfigured, StoreUnavailable
from voicelog_sink.stores.lifetime import DAY_MS, Lifetimes
from voicelog_sink.stores.sqlite import SqliteStore

NOW_MS = 1_800_000_000_000


class Clock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


@pytest.fixture
def make(path: Path, clock: Clock) -> Iterator[Callable[[], SqliteStore]]:
    made: list[SqliteStore] = []

    def one() -> SqliteStore:
        made.append(SqliteStore(load({"store": f"sqlite:///{path}"}, {})[0], clock))
        made[-1].open(100)
        return made[-1]

    yield one
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[[], SqliteStore]) -> SqliteStore:
    store = make()
    store.init()
    store.keep_for(Lifetimes.by_default(90))
    store.write([])
    return store


def row(number: int, at_ms: int = 0, **values: object) -> Row:
    key = {"session_id": "call", "ts": NOW_MS + at_ms, "stream_id": "s", "seq": number}
    return Row("voice_interactions", {**key, **values})


def stored(path: Path) -> list[int]:
    with sqlite3.connect(path) as db:
        found = [seq for (seq,) in db.execute("SELECT seq FROM voice_interactions ORDER BY seq")]
    db.close()
    return found


def pragma(store: SqliteStore, name: str) -> object:
    db = store._open_db()
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def sweep_again(store: SqliteStore) -> None:
    assert store._sweep is not None
    store._sweep.next_s = 0.0


def test_store_that_was_not_told_how_long_things_are_kept_takes_nothing_out(
    store: SqliteStore, make: Callable[[], SqliteStore], path: Path, clock: Clock
) -> None:
    store.write([row(1)])
    clock.now_ms = NOW_MS + 91 * DAY_MS
    make().write([row(2, 91 * DAY_MS)])
    assert stored(path) == [1, 2]
    sweep_again(store)
    store.write([])
    assert stored(path) == [2]


def test_commits_are_flushed_to_the_disk_and_readers_do_not_wait(store: SqliteStore) -> None:
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2


def test_a_write_is_all_or_nothing(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.write([row(1)]) == []
    store._open_db().execute("DROP TABLE error_logs")
    key = {"service": "a", "hour": "h", "shard": 1, "ts": NOW_MS, "stream_id": "s", "seq": 1}
    with pytest.raises(StoreMisconfigured, match="error_logs"):
        store.write([row(2), Row("error_logs", key)])
    assert stored(path) == [1]


def test_reading_goes_on_while_another_process_writes(store: SqliteStore, make: Callable[[], SqliteStore]) -> None:
    store.write([row(1)])
    reader = make()
    other = store._open_db()
    other.execute("BEGIN IMMEDIATE")
    assert [r["seq"] for r in reader.select("voice_interactions", [{"session_id": "call"}])] == [1]
    other.execute("ROLLBACK")


def test_lock_of_another_process_means_unavailable_until_it_is_released(
    store: SqliteStore, make: Callable[[], SqliteStore], path: Path
) -> None:
    other = make()._open_db()
    other.execute("BEGIN IMMEDIATE")
    store._open_db().execute("PRAGMA busy_timeout = 50")
    with pytest.raises(StoreUnavailable, match="another process holds its lock") as caught:
        store.write([row(1)])
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    other.execute("ROLLBACK")
    assert store.write([row(1)]) == []
    assert stored(path) == [1]


def test_full_disk_means_unavailable_and_stores_nothing_of_the_write(store: SqliteStore, path: Path) -> None:
    pages = pragma(store, "page_count")
    pragma(store, f"max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="the disk is full; free some space"):
        store.write([row(n, response="x" * 5000) for n in range(50)])
    pragma(store, "max_page_count = 1000000")
    assert stored(path) == []
    assert store.write([row(1)]) == []


def test_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    store = SqliteStore(load({"store": f"sqlite:///{tmp_path}/none/calls.db"}, {})[0])
    with pytest.raises(StoreMisconfigured, match="/none' does not exist; make it, or set VOICELOG_STORE"):
        store.open(100)


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("This is not a database, but a text that is long enough to be looked at as one. " * 20)
    store = SqliteStore(load({"store": f"sqlite:///{path}"}, {})[0])
    with pytest.raises(StoreMisconfigured, match="the file is no SQLite database; set VOICELOG_STORE"):
        store.open(100)
    assert path.read_text().startswith("This is not")


def as_others_have_it(path: Path, *statements: str) -> bytes:
    """Make a SQLite file that is not voicelog's; return what is in it."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    return path.read_bytes()


@pytest.mark.parametrize("count", [1, 7])
def test_file_of_something_else_is_named_and_stays_as_it_is(path: Path, count: int) -> None:
    before = as_others_have_it(path, *(f"CREATE TABLE t{n}(b)" for n in range(count)))
    store = SqliteStore(load({"store": f"sqlite:///{path}"}, {})[0])
    names = {1: "t0", 7: "t0, t1, t2, t3, t4, …"}[count]
    with pytest.raises(StoreMisconfigured) as caught:
        store.open(100)
    said = f"sqlite file '{path}' is no voicelog store (it has tables {names}): is the path right?"
    assert (str(caught.value), path.read_bytes(), os.listdir(path.parent)) == (said, before, [path.name])


def test_file_with_one_table_of_ours_is_a_store_that_is_not_complete(
    path: Path, make: Callable[[], SqliteStore]
) -> None:
    as_others_have_it(path, "CREATE TABLE a(b)", "CREATE TABLE metric_names(day TEXT)")
    assert {each.remedy for each in make().check()} >= {
        f"voicelog-sink init --only store --store sqlite:///{path}",
        f"export what it holds, drop it, and run voicelog-sink init --only store --store sqlite:///{path}",
    }


def test_file_changes_by_init_and_not_by_being_opened_and_read(path: Path, make: Callable[[], SqliteStore]) -> None:
    path.touch()
    store = make()
    assert store.check()
    with pytest.raises(StoreMisconfigured, match=f"run voicelog-sink init --only store --store sqlite:///{path}$"):
        list(store.partitions("voice_interactions"))
    with pytest.raises(StoreMisconfigured, match="no such table"):
        store.delete("voice_interactions", [{"session_id": "-", "ts": 0, "stream_id": "-", "seq": 0}])
    store.close()
    assert (path.stat().st_size, os.listdir(path.parent)) == (0, [path.name])
    store = make()
    store.init()
    assert pragma(store, "journal_mode") == "wal"


def test_reader_makes_the_files_of_wal_mode_and_reads_beside_who_writes(
    store: SqliteStore, path: Path, make: Callable[[], SqliteStore]
) -> None:
    store.write([row(1)])
    store.close()
    before = path.read_bytes()
    assert os.listdir(path.parent) == [path.name]
    reader = make()
    assert [r["seq"] for r in reader.select("voice_interactions", [{"session_id": "call"}])] == [1]
    store.open(100)
    writing = store._open_db()
    writing.execute("BEGIN IMMEDIATE")
    other = make()
    assert [r["seq"] for r in other.select("voice_interactions", [{"session_id": "call"}])] == [1]
    writing.execute("ROLLBACK")
    for each in (store, other, reader):
        each.close()
    assert (path.read_bytes(), os.listdir(path.parent)) == (before, [path.name])


def test_store_that_is_in_no_wal_mode_is_read_as_it_is(
    store: SqliteStore, path: Path, make: Callable[[], SqliteStore]
) -> None:
    store.write([row(1)])
    store.close()
    before = as_others_have_it(path, "PRAGMA journal_mode = DELETE")
    reader = make()
    assert [r["seq"] for r in reader.select("voice_interactions", [{"session_id": "call"}])] == [1]
    reader.close()
    assert path.read_bytes() == before


def test_directory_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    store = SqliteStore(load({"store": f"sqlite:///{tmp_path}"}, {})[0])
    with pytest.raises(StoreMisconfigured, match="check the path and its permissions"):
        store.open(100)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_file_that_cannot_be_written_is_read_and_named_when_it_is_to_change(store: SqliteStore, path: Path) -> None:
    store.write([row(1)])
    store.close()
    path.chmod(0o400)
    store.open(100)
    assert [r["seq"] for r in store.select("voice_interactions", [{"session_id": "call"}])] == [1]
    for change in (store.init, lambda: store.write([row(2)])):
        with pytest.raises(StoreMisconfigured, match="check its owner and permissions"):
            change()


def test_refused_row_names_table_column_and_type(store: SqliteStore) -> None:
    [rejected] = store.write([row(1, duration_ms="long")])
    assert rejected.error == "IntegrityError"
    assert rejected.message.endswith("cannot store TEXT value in REAL column voice_interactions.duration_ms")


def test_rows_are_deleted_when_their_time_is_over_at_most_once_an_hour(
    store: SqliteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.write([row(1), row(2, 3 * DAY_MS)]) == []
    clock.now_ms = NOW_MS + 91 * DAY_MS
    assert store.write([row(3, 91 * DAY_MS)]) == []
    assert stored(path) == [1, 2, 3]
    sweep_again(store)
    assert store.write([]) == []
    assert stored(path) == [2, 3]


def test_one_write_deletes_a_bounded_number_and_the_next_goes_on(
    store: SqliteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_sweep, "SWEEP_ROWS", 10)
    store.write([row(n) for n in range(25)])
    clock.now_ms = NOW_MS + 91 * DAY_MS
    sweep_again(store)
    left = []
    for _ in range(4):
        store.write([])
        left.append(len(stored(path)))
    assert left == [15, 5, 0, 0]
    assert store._sweep is not None
    assert store._sweep.next_s > 0


WEEK = lifetimes({"text": Rule("kind", "text", 7)}, 90)
SECRET = "my card ends in 4711, says Zebedee"


def texts(path: Path) -> list[int]:
    """Return which rows have a text."""
    with sqlite3.connect(path) as db:
        found = [
            n for (n,) in db.execute("SELECT seq FROM voice_interactions WHERE transcript IS NOT NULL ORDER BY seq")
        ]
    db.close()
    return found


def test_texts_that_are_over_are_taken_out_a_bounded_number_a_write_once_the_rule_is_known(
    store: SqliteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_sweep, "SWEEP_ROWS", 10)
    store.write([row(n, n * 1000, transcript=SECRET) for n in range(25)] + [row(99, 3 * DAY_MS, transcript=SECRET)])
    clock.now_ms = NOW_MS + 8 * DAY_MS
    left = []
    for lifetimes_now in (None, WEEK, WEEK, WEEK, WEEK):
        if lifetimes_now:
            store.keep_for(lifetimes_now)
        store.write([])
        left.append(len(texts(path)))
    assert left == [26, 16, 6, 1, 1]
    assert texts(path) == [99]
    assert stored(path) == [*range(25), 99]


def test_rows_of_one_moment_beyond_the_bound_are_no_endless_loop(
    store: SqliteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_sweep, "SWEEP_ROWS", 3)
    store.write([row(n, transcript=SECRET) for n in range(20)])
    clock.now_ms = NOW_MS + 8 * DAY_MS
    store.keep_for(WEEK)
    for _ in range(3):
        store.write([])
    assert texts(path) == []


def test_step_that_was_undone_is_done_again(
    store: SqliteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([row(1, transcript=SECRET)])
    clock.now_ms = NOW_MS + 8 * DAY_MS
    store.keep_for(WEEK)
    monkeypatch.setattr(sqlite, "_write_group", lambda db, *_: db.execute("SELECT nothing"))
    with pytest.raises(StoreMisconfigured):
        store.write([row(2)])
    monkeypatch.undo()
    assert texts(path) == [1]
    store.write([])
    assert texts(path) == []


def test_no_file_holds_a_text_whose_time_is_over(store: SqliteStore, path: Path, clock: Clock) -> None:
    """Nor the log: the files are searched byte by byte. Long texts have pages of their own, short ones share them."""
    for number in range(300):
        text = SECRET * (200 if number % 7 == 0 else 1)
        at_ms = number * 1000
        key = {
            "service": f"s{number % 5}",
            "hour": "h",
            "shard": 1,
            "ts": NOW_MS + at_ms,
            "stream_id": "s",
            "seq": number,
        }
        failed = Row("error_logs", {**key, "error_message": text, "attributes": text})
        store.write(
            [row(number, at_ms, transcript=text, response="fine", items=4), failed, row(number, at_ms, text=text)]
        )
    held = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert SECRET.encode() in held
    clock.now_ms = NOW_MS + 8 * DAY_MS
    store.keep_for(WEEK)
    store.write([])
    for each in path.parent.iterdir():
        assert SECRET.encode() not in each.read_bytes(), each
    assert stored(path) == list(range(300))


def test_reader_delays_the_emptying_of_the_log_and_no_write(
    store: SqliteStore, make: Callable[[], SqliteStore], path: Path, clock: Clock
) -> None:
    store.write([row(1, transcript=SECRET), row(2)])
    reading = make().select("voice_interactions", [{"session_id": "call"}])
    next(reading)
    clock.now_ms = NOW_MS + 8 * DAY_MS
    store.keep_for(WEEK)
    store.write([])
    log = Path(f"{path}-wal")
    assert SECRET.encode() in log.read_bytes()
    list(reading)
    assert store._sweep is not None
    store._sweep._empty_log_s = 0.0
    store.write([])
    assert SECRET.encode() not in log.read_bytes()


def test_tables_without_a_lifetime_are_kept_for_ever(store: SqliteStore, clock: Clock) -> None:
    erased = Row("erasures", {"subject": "call", "kind": "session", "erased_at": NOW_MS})
    store.write([erased])
    clock.now_ms = NOW_MS + 10_000 * DAY_MS
    sweep_again(store)
    store.write([])
    assert [r["subject"] for r in store.select("erasures", [{"subject": "call"}])] == ["call"]


def test_expiry_reads_an_index_and_not_the_table(store: SqliteStore) -> None:
    from voicelog_sink.stores import ddl
    from voicelog_sink.tables import TABLES

    for table in TABLES.values():
        asked = [(ddl.sweep(table), 2)] if ddl.lifetime_ms(table, 1) is not None else []
        asked += [(ddl.sweep_texts(table), 2), (ddl.nth_birth(table), 3)] if table.texts else []
        for statement, values in asked:
            steps = store._open_db().execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * values).fetchall()
            assert not [s for s in steps if str(s[3]) == f"SCAN {table.name}"], steps


def test_view_reads_its_index(store: SqliteStore) -> None:
    query = "SELECT * FROM interactions_by_stage WHERE stage_hour = ? ORDER BY ts, session_id, stream_id, seq"
    [step] = store._open_db().execute(f"EXPLAIN QUERY PLAN {query}", ("a",)).fetchall()
    assert "USING INDEX interactions_by_stage_key (stage_hour=?)" in step[3]


def test_wrong_type_of_a_column_is_named(store: SqliteStore) -> None:
    db = store._open_db()
    db.execute("DROP TABLE erasures")
    db.execute("CREATE TABLE erasures (subject INTEGER PRIMARY KEY, kind TEXT, erased_at INTEGER, reason TEXT) STRICT")
    assert [d.what for d in store.check()] == [
        "table erasures: column subject is INTEGER instead of TEXT",
        "table erasures: its key is () instead of (subject)",
    ]


def test_view_that_was_changed_is_made_anew(store: SqliteStore) -> None:
    db = store._open_db()
    db.execute("DROP VIEW interactions_by_stage")
    db.execute("CREATE VIEW interactions_by_stage AS SELECT session_id, ts FROM voice_interactions")
    assert store.check()
    assert store.init() == ["made view interactions_by_stage"]
    assert store.check() == []
