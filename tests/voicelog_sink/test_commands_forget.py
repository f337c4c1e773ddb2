"""`forget` as a person calls it: it asks, tells, and does nothing by accident."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders import realistic_call, sqlite_store, store_calls
from tests.servers.ports import free_ports

from voicelog_sink.cli import main
from voicelog_sink.commands import forget
from voicelog_sink.tables import TABLES

Run = Callable[..., tuple[int, str, str]]

WHOLE_ID = "a call is erased by its whole id: its beginning is not enough, nor is `last`"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "calls.db"
    store = sqlite_store(path)
    store_calls(store, [realistic_call(f"call-{n}", user_id=user) for n, user in enumerate(("ann", "ann", "bob"))])
    store.close()
    return path


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (port,) = free_ports(1)

    def run(*arguments: str) -> tuple[int, str, str]:
        places = ["--store", f"sqlite:///{path}", "--brokers", f"127.0.0.1:{port}", "--start-timeout-ms", "200"]
        status = main(["forget", *arguments, *places])
        return status, *capsys.readouterr()

    return run


def sessions(path: Path) -> list[str]:
    store = sqlite_store(path)
    try:
        return sorted(row["session_id"] for row in store.partitions("voice_interactions"))
    finally:
        store.close()


def erasures(path: Path) -> list[str]:
    store = sqlite_store(path)
    try:
        keys = list(store.partitions("erasures"))
        assert all(set(row) == set(TABLES["erasures"].columns) for row in store.select("erasures", keys))
        return sorted(row["subject"] for row in keys)
    finally:
        store.close()


def test_dry_run_says_what_would_go_and_changes_nothing(run: Run, path: Path) -> None:
    status, out, _ = run("call-0", "--dry-run")
    assert status == 0
    assert out.startswith("1 call, ")
    assert " rows would be erased: " in out
    assert "in voice_interactions" in out
    assert "The broker was not asked" in out
    assert (sessions(path), erasures(path)) == (["call-0", "call-1", "call-2"], [])


def test_without_a_terminal_it_wants_yes(run: Run, path: Path) -> None:
    status, out, err = run("call-0")
    assert (status, out) == (2, "")
    assert "say --yes, or --dry-run" in err
    assert sessions(path) == ["call-0", "call-1", "call-2"]


@pytest.mark.parametrize("given", [(), ("call-0", "--user", "ann")], ids=["neither", "both"])
def test_calls_or_a_person_but_not_both(run: Run, path: Path, given: tuple[str, ...]) -> None:
    status, _, err = run(*given, "--yes")
    assert status == 2
    assert "either ids of calls or --user" in err
    assert sessions(path) == ["call-0", "call-1", "call-2"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("call-0", ""), "an empty session id; expected a call's whole id"),
        (("--user", ""), "an empty user; expected a person, as the `user` of sessions"),
    ],
)
def test_nothing_at_all_is_nobody(run: Run, path: Path, given: tuple[str, ...], said: str) -> None:
    status, out, err = run(*given, "--yes")
    assert (status, out) == (2, "")
    assert said in err
    assert (sessions(path), erasures(path)) == (["call-0", "call-1", "call-2"], [])


def test_person_goes_with_every_call_and_is_written_down(run: Run, path: Path) -> None:
    status, out, _ = run("--user", "ann", "--yes", "--no-wait", "--json")
    told = json.loads(out)
    assert status == 0
    assert told["sessions"] == ["call-0", "call-1"]
    assert told["rows"]["session_summaries"] == 2
    assert told["topics_ms"] is None
    assert (sessions(path), erasures(path)) == (["call-2"], ["session:call-0", "session:call-1", "user:ann"])


def test_call_that_is_not_stored_yet_is_written_down(run: Run, path: Path) -> None:
    status, out, err = run("call-9", "call-9", "--yes", "--no-wait")
    assert status == 0
    assert out.startswith("0 calls, 0 rows erased: nothing stored\n")
    assert err.splitlines() == [
        "nothing is stored under 'call-9' (did you mean call-2 or call-1 or call-0?); " + WHOLE_ID,
        forget.WRITTEN_DOWN,
    ]
    assert (sessions(path), erasures(path)) == (["call-0", "call-1", "call-2"], ["session:call-9"])


def test_beginning_of_an_id_is_told_from_a_call_and_nothing_of_the_call_would_go(run: Run, path: Path) -> None:
    status, out, err = run("call", "zzz", "call-1", "--dry-run")
    assert status == 0
    assert out.startswith("1 call, ")
    assert err.splitlines() == [
        "nothing is stored under 'call' (did you mean call-0 or call-1 or call-2?); " + WHOLE_ID,
        "nothing is stored under 'zzz'; " + WHOLE_ID,
    ]
    status, out, err = run("call", "--dry-run", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"sessions": ["call"], "rows": {}, "erased_at": None, "topics_ms": None}


def test_person_without_a_call_is_told_and_written_down(run: Run, path: Path) -> None:
    status, out, err = run("--user", "an", "--yes", "--no-wait")
    assert status == 0
    assert out.startswith("0 calls, 0 rows erased: nothing stored\n")
    said = "no call of 'an' is known; expected the `user` of sessions, whole"
    assert err.splitlines() == [said, forget.WRITTEN_DOWN]
    assert erasures(path) == ["user:an"]


def test_what_a_sink_had_on_its_way_is_taken_out_after_the_wait(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> None:
        store = sqlite_store(path)
        store_calls(store, [realistic_call("call-0", user_id="ann"), realistic_call("call-7", user_id="ann")])
        store.close()

    monkeypatch.setattr(forget, "settle", meanwhile)
    status, out, _ = run("--user", "ann", "--yes", "--json")
    assert status == 0
    assert json.loads(out)["sessions"] == ["call-0", "call-1", "call-7"]
    assert sessions(path) == ["call-2"]
