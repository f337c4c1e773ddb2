"""Builds the extension voicelog._hot with the wheel, where a compiler is there: hatchling's hook, and a command.

`python hatch_build.py` builds it beside the sources, for a checkout. It is never needed: without a compiler, or on a
Python that it does not know, the wheel is a pure one and voicelog runs in Python. VOICELOG_PURE_PYTHON=1 leaves it out.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a command, where hatchling need not be installed
    BuildHookInterface = object

ROOT = Path(__file__).parent
PACKAGE = ROOT / "src" / "voicelog"
MODULE = "voicelog._hot"
NEVER = "stages will run in Python, which is slower and otherwise the same"


def unknown() -> str | None:
    """Return why the extension is not for this Python; None where it is."""
    if os.environ.get("VOICELOG_PURE_PYTHON", "") not in ("", "0"):
        return "VOICELOG_PURE_PYTHON is set"
    if platform.python_implementation() != "CPython":
        return f"it is for CPython, and this is {platform.python_implementation()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it is safe under the GIL only, and this Python has none"
    return None


def sources() -> list[str]:
    """Return the extension's C files."""
    return sorted(str(path) for path in PACKAGE.glob("_hot*.c"))


def compile_into(target: Path) -> Path:
    """Build the extension into `target`; raises what goes wrong."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    flags = ["-std=c11", "-fvisibility=hidden", *os.environ.get("VOICELOG_HOT_CFLAGS", "").split()]
    headers = sorted(str(path) for path in PACKAGE.glob("_hot*.h"))
    extension = Extension(MODULE, sources(), depends=headers, extra_compile_args=flags)
    with tempfile.TemporaryDirectory() as temporary:
        command = build_ext(Distribution({"name": "voicelog", "ext_modules": [extension]}))
        command.build_lib, command.build_temp = str(target), temporary
        command.ensure_finalized()
        command.run()
        return Path(command.get_ext_fullpath(MODULE))


def build(target: Path) -> Path | None:
    """Build the extension in a process of its own into `target`; return it, or None after a line that says why not."""
    why = unknown()
    if why is None:
        command = [sys.executable, __file__, str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        built = [Path(line) for line in done.stdout.splitlines()[-1:] if done.returncode == 0]
        if built and built[0].is_file():
            return built[0]
        why = f"it could not be built: {(done.stderr.strip() or done.stdout.strip() or 'no output')[-2000:]}"
    print(f"voicelog: without the extension {MODULE}, {NEVER}: {why}", file=sys.stderr)
    return None


class Hook(BuildHookInterface):
    """Puts the extension into a wheel, and beside the sources of an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build it before the files are collected."""
        if self.target_name != "wheel":
            return
        is_editable = version == "editable"
        self._temporary = tempfile.TemporaryDirectory()
        built = build(ROOT / "src" if is_editable else Path(self._temporary.name))
        if built is None:
            return
        if not is_editable:
            build_data["force_include"][str(built)] = f"voicelog/{built.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built on the way."""
        if self.target_name == "wheel":
            self._temporary.cleanup()


if __name__ == "__main__":
    print(compile_into(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "src"))
