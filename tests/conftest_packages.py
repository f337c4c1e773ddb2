"""What the tests that build and install share: packages that are fetched once, for all of their environments."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def from_fetched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Fetch what voicelog, its extra `sink` and its build need; return the variables that make pip take it from there.

    Under them pip compiles nothing ahead: what is imported is compiled then.
    """
    where = tmp_path_factory.mktemp("packages")
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = told["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["sink"], *told["build-system"]["requires"]]
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "-d", where, *needed]
    done = subprocess.run(
        list(map(str, command)), env=without_own_paths(), capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(where), "PIP_COMPILE": "0"}


def without_own_paths() -> dict[str, str]:
    """Return the environment without what would put this checkout in a program's way."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
