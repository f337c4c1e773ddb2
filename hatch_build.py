"""Builds the extensions with the wheel, where a compiler is there: hatchling's hook, and a command.

`python hatch_build.py` builds them beside the sources, for a checkout. They are never needed: without a compiler, or on
a Python that they do not know, the wheel is a pure one and voicelog runs in Python. VOICELOG_PURE_PYTHON=1 leaves them
out.
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
SRC = ROOT / "src"
MODULES = {"voicelog._hot": "stages run", "voicelog_sink._total": "percentiles of many days are read"}
"""Each extension, and what runs in Python without it. Its sources are beside it, and their names begin with its own."""


def unknown() -> str | None:
    """Return why the extensions are not for this Python; None where they are."""
    if os.environ.get("VOICELOG_PURE_PYTHON", "") not in ("", "0"):
        return "VOICELOG_PURE_PYTHON is set"
    if platform.python_implementation() != "CPython":
        return f"they are for CPython, and this is {platform.python_implementation()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "they are safe under the GIL only, and this Python has none"
    return None


def files(module: str, kind: str) -> list[str]:
    """Return an extension's files of one kind: .c or .h."""
    return sorted(str(path) for path in SRC.glob(f"{module.replace('.', '/')}*{kind}"))


def compile_into(target: Path) -> list[Path]:
    """Build the extensions into `target`, each in its package's folder; raises what goes wrong."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    flags = ["-std=c11", "-fvisibility=hidden", *os.environ.get("VOICELOG_HOT_CFLAGS", "").split()]
    extensions = [
        Extension(module, files(module, ".c"), depends=files(module, ".h"), extra_compile_args=flags)
        for module in MODULES
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        command = build_ext(Distribution({"name": "voicelog", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(target), temporary
        command.ensure_finalized()
        command.run()
        return [Path(command.get_ext_fullpath(module)) for module in MODULES]


def build(target: Path) -> list[Path]:
    """Build the extensions into `target`, in another process; return them, or none after a line that says why not."""
    why = unknown()
    if why is None:
        command = [sys.executable, __file__, str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        built = [Path(line) for line in done.stdout.splitlines()[-len(MODULES) :] if done.returncode == 0]
        if built and all(path.is_file() for path in built):
            return built
        why = f"they could not be built: {(done.stderr.strip() or done.stdout.strip() or 'no output')[-2000:]}"
    slower = " and ".join(f"{what} in Python (no {module})" for module, what in MODULES.items())
    print(f"voicelog: without its extensions {slower}, which is slower and otherwise the same: {why}", file=sys.stderr)
    return []


class Hook(BuildHookInterface):
    """Puts the extensions into a wheel, and beside the sources of an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build them before the files are collected."""
        if self.target_name != "wheel":
            return
        is_editable = version == "editable"
        self._temporary = tempfile.TemporaryDirectory()
        built = build(SRC if is_editable else Path(self._temporary.name))
        if not built:
            return
        if not is_editable:
            for path in built:
                build_data["force_include"][str(path)] = f"{path.parent.name}/{path.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built on the way."""
        if self.target_name == "wheel":
            self._temporary.cleanup()


if __name__ == "__main__":
    print(*compile_into(Path(sys.argv[1]) if len(sys.argv) > 1 else SRC), sep="\n")
