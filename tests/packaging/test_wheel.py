"""The wheel, as a user gets it: built, installed into an empty environment, and run from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import voicelog
voicelog.configure(service="wheel-test")
with voicelog.session("call-1", variant="a"), voicelog.turn() as turn:
    turn.mark("user_speech_end", ago_ms=250)
    with voicelog.stage("stt", provider="p", model="m") as stt:
        stt.set(transcript="hello")
    turn.mark("playback_start")
assert voicelog.shutdown() == 0
"""

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command without this checkout in its way; fails the test with its output."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environ
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the source distribution of this checkout."""
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", target, ROOT, cwd=target)
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty environment with the wheel and its extra `sink`; return its bin directory."""
    where = tmp_path_factory.mktemp("environment")
    venv.create(where, with_pip=True)
    run(where / "bin/pip", "install", "-q", f"voicelog[sink] @ {wheel.as_uri()}", cwd=where)
    return where / "bin"


def test_wheel_holds_the_schema_the_type_marker_and_nothing_of_the_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = {f"voicelog_sink/cql/{path.name}" for path in (ROOT / "cql").glob("*.cql")}
    assert scripts
    assert scripts | {"voicelog/py.typed", "voicelog_sink/py.typed", "voicelog_sink/demo_calls.jsonl"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"voicelog", "voicelog_sink"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
def test_wheel_holds_the_extension_and_is_of_one_platform(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.startswith("voicelog/_hot") and name.endswith(".so")]
    assert [name for name in names if name.endswith((".c", ".h"))] == []
    assert not wheel.name.endswith("-any.whl")


def test_without_a_compiler_the_wheel_is_for_every_platform_and_says_so(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path, CC="/no/compiler")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")] == []
    assert "without the extension voicelog._hot, stages will run in Python" in done.stdout + done.stderr


def test_library_imports_without_the_sinks_dependencies(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "v", with_pip=True)
    run(tmp_path / "v/bin/pip", "install", "-q", wheel, cwd=tmp_path)
    run(tmp_path / "v/bin/python", "-c", "import voicelog, voicelog.testing; voicelog.session('x')", cwd=tmp_path)
    listed = json.loads(run(tmp_path / "v/bin/pip", "list", "--format", "json", cwd=tmp_path).stdout)
    names = {package["name"].lower() for package in listed}
    assert names <= {
        "voicelog", "attrs", "confluent-kafka", "msgspec", "opentelemetry-api", "pip", "setuptools",
        "typing-extensions", "typing_extensions", "importlib-metadata", "importlib_metadata", "zipp",
    }  # fmt: skip


def test_installed_wheel_records_a_call_and_gives_it_back(environment: Path, tmp_path: Path) -> None:
    sink, store = environment / "voicelog-sink", "sqlite:///calls.db"
    run(sink, "dev", "--store", store, "--http", "off", "--", environment / "python", "-c", PROGRAM, cwd=tmp_path)
    sessions = run(sink, "sessions", "--store", store, "--json", cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line)["session_id"] for line in sessions] == ["call-1"]
    shown = run(sink, "show", "call-1", "--store", store, cwd=tmp_path).stdout
    assert "hello" in shown
    assert "complete" in shown


def test_installed_wheel_plays_the_recorded_calls(environment: Path, tmp_path: Path) -> None:
    played = json.loads(run(environment / "voicelog-sink", "demo", "--json", cwd=tmp_path).stdout)
    assert played["stored"] == played["produced"] > 0
    assert (tmp_path / "voicelog-demo.db").exists()
