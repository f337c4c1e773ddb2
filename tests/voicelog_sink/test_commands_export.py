"""`export` as a person and a program call it, against a real SQLite file."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import CallBuilder, realistic_call, sqlite_store, store_calls, troubled_call
from tests.exported import events_in_parquet, objects_in
from tests.running import environment
from tests.voicelog_sink.ran import Ran, Run

from voicelog import wire
from voicelog.events import Event
from voicelog_sink import shapes
from voicelog_sink.cli import main
from voicelog_sink.export import EXPORTS
from voicelog_sink.export_file import Unwritable, whole_file
from voicelog_sink.summary import summarise


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


@pytest.fixture
def calls(path: Path) -> list[CallBuilder]:
    start_us = int(time.time() * 1e6) - 600_000_000
    calls = [
        realistic_call("call-good", start_us=start_us, variant="b"),
        troubled_call("call-trouble", start_us=start_us - 10**6),
    ]
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    store_calls(store, calls)
    store.close()
    return calls


@pytest.fixture
def run(path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        status = main([*arguments, "--store", f"sqlite:///{path}"])
        return Ran(status, *capfd.readouterr())

    return run


def in_order(calls: list[CallBuilder]) -> list[Event]:
    return [event for call in calls for event in sorted(call.events, key=lambda e: (e.ts // 1000, e.stream_id, e.seq))]


def test_events_go_to_stdout_as_they_were_on_the_wire(run: Run, calls: list[CallBuilder]) -> None:
    ran = run("export")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.encode() == b"".join(wire.encode(event).value + b"\n" for event in in_order(calls))


def test_parquet_file_holds_every_event_of_the_store_once(run: Run, calls: list[CallBuilder], tmp_path: Path) -> None:
    ran = run("export", "--format", "parquet", "-o", f"{tmp_path}/out.parquet")
    assert ran == (0, "", f"41 rows of events in {tmp_path}/out.parquet\n")
    assert events_in_parquet(tmp_path / "out.parquet") == in_order(calls)
    assert sorted(each.name for each in tmp_path.iterdir() if not each.name.startswith("calls.db")) == ["out.parquet"]


def test_one_call_is_exported_by_its_id_its_beginning_or_as_the_last(run: Run, calls: list[CallBuilder]) -> None:
    whole = run("export", "--session", "call-good")
    assert [json.loads(line)["event_id"] for line in whole.out.splitlines()] == [
        event.event_id for event in in_order(calls[:1])
    ]
    assert run("export", "--session", "call-g") == run("export", "--session", "last") == whole


def test_sessions_are_the_shapes_that_sessions_prints(run: Run, calls: list[CallBuilder]) -> None:
    summaries = [summarise(call.events) for call in calls]
    expected = [json.loads(shapes.line(shapes.session_shape(summary))) for summary in summaries if summary]
    assert [json.loads(line) for line in run("export", "--table", "sessions").out.splitlines()] == expected


def test_summary_of_one_call_counts_slow_turns_by_the_setting(
    run: Run, calls: list[CallBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_turns(*arguments: str) -> int:
        (summary,) = run("export", "--table", "sessions", "--session", "call-trouble", *arguments).objects
        return int(summary["slow_turns"])

    assert slow_turns() == 1
    assert slow_turns("--slow-turn-ms", "2901") == 0
    monkeypatch.setenv("VOICELOG_SLOW_TURN_MS", "500")
    assert slow_turns() == 2


def test_rows_have_their_moment_in_microseconds_and_json_as_json(
    run: Run, calls: list[CallBuilder], tmp_path: Path
) -> None:
    run("export", "--table", "errors", "-o", f"{tmp_path}/errors.jsonl")
    (tool,) = (row for row in objects_in(tmp_path / "errors.jsonl") if row.get("stage") == "tool")
    event = next(event for event in calls[1].events if event.stage == "tool" and event.error)
    assert event.error is not None
    assert tool == {
        "service": "front-desk", "stream_id": event.stream_id, "seq": event.seq, "ts_us": event.ts, "type": "stage",
        "level": "ERROR", "session_id": "call-trouble", "turn_id": event.turn_id, "stage": "tool", "host": "bot-1",
        "error_type": "TimeoutError", "error_message": event.error.message, "error_stack": event.error.stack,
        "attributes": {"tool": "find_table"},
    }  # fmt: skip


@pytest.mark.parametrize("table", list(EXPORTS))
@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
def test_each_table_is_written_in_each_format_and_json_says_what_was_written(
    run: Run, calls: list[CallBuilder], tmp_path: Path, table: str, file_format: str
) -> None:
    rows = {"events": 41, "sessions": 2, "errors": 3, "health": 0}
    file = tmp_path / "out"
    ran = run("export", "--table", table, "--format", file_format, "-o", str(file), "--json")
    found = json.loads(ran.out)
    size_bytes = file.stat().st_size
    assert found == {
        "table": table, "format": file_format, "rows": rows.get(table, found["rows"]), "file": str(file),
        "bytes": size_bytes,
    }  # fmt: skip
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [("a.jsonl", (), "jsonl"), ("a.csv", (), "csv"), ("A.PARQUET", (), "parquet"), ("a.txt", (), "jsonl"),
     ("parquet", (), "jsonl"), ("a.txt", ("--format", "csv"), "csv"), ("a.csv", ("--format", "csv"), "csv"),
     ("a.csv", ("--format", "jsonl"), "jsonl"), ("a.parquet", ("--format", "csv"), "csv")],
)  # fmt: skip
def test_format_is_what_is_given_and_otherwise_what_the_suffix_says(
    run: Run, calls: list[CallBuilder], tmp_path: Path, name: str, given: tuple[str, ...], expected: str
) -> None:
    file = tmp_path / name
    ran = run("export", "--session", "last", "--table", "sessions", "-o", str(file), "--json", *given)
    (found,) = ran.objects
    begin = {"jsonl": b"{", "csv": b"session_id,", "parquet": b"PAR1"}[expected]
    assert (ran.status, found["format"], file.read_bytes()[: len(begin)]) == (0, expected, begin)
    two = given and file.suffix[1:] not in ("txt", expected)
    assert ran.err == (f"{file} is written as {expected}, as --format says, whatever its suffix\n" if two else "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("--session", "call-good", "--since", "5h"), "--session call-good and --since: expected one of both"),
     (("--since", "1h", "--until", "2h"), "--since 1h is not before --until 2h: expected the earlier moment first"),
     (("-o", ""), "an empty file name; expected a file, or - for stdout"),
     (("--session", ""), "an empty session id; expected an id, or `last`"),
     (("--until", "soon"), "'soon' is no time: expected a length such as 30m, 24h or 7d"),
     (("--json",), "--json says what was written to a file: expected -o FILE with it"),
     (("--format", "xml"), "'xml' is not one of 'jsonl', 'csv', 'parquet'"),
     (("--table", "calls"), "'calls' is not one of 'events', 'sessions', 'metrics', 'errors', 'health'")],
)  # fmt: skip
def test_wrong_use_says_what_was_expected(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    ran = run("export", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert sentence in ran.err


def test_file_that_can_not_be_written_is_a_sentence(run: Run, calls: list[CallBuilder], tmp_path: Path) -> None:
    ran = run("export", "-o", f"{tmp_path}/none/out")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(
        f"voicelog-sink: '{tmp_path}/none/out' can't be written: No such file or directory; check"
    )
    ran = run("export", "-o", str(tmp_path))
    assert ran.err == f"voicelog-sink: '{tmp_path}' is a directory: expected a file; give the file's name too\n"


def test_unknown_call_leaves_no_file(run: Run, calls: list[CallBuilder], tmp_path: Path) -> None:
    ran = run("export", "--session", "call-x", "-o", f"{tmp_path}/out")
    assert (ran.status, ran.out) == (1, "")
    assert "no call 'call-x' is stored" in ran.err
    assert not list(tmp_path.glob("*out*"))


def test_store_that_is_not_there_is_told_and_nothing_is_made(run: Run, path: Path, tmp_path: Path) -> None:
    ran = run("export", "-o", f"{tmp_path}/out")
    assert (ran.status, ran.out) == (1, "")
    assert "no calls are stored yet" in ran.err
    assert list(tmp_path.iterdir()) == []


# --- the file


def write_half(path: str, fault: type[BaseException]) -> None:
    with whole_file(path) as file:
        file.write(b"half of this week's")
        raise fault


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError, BrokenPipeError])
def test_aborted_export_leaves_what_was_there_and_nothing_else(tmp_path: Path, fault: type[BaseException]) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"last week's")
    with pytest.raises(fault):
        write_half(str(target), fault)
    assert target.read_bytes() == b"last week's"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_file_is_not_seen_under_its_name_before_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with whole_file(str(target)) as file:
        file.write(b"all of it")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == b"all of it"


def test_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with whole_file(str(tmp_path / "link")) as file:
        file.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out").read_bytes() == b"x"


def test_full_disk_is_a_sentence_and_a_device_is_not_replaced() -> None:
    sentence = "'/dev/full' can't be written: No space left on device; check"
    with pytest.raises(Unwritable, match=sentence), whole_file("/dev/full") as file:
        file.write(b"x" * 100_000)
    assert not Path("/dev/full").is_file()


# --- pipes and terminals


def process(path: Path, *arguments: str, **given: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "voicelog_sink", "export", *arguments, "--store", f"sqlite:///{path}"]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, **given)


@pytest.fixture
def many(path: Path) -> Iterator[None]:
    """Enough calls that no pipe holds their events."""
    start_us = int(time.time() * 1e6) - 600_000_000
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    store_calls(store, [realistic_call(f"call-{n:03d}", seed=n, start_us=start_us) for n in range(40)])
    store.close()
    return


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
def test_reader_that_had_enough_is_no_failure(many: None, path: Path, file_format: str) -> None:
    with process(path, "--format", file_format, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.read(4)
        started.stdout.close()
        assert started.stderr is not None
        assert (started.stderr.read(), started.wait(60)) == (b"", 0)


def test_parquet_goes_into_a_pipe_and_not_onto_a_terminal(calls: list[CallBuilder], path: Path, tmp_path: Path) -> None:
    with process(path, "--format", "parquet", stdout=subprocess.PIPE) as started:
        (tmp_path / "out.parquet").write_bytes(started.communicate(timeout=60)[0])
    assert events_in_parquet(tmp_path / "out.parquet") == in_order(calls)
    main_end, other_end = os.openpty()
    with process(path, "--format", "parquet", stdout=other_end) as started:
        _, err = started.communicate(timeout=60)
    os.close(main_end), os.close(other_end)
    assert started.returncode == 2
    assert b"--format parquet is binary and stdout is a terminal: expected -o FILE, or a pipe" in err


def drawn(path: Path, *arguments: str, **given: Any) -> tuple[bytes, bytes]:
    """Return what an export printed, and what it drew on stderr, a terminal."""
    main_end, other_end = os.openpty()
    command = [sys.executable, "-m", "voicelog_sink", "export", *arguments, "--store", f"sqlite:///{path}"]
    there = environment() | {"TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(command, env=there, stderr=other_end, **({"stdout": subprocess.PIPE} | given))
    os.set_blocking(main_end, False)
    told = b""
    with contextlib.suppress(BlockingIOError):
        told = os.read(main_end, 100_000)
    os.close(main_end), os.close(other_end)
    assert done.returncode == 0
    return done.stdout, told


def test_rows_are_told_of_on_a_terminal_and_not_in_what_is_exported(calls: list[CallBuilder], path: Path) -> None:
    out, told = drawn(path)
    assert out.count(b"\n") == 41
    assert b"no events yet" in told


def test_rows_that_are_printed_on_a_terminal_have_no_bar_among_them(calls: list[CallBuilder], path: Path) -> None:
    main_end, other_end = os.openpty()
    _, told = drawn(path, "--table", "sessions", stdout=other_end)
    printed = os.read(main_end, 100_000)
    os.close(main_end), os.close(other_end)
    assert (printed.count(b"\n"), told) == (2, b"")
