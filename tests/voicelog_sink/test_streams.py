"""stdin, stdout and stderr that are full or closed: one sentence and a status, and no fault of ours."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import pytest
from tests.builders import realistic_call, sqlite_store, store_calls
from tests.running import SINK, environment

FULL = "voicelog-sink: stdout can't be written: No space left on device\n"
CLOSED = "voicelog-sink: stdout can't be written: it is closed\n"
DOCTOR = "doctor --brokers 127.0.0.1:1 --start-timeout-ms 100"


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("streams") / "calls.db"
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    store_calls(store, [realistic_call("call-1", start_us=int(time.time() * 1e6) - 600_000_000)])
    store.close()
    return f"sqlite:///{path}"


def in_shell(command: str, store_url: str) -> tuple[int, str, str]:
    """Run `voicelog-sink` with what a shell redirects; return status, stdout and stderr."""
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join(SINK)} {command}"], env=environment(store=store_url), capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("command", ["sessions", "export", "stats", "--help"])
def test_full_disk_behind_stdout_is_one_sentence_and_status_1(command: str, store_url: str) -> None:
    assert in_shell(f"{command} >/dev/full", store_url) == (1, "", FULL)


@pytest.mark.parametrize("command", ["sessions", "export --session last", "stats --json", "--help", DOCTOR])
def test_closed_stdout_is_one_sentence_and_status_1(command: str, store_url: str) -> None:
    assert in_shell(f"{command} >&-", store_url) == (1, "", CLOSED)


def test_closed_stderr_keeps_no_export_from_being_written(store_url: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert in_shell(f"export -o {path} <&- 2>&-", store_url) == (0, "", "")
    assert in_shell("export", store_url)[1] == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["sessions --nope", "sesions", "retention set text 7d <&-"])
def test_wrong_use_with_stderr_closed_is_status_2_and_not_on_stdout(command: str, store_url: str) -> None:
    assert in_shell(f"{command} 2>&-", store_url) == (2, "", "")


def test_store_never_gets_the_place_of_a_closed_stream(store_url: str) -> None:
    status, _, told = in_shell("sessions --json --limit 1 <&- >&-", store_url)
    assert (status, told) == (1, CLOSED)
    assert in_shell("sessions --json --limit 1 | wc -l", store_url)[:2] == (0, "1\n")


def test_command_that_prints_nothing_has_no_need_of_stdout(store_url: str) -> None:
    status, out, told = in_shell("sessions --since 1s >&-", store_url)
    assert (status, out) == (0, "")
    assert told.startswith("no calls since 1s")
