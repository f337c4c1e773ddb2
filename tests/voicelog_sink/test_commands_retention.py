"""`retention` as a person calls it: it shows, asks, tells, and changes nothing by accident."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import realistic_call, sqlite_store, store_calls
from tests.contracts.store_kit import by_hand, opened
from tests.servers.cql import drop_keyspace, with_keyspace
from tests.servers.ports import free_ports

from voicelog_sink.cli import main
from voicelog_sink.commands import retention as command
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Store
from voicelog_sink.tables import TABLES

Run = Callable[..., tuple[int, str, str]]
DAY_US = 86_400_000_000


def calls(now_us: int) -> list[Any]:
    """Return a call of now, and one of ten days ago."""
    return [realistic_call(f"call-{days}", start_us=now_us - days * DAY_US, user_id="ann") for days in (0, 10)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "calls.db"
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    store_calls(store, calls(int(time.time() * 1e6)))
    store.close()
    return path


def runner(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["retention", *arguments, "--store", url, "--start-timeout-ms", "2000"])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(f"sqlite:///{path}", capsys)


def spoken(store: Store, session_id: str) -> list[str]:
    """Return what of a call is text, in its order."""
    rows = list(store.select("voice_interactions", [{"session_id": session_id}]))
    assert rows
    return [row[name] for row in rows for name in TABLES["voice_interactions"].texts if row[name] is not None]


def look(path: Path, session_id: str) -> list[str]:
    store = sqlite_store(path)
    try:
        return spoken(store, session_id)
    finally:
        store.close()


def told(run: Run, *arguments: str) -> dict[str, Any]:
    status, out, err = run(*arguments, "--json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_it_shows_by_itself_every_kind_and_every_table(run: Run) -> None:
    status, out, _ = run()
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["figures", "90", "default", "(setting", "ttl_days)"] in [line[:5] for line in lines]
    assert ["voice_interactions", "90", "90", "default"] in lines
    assert ["erasures", "for", "ever", "-", "default"] in lines
    assert {line[0] for line in lines if line} >= {*TABLES}
    shown = told(run)
    assert shown["topics_ms"] is None
    assert [table["name"] for table in shown["tables"]] == list(TABLES)
    assert {kind["days"] for kind in shown["kinds"]} == {None}


def test_topics_are_asked_for_only_on_request_and_a_broker_that_is_away_is_said(run: Run) -> None:
    (port,) = free_ports(1)
    _, out, _ = run("show")
    assert "broker" not in out
    status, out, _ = run("show", "--topics", "--brokers", f"127.0.0.1:{port}", "--start-timeout-ms", "200")
    assert status == 0
    assert "The broker was not asked: " in out


def test_rule_that_was_set_is_shown_with_who_said_so_and_reset_takes_it_back(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.getpass, "getuser", lambda: "ann")
    status, out, err = run("set", "text", "1w", "--yes")
    assert (status, err) == (0, "")
    assert out.startswith("text: 7 days (texts of voice_interactions 90 -> 7 days; texts of session_summaries 400 -> 7")
    assert out.endswith("Sinks that run know within 15 s, and take out also what is stored already.\n")
    shown = told(run)
    [text] = [kind for kind in shown["kinds"] if kind["name"] == "text"]
    assert (text["days"], text["changed_by"].partition("@")[0]) == (7, "ann")
    assert {table["name"] for table in shown["tables"] if table["text_rule"] == "text"} == set(text["tables"])
    status, out, _ = run("reset", "text")
    assert status == 0
    assert out.startswith("text: as by default (texts of voice_interactions 7 -> 90 days")
    assert {kind["days"] for kind in told(run)["kinds"]} == {None}


@pytest.mark.parametrize("given", [("reset", "text"), ("set", "figures", "90d"), ("reset", "figures", "--dry-run")])
def test_what_changes_nothing_is_one_sentence(run: Run, given: tuple[str, ...]) -> None:
    status, out, err = run(*given)
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    assert "(nothing is kept for longer or shorter than before)" in line
    _, out, _ = run(*given, "--apply", "--no-wait")
    assert out.splitlines() == [line, "Nothing that is stored is over by it."]


def test_dry_run_says_of_how_many_rows_and_changes_nothing(run: Run, path: Path) -> None:
    before = look(path, "call-10")
    status, out, _ = run("set", "text", "7d", "--apply", "--dry-run")
    assert status == 0
    assert "(nothing was changed)" in out
    assert "Rows would be without their texts: 1 in session_summaries, " in out
    assert look(path, "call-10") == before != []
    assert {kind["days"] for kind in told(run)["kinds"]} == {None}


def test_applied_rule_takes_old_texts_out_of_the_files_and_leaves_the_rest(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(command, "settle", lambda: waited.append("until sinks know"))
    by_hand(
        f"sqlite:///{path}", "UPDATE voice_interactions SET transcript = 'says Zebedee' WHERE session_id = 'call-10'"
    )
    young = look(path, "call-0")
    found = told(run, "set", "text", "7d", "--apply", "--yes")
    assert waited == ["until sinks know"]
    assert found["applied"]["texts"]["session_summaries"] == 1
    assert found["applied"]["rows"] == found["applied"]["written"] == {}
    assert (look(path, "call-10"), look(path, "call-0")) == ([], young)
    assert [each for each in path.parent.iterdir() if b"Zebedee" in each.read_bytes()] == []
    assert told(run, "set", "text", "7d", "--apply", "--no-wait")["applied"]["texts"] == {}
    assert len(waited) == 1


def test_without_a_terminal_what_is_lost_wants_yes_and_what_is_not_does_not(run: Run) -> None:
    status, out, err = run("set", "error_logs", "4w")
    assert (status, out) == (2, "")
    assert "say --yes, or --dry-run to see" in err
    assert run("set", "figures", "120d")[0] == 0
    assert {kind["days"] for kind in told(run)["kinds"]} == {None, 120}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("set", "text", "7"), "'7': expected a length such as 7d or 4w, from 1d to 3650d for text"),
        (("set", "text", "0d"), "from 1d to 3650d"),
        (("set", "rollups", "58w"), "from 1d to 400d for rollups"),
        (("set", "metric_names", "7d"), "metric_names is kept as metric_rollups is: set that one"),
        (("reset", "poems"), "'poems' is neither a kind nor a table"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_wrong_use_says_what_was_expected(run: Run, given: tuple[str, ...], message: str) -> None:
    status, out, err = run(*given)
    assert (status, out) == (2, "")
    assert message in " ".join(err.split())


def test_text_that_is_to_outlive_its_row_is_warned_of(run: Run) -> None:
    _, _, err = run("set", "text", "200d", "--yes")
    assert "warning: the rows of voice_interactions go after 90 days, and their texts with them" in err
    assert "session_summaries" not in err


def test_store_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = runner(f"sqlite:///{tmp_path}/none.db", capsys)("show")
    assert status == 1
    assert "no calls are stored yet" in err


# --- CQL


@pytest.fixture
def cql_store_url(cql_base_url: str, cql_admin: Any) -> Iterator[str]:
    yield with_keyspace(cql_base_url, "retention_command")
    drop_keyspace(cql_admin, "retention_command")


@pytest.mark.real
def test_on_cql_what_is_stored_keeps_its_expiry_until_the_rule_is_applied(
    cql_store_url: str, cql_admin: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(cql_store_url, capsys)
    store = opened(cql_store_url)
    store.init()
    store.write([row for call in calls(int(time.time() * 1e6)) for event in call.events for row in rows_of(event)])
    before = {name: spoken(store, name) for name in ("call-0", "call-10")}
    status, out, _ = run("set", "text", "7d", "--yes")
    assert status == 0
    assert "keeps the expiry that it was written with: the last of it goes 400 days after its event; --apply" in out
    assert {name: spoken(store, name) for name in before} == before
    assert set(told(run, "set", "text", "7d", "--apply", "--no-wait")["applied"]["written"]) == {"voice_interactions"}
    assert (spoken(store, "call-10"), spoken(store, "call-0")) == ([], before["call-0"])
    left = cql_admin.execute(
        "SELECT TTL(transcript) AS text, TTL(ts_us) AS figure FROM retention_command.voice_interactions"
    )
    seconds = [(row.text, row.figure) for row in left if row.text is not None]
    assert seconds
    assert all(6 * 86_400 < text <= 7 * 86_400 and figure > 80 * 86_400 for text, figure in seconds)
    status, _, err = run("set", "figures", "400d")
    assert status == 0
    assert "voice_interactions has time windows of 3 days, 134 of them for 400 days: at most 50 are good" in err
    store.close()
