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

BUILT = "built "
"""Begins a line of the command that names a file."""


def unknown() -> str | None:
    """Return why no extension is for this Python; None where they are."""
    if os.environ.get("VOICELOG_PURE_PYTHON", "") not in ("", "0"):
        return "VOICELOG_PURE_PYTHON is set"
    if platform.python_implementation() != "CPython":
        return f"it is for CPython, and this is {platform.python_implementation()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it is safe under the GIL only, and this Python has none"
    return None


def files(module: str, kind: str) -> list[str]:
    """Return an extension's files of one kind: .c or .h."""
    return sorted(str(path) for path in SRC.glob(f"{module.replace('.', '/')}*{kind}"))


def compile_into(target: Path, module: str) -> Path:
    """Build an extension into its package's folder in `target`; raises what goes wrong."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    flags = ["-std=c11", "-fvisibility=hidden", *os.environ.get("VOICELOG_HOT_CFLAGS", "").split()]
    extension = Extension(module, files(module, ".c"), depends=files(module, ".h"), extra_compile_args=flags)
    with tempfile.TemporaryDirectory() as temporary:
        command = build_ext(Distribution({"name": "voicelog", "ext_modules": [extension]}))
        command.build_lib, command.build_temp = str(target), temporary
        command.force = True  # other flags are no reason for setuptools to build it anew
        command.ensure_finalized()
        command.run()
        return Path(command.get_ext_fullpath(module))


def build(target: Path) -> list[Path]:
    """Build the extensions into `target`, in another process; return those that are there, say of others why not."""
    why, built = unknown(), []
    if why is None:
        command = [sys.executable, __file__, str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [Path(line.removeprefix(BUILT)) for line in done.stdout.splitlines() if line.startswith(BUILT)]
        built = [path for path in found if path.is_file()]
        why = f"it could not be built: {(done.stderr.strip() or done.stdout.strip() or 'no output')[-2000:]}"
    there = {f"{path.parent.name}.{path.name.partition('.')[0]}" for path in built}
    for module in (each for each in MODULES if each not in there):
        print(f"voicelog: without {module} {MODULES[module]} in Python, which is slower: {why}", file=sys.stderr)
    return built


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


def main(target: Path) -> int:
    """Build what can be built and say where it is; return the exit status, 1 where something could not be."""
    status = 0
    for module in MODULES:
        try:
            print(f"{BUILT}{compile_into(target, module)}", flush=True)
        except Exception as exc:  # setuptools and the compilers that it knows raise many kinds
            print(f"{module}: {type(exc).__name__}: {exc}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SRC))
