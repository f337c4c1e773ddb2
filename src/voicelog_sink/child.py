"""The command that `dev` runs: in a process group of its own, so that it can be stopped with all its children."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from voicelog_sink.errors import SinkError

GRACE_S = 10.0
NOT_FOUND = 127
"""The exit status for a program that is not there, as shells have it."""


class Child:
    """A running command. Used by one thread."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it with these names added to the environment; raises SinkError when it can't be started."""
        try:
            self._process = subprocess.Popen(  # noqa: S603  # running what the user asks for is its purpose
                command, env={**os.environ, **environ}, start_new_session=True, preexec_fn=_heed_interrupts
            )
        except OSError as exc:
            message = f"{command[0]!r} can't be run: {exc.strerror or exc}"
            raise SinkError(message) from exc

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask it and its children to stop, as Ctrl-C does; after 10 seconds they are killed. Blocks for the end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            if self._is_gone_within(GRACE_S if number != signal.SIGTERM else 1.0):
                return

    def kill(self) -> None:
        """Kill it and its children at once; waits for nothing."""
        self._signal(signal.SIGKILL)

    def status(self) -> int:
        """Return the exit status of a command that has ended, 128 + the signal's number for one that was killed."""
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def _is_gone_within(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if self.has_ended() and not self._group_lives():
                return True
            time.sleep(0.02)
        return False

    def _group_lives(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def unrunnable(program: str) -> str | None:
    """Return the sentence for a program that can't be started since there is none; None where there is one."""
    if shutil.which(program):
        return None
    why = "it is no executable file" if os.path.dirname(program) else "no program of that name is on PATH"
    return f"{program!r} can't be run: {why}; expected a command such as `voicelog-sink dev -- python bot.py`"


def _heed_interrupts() -> None:
    """Undo that a shell has what runs in its background ignore SIGINT, which is how this command is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
