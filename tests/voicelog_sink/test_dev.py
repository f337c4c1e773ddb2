"""`voicelog-sink dev`: broker, sink and store in one process, around a command."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.running import running_sink, sink, wait_until

from voicelog_sink import child as module
from voicelog_sink.child import Child
from voicelog_sink.errors import SinkError

PRODUCER = """
import os, sys, time
from confluent_kafka import Producer
from voicelog import wire
from voicelog.events import SessionEnded, SessionStarted, SttResult

producer = Producer({"bootstrap.servers": os.environ["VOICELOG_BROKERS"]})
prefix = os.environ.get("VOICELOG_TOPIC_PREFIX", "")
start_us = int(time.time() * 1e6)
for call in range(int(sys.argv[1])):
    for seq in range(1, 11):
        common = {"session_id": f"call-{call}", "stream_id": f"s{call}", "seq": seq, "ts": start_us + seq}
        event = (SessionStarted(**common) if seq == 1 else SessionEnded(events_total=10, **common) if seq == 10
                 else SttResult(stage="stt", transcript="hi", **common))
        message = wire.encode(event)
        producer.produce(prefix + message.topic, message.value, message.key)
if "garbage" in sys.argv:
    producer.produce(prefix + "llm-requests", b"garbage")
assert producer.flush(30) == 0
print("produced", flush=True)
"""

LINGERING = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("pids", os.getpid(), child.pid, flush=True)
time.sleep(600)
"""

STUBBORN = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def rows(path: Path, table: str = "voice_interactions") -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute(f"select count(*) from {table}").fetchone()[0])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_what_the_command_sent_is_stored_when_dev_ends_with_the_commands_status(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    program = f"{PRODUCER}\nsys.exit(3)"
    ended = sink("dev", "--http", "off", "--", sys.executable, "-c", program, "20", store=f"sqlite:///{path}")
    assert (ended.returncode, ended.stdout) == (3, "produced\n")
    assert (rows(path), rows(path, "session_summaries"), rows(path, "derived_pending")) == (200, 20, 0)
    first, *_, last = ended.stderr.splitlines()
    assert first.startswith("voicelog-sink: broker at 127.0.0.1:")
    assert f"store sqlite:///{path}" in first
    assert last == "voicelog-sink: stored 200 events"


def test_what_could_not_be_stored_is_told_with_its_reason(tmp_path: Path) -> None:
    command = (sys.executable, "-c", PRODUCER, "1", "garbage")
    ended = sink("dev", "--http", "off", "--", *command, store=f"sqlite:///{tmp_path}/calls.db")
    says = "voicelog-sink: stored 10 events; 1 not stored: the value is not JSON (not_json)"
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (0, says)


def test_settings_of_dev_reach_the_command(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    options = ("--http", "off", "--store", f"sqlite:///{path}", "--topic-prefix", "eu-")
    command = (sys.executable, "-c", PRODUCER, "2")
    ended = sink("dev", *options, *command, brokers="elsewhere:1", security_protocol="SASL_SSL")
    assert (ended.returncode, rows(path)) == (0, 20)


@pytest.mark.parametrize("ignored", [False, True], ids=["foreground", "background"])
def test_ctrl_c_stops_the_command_with_its_children_and_stores_the_rest(tmp_path: Path, ignored: bool) -> None:
    """Also where a shell has started it in the background, which makes all that runs there ignore SIGINT."""
    path = tmp_path / "calls.db"
    program = (sys.executable, "-c", PRODUCER + LINGERING, "5")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        _check_ctrl_c(tmp_path, path, program)
    finally:
        signal.signal(signal.SIGINT, before)


def _check_ctrl_c(tmp_path: Path, path: Path, program: tuple[str, ...]) -> None:
    with running_sink(tmp_path / "log", "dev", "--", *program, store=f"sqlite:///{path}", http="off") as running:
        pids = [int(word) for word in running.wait_for("pids").split()[1:]]
        assert running.stop(signal.SIGINT) == 128 + signal.SIGINT
        assert running.output().splitlines()[-1] == "voicelog-sink: stored 50 events"
    assert rows(path) == 50
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the command and its child", 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_command_dev_runs_until_it_is_stopped(tmp_path: Path, number: int) -> None:
    with running_sink(tmp_path / "log", "dev", store=f"sqlite:///{tmp_path}/calls.db", http="off") as running:
        running.wait_for("VOICELOG_BROKERS=127.0.0.1:")
        assert running.stop(number) == 0
        assert running.output().splitlines()[-1] == "voicelog-sink: stored 0 events"
        assert "Traceback" not in running.output()


def test_port_that_is_taken_is_left_for_a_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = sink("dev", "--", "true", store=f"sqlite:///{tmp_path}/calls.db", http=address)
    assert ended.returncode == 0
    (line,) = (line for line in ended.stderr.splitlines() if "metrics at" in line)
    assert f"http://{address}/" not in line


NO_PROGRAM = [("no-such-program", "no program of that name is on PATH"), ("./no-such-file", "it is no executable file")]


@pytest.mark.parametrize(("program", "why"), NO_PROGRAM, ids=["name", "path"])
def test_command_that_does_not_exist_is_status_127_and_one_sentence_before_anything_starts(
    tmp_path: Path, program: str, why: str
) -> None:
    ended = sink("dev", "--", program, "--flag", store=f"sqlite:///{tmp_path}/calls.db", http="off")
    says = f"'{program}' can't be run: {why}; expected a command such as `voicelog-sink dev -- python bot.py`"
    assert (ended.returncode, ended.stdout, ended.stderr) == (127, "", f"voicelog-sink: {says}\n")
    assert list(tmp_path.iterdir()) == []


def test_child_that_does_not_listen_is_killed_after_its_grace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    child = Child([sys.executable, "-c", STUBBORN], {})
    wait_until(lambda: "deaf" in capfd.readouterr().out, "a deaf child")
    child.stop()
    assert child.status() == 128 + signal.SIGKILL


def test_child_that_cannot_be_started_says_why() -> None:
    with pytest.raises(SinkError, match="'/' can't be run: Permission denied"):
        Child(["/"], {})
