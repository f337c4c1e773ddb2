"""`backup` and `restore` as a person and a program call them, against real SQLite files."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.backups import fill, fresh, now_ms, rows_in, some_calls
from tests.builders import store_calls
from tests.voicelog_sink.ran import Ran

from voicelog_sink.cli import main
from voicelog_sink.commands import restore as command
from voicelog_sink.erasures import Erasure
from voicelog_sink.forget import forget

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "a.db"
    store = fresh(path)
    fill(store, some_calls(3))
    store.close()
    return path


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every wait for sinks, none of which takes its time."""
    waits: list[bool] = []
    monkeypatch.setattr(command, "settle", lambda: waits.append(True))
    return waits


@pytest.fixture
def run(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `backup` on the store that is there, and `restore` on another one."""

    def run(name: str, *arguments: str) -> Ran:
        path = source if name == "backup" else tmp_path / "t.db"
        status = main([name, f"{tmp_path}/b", *arguments, "--store", f"sqlite:///{path}"])
        return Ran(status, *capfd.readouterr())

    return run


def test_backup_and_restore_tell_what_they_did(run: Run, source: Path, tmp_path: Path) -> None:
    taken = run("backup")
    assert (taken.status, taken.err) == (0, "")
    assert taken.out.splitlines()[0] == "voice_interactions: 68 rows"
    checked = run("backup", "--check")
    assert checked == taken._replace(out=taken.out.rstrip() + ": all files are as they were written\n")
    dry = run("restore", "--dry-run")
    assert (dry.status, dry.err) == (0, f"the file {tmp_path}/t.db does not exist and would be made\n")
    assert not (tmp_path / "t.db").exists()
    (tmp_path / "t.db").touch()
    empty = run("restore", "--dry-run")
    assert empty == (0, dry.out, f"the file {tmp_path}/t.db is empty, and its tables would be made\n")
    assert (tmp_path / "t.db").stat().st_size == 0
    brought = run("restore")
    assert dry.out == brought.out.replace("rows written", "rows to write")
    assert (brought.status, brought.err) == (0, "")
    lines = [line.split() for line in brought.out.splitlines()]
    assert lines[0] == ["table", "written", "there", "expired", "erased", "refused"]
    assert lines[1] == ["voice_interactions", "68", "0", "0", "0", "0"]
    assert lines[-2][1:] == ["rows", "written"]
    there, expected = fresh(tmp_path / "t.db"), fresh(source)
    assert rows_in(there) == rows_in(expected)
    there.close()
    expected.close()


def test_dry_run_fails_where_the_restore_would_for_want_of_a_directory(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run("backup")
    for more in ((), ("--dry-run",)):
        assert main(["restore", f"{tmp_path}/b", *more, "--store", f"sqlite:///{tmp_path}/none/t.db"]) == 1
        assert f"the directory '{tmp_path}/none' does not exist; make it" in capfd.readouterr().err


def test_json_has_the_documented_shapes(run: Run, source: Path, tmp_path: Path) -> None:
    (taken,) = run("backup", "--json").objects
    assert list(taken) == [
        "directory", "store", "began_at", "ended_at", "since", "until", "tables", "files", "bytes", "damaged"
    ]  # fmt: skip
    assert (taken["directory"], taken["store"], taken["damaged"]) == (f"{tmp_path}/b", "sqlite", [])
    assert taken["tables"]["session_summaries"] == 3
    run("restore")
    (again,) = run("restore", "--dry-run", "--json").objects
    assert list(again) == ["directory", "dry_run", "tables", "damaged", "refusals", "calls", "hours", "erased"]
    assert again["tables"]["session_summaries"] == {"written": 0, "there": 3, "expired": 0, "erased": 0, "refused": 0}


def test_damage_is_told_with_status_1_by_both(run: Run, tmp_path: Path) -> None:
    run("backup")
    victim = tmp_path / "b" / "error_logs-000001.parquet"
    victim.write_bytes(victim.read_bytes()[:-1])
    for name, *arguments in (("backup", "--check"), ("restore", "--no-wait")):
        ran = run(name, *arguments)
        assert ran.status == 1
        assert f"{victim} is damaged: " in ran.err
        assert "as they were written" not in ran.out
    (told,) = run("backup", "--check", "--json").objects
    assert len(told["damaged"]) == 1


def test_complete_backup_is_not_written_again(run: Run) -> None:
    run("backup")
    ran = run("backup")
    assert (ran.status, ran.out) == (1, "")
    assert "holds a backup that is complete: give a new directory for the next one" in ran.err


def test_period_that_is_none_and_what_is_no_backup_are_wrong_use_or_failures(run: Run, tmp_path: Path) -> None:
    ran = run("backup", "--since", "2026-11-02", "--until", "2026-11-01")
    assert ran.status == 2
    assert "--since 2026-11-02 is not before --until 2026-11-01" in ran.err
    assert run("restore").status == 2
    (tmp_path / "b").mkdir(exist_ok=True)
    ran = run("restore")
    assert ran.status == 1
    assert "is no backup: it has no manifest.json" in ran.err


def test_table_that_is_missing_is_said_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.db"
    fresh(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE retention")  # as in a store that was made before there was such a table
    assert main(["backup", f"{tmp_path}/b", "--store", f"sqlite:///{path}"]) == 1
    said = capfd.readouterr().err
    assert "no such table: retention" in said
    assert f"run voicelog-sink init --only store --store sqlite:///{path}\n" in said
    assert list((tmp_path / "b").iterdir()) == []


def test_backup_without_pyarrow_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = run("backup")
    assert ran.status == 1
    assert "pip install 'voicelog[sink,parquet]'\n" in ran.err


def test_restore_waits_for_sinks_where_the_backup_says_what_was_erased(
    run: Run, tmp_path: Path, waits: list[bool]
) -> None:
    run("backup")
    target = fresh(tmp_path / "t.db")
    store_calls(target, some_calls(3))
    target.close()
    assert run("restore").status == 0
    assert waits == [True]
    assert run("restore").status == 0
    assert waits == [True]


def test_what_was_erased_in_between_is_told(run: Run, tmp_path: Path) -> None:
    run("backup")
    run("restore", "--no-wait")
    target = fresh(tmp_path / "t.db")
    forget(target, ["call-01"], None, Erasure("session", "", now_ms()), settle=lambda: None)
    target.close()
    (told,) = run("restore", "--json").objects
    assert told["tables"]["session_summaries"] == {"written": 0, "there": 2, "expired": 0, "erased": 1, "refused": 0}
