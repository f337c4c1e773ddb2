"""Workers: several processes of the sink on one machine, started, kept running and stopped together.

Each is a member of the group like a replica elsewhere. Threads would not do: one process keeps about one core busy.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial

import attrs

from voicelog.settings import Settings, environment
from voicelog_sink.backoff import Backoff
from voicelog_sink.errors import SinkError
from voicelog_sink.http import OFF, parse_address

log = logging.getLogger(__name__)

LOOK_S = 0.2
STEADY_S = 60.0
"""A worker that ran for so long is restarted at once; one that dies sooner waits, longer each time."""
STOP_GRACE_S = 15.0
"""How much longer than drain_timeout_ms a worker may take to end."""
TOLD = (1, 2)
"""Exit statuses of a worker that has said what an operator must do: the others would say the same."""
_PR_SET_PDEATHSIG = 1


@attrs.define
class _Worker:
    """One process, and what is needed to start it anew."""

    number: int
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes]
    started_s: float
    backoff: Backoff = attrs.Factory(Backoff)
    restart_at_s: float | None = None


class Workers:
    """The processes. Used by one thread; `stop` and `force` may be called by a signal's handler."""

    def __init__(self, settings: Settings) -> None:
        """Start nothing yet. Raises ConfigError for an address of HTTP that is none."""
        self._settings = settings
        self._environs = [environ_of(settings, number) for number in range(settings.workers)]
        self._workers: list[_Worker] = []
        self._stopping = False

    def run(self) -> int:
        """Keep all of them running until `stop`, or until one says that it can't work; return the exit status."""
        self._workers = [_Worker(n, env, _start(env), time.monotonic()) for n, env in enumerate(self._environs)]
        while not self._stopping:
            for worker in self._workers:
                if (status := self._look_at(worker)) is not None:
                    log.warning("worker %d ended with status %d, the others are stopped", worker.number, status)
                    self.stop()
                    self._wait()
                    return status
            time.sleep(LOOK_S)
        return self._wait()

    def stop(self) -> None:
        """Ask every worker to store what it has taken and to end."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def force(self) -> None:
        """End every worker at once."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """End what still runs."""
        self.force()
        for worker in self._workers:
            worker.process.wait()

    def _look_at(self, worker: _Worker) -> int | None:
        """Start a worker anew that died; return the status of one that can't work."""
        status = worker.process.poll()
        if status is None:
            return None
        if status in TOLD:
            return status
        now_s = time.monotonic()
        if worker.restart_at_s is None:
            if now_s - worker.started_s > STEADY_S:
                worker.backoff = Backoff()
            worker.restart_at_s = now_s + worker.backoff.next_s()
            log.warning("worker %d ended with status %d, it is started anew", worker.number, status)
        if now_s >= worker.restart_at_s and not self._stopping:
            worker.process, worker.started_s, worker.restart_at_s = _start(worker.environ), now_s, None
        return None

    def _wait(self) -> int:
        """Wait for all of them; return 0, or the status of one that left something unstored."""
        end_s = time.monotonic() + self._settings.drain_timeout_ms / 1000 + STOP_GRACE_S
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker %d does not end, it is killed", worker.number)
                worker.process.kill()
                worker.process.wait()
        failed = [w.process.returncode for w in self._workers if w.process.returncode and w.restart_at_s is None]
        return 1 if failed else 0

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)


def environ_of(settings: Settings, number: int) -> dict[str, str]:
    """Return the environment of one worker: the settings, with an address and an instance id of its own."""
    own = {"workers": 1, "http": address_of(settings.http, number)}
    if settings.group_instance_id:
        own["group_instance_id"] = f"{settings.group_instance_id}-{number}"
    return settings.environ() | environment(own)


def address_of(http: str, number: int) -> str:
    """Return where a worker serves HTTP: the port after the one before it, a free one for 0, nowhere for off."""
    if http.strip().lower() == OFF:
        return OFF
    host, port = parse_address(http)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port + number if port else 0}"


def _start(environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "voicelog_sink", "run"]
    try:
        # A session of its own: a terminal's Ctrl-C reaches this process alone, which passes it on once.
        return subprocess.Popen(  # noqa: S603
            command, env=dict(environ), start_new_session=True, preexec_fn=partial(_end_with_parent, os.getpid())
        )
    except OSError as exc:
        message = f"a worker can't be started: {exc}"
        raise SinkError(message) from exc


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent is killed; where there is no such call it lives on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the kernel was asked
            os.kill(os.getpid(), signal.SIGTERM)
