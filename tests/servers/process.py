"""Processes that do not outlive the test run."""

import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The kernel ends such a process when the thread that started it ends, not when the program does: so one
# thread that lives as long as the program starts them all, and a test may start a server from any thread.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tests-servers")


def spawn(command: Sequence[str], log: Path, directory: Path) -> "subprocess.Popen[bytes]":
    """Starts a program in a process group of its own, its output appended to the log."""
    return _starter.submit(_spawn, command, log, directory).result()


def _spawn(command: Sequence[str], log: Path, directory: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [*_dies_with_us(), *command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _dies_with_us() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
