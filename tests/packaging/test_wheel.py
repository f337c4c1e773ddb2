"""The wheel, as a user gets it: built, installed into an empty environment, and run from there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from tests.conftest_packages import ROOT, without_own_paths

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


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(from_fetched: dict[str, str]) -> Run:
    """Runs a command without this checkout in its way; fails the test with its output."""
    env = {**without_own_paths(), **from_fetched}

    def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="module")
def wheel(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the source distribution of this checkout."""
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", target, ROOT, cwd=target)
    (found,) = target.glob("*.whl")
    return found


@attrs.frozen
class Environment:
    """An environment with nothing but what was installed into it."""

    where: Path
    run: Run

    @property
    def bin(self) -> Path:
        return self.where / "bin"

    def pip(self, *args: str) -> str:
        return self.run(sys.executable, "-m", "pip", "--python", self.bin / "python", *args, cwd=self.where).stdout


@attrs.frozen
class Bare:
    """The environment when it had the wheel without its extras, and which packages those were."""

    environment: Environment
    packages: frozenset[str]


@pytest.fixture(scope="module")
def bare(run: Run, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Install the wheel alone into an empty environment, and use it there."""
    made = Environment(tmp_path_factory.mktemp("environment"), run)
    venv.create(made.where)
    made.pip("install", "-q", str(wheel))
    run(made.bin / "python", "-c", "import voicelog, voicelog.testing; voicelog.session('x')", cwd=made.where)
    listed = json.loads(made.pip("list", "--format", "json"))
    return Bare(made, frozenset(package["name"].lower() for package in listed))


@pytest.fixture(scope="module")
def environment(bare: Bare, wheel: Path) -> Path:
    """Add the wheel's extra `sink`; return the environment's bin directory."""
    bare.environment.pip("install", "-q", f"voicelog[sink] @ {wheel.as_uri()}")
    return bare.environment.bin


def test_wheel_holds_the_schema_the_type_marker_and_nothing_of_the_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = {f"voicelog_sink/cql/{path.name}" for path in (ROOT / "cql").glob("*.cql")}
    assert scripts
    assert scripts | {"voicelog/py.typed", "voicelog_sink/py.typed", "voicelog_sink/demo_calls.jsonl"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"voicelog", "voicelog_sink"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
def test_wheel_holds_the_extensions_and_is_of_one_platform(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    built = [name.partition(".")[0] for name in names if name.endswith(".so")]
    assert sorted(built) == ["voicelog/_hot", "voicelog_sink/_total"]
    assert [name for name in names if name.endswith((".c", ".h"))] == []
    assert not wheel.name.endswith("-any.whl")


def test_without_a_compiler_the_wheel_is_for_every_platform_and_says_so(
    from_fetched: dict[str, str], tmp_path: Path
) -> None:
    env = {**without_own_paths(), **from_fetched, "CC": "/no/compiler"}
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")] == []
    said = done.stdout + done.stderr
    assert "without voicelog._hot stages run in Python, which is slower: it could not be built" in said
    assert "without voicelog_sink._total percentiles of many days are read in Python" in said


def test_library_imports_without_the_sinks_dependencies(bare: Bare) -> None:
    assert "voicelog" in bare.packages
    assert bare.packages <= {
        "voicelog", "attrs", "confluent-kafka", "msgspec", "opentelemetry-api", "pip", "setuptools",
        "typing-extensions", "typing_extensions", "importlib-metadata", "importlib_metadata", "zipp",
    }  # fmt: skip


def test_installed_wheel_records_a_call_and_gives_it_back(run: Run, environment: Path, tmp_path: Path) -> None:
    sink, store = environment / "voicelog-sink", "sqlite:///calls.db"
    run(sink, "dev", "--store", store, "--http", "off", "--", environment / "python", "-c", PROGRAM, cwd=tmp_path)
    sessions = run(sink, "sessions", "--store", store, "--json", cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line)["session_id"] for line in sessions] == ["call-1"]
    shown = run(sink, "show", "call-1", "--store", store, cwd=tmp_path).stdout
    assert "hello" in shown
    assert "complete" in shown


def test_installed_wheel_plays_the_recorded_calls(run: Run, environment: Path, tmp_path: Path) -> None:
    played = json.loads(run(environment / "voicelog-sink", "demo", "--json", cwd=tmp_path).stdout)
    assert played["stored"] == played["produced"] > 0
    assert (tmp_path / "voicelog-demo.db").exists()
