"""Processes that do not outlive the test run."""

import os
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


# The kernel's promise holds from setpriv's call on: who lost its parent before it ends by itself.
_ENDS_IF_ORPHANED = 'test "$PPID" = "$0" || exit 1; exec "$@"'


def _dies_with_us() -> list[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    return [setpriv, "--pdeathsig", "KILL", "--", "sh", "-c", _ENDS_IF_ORPHANED, str(os.getpid())]
