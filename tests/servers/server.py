"""What all servers can do: start, stop, die, freeze and come back."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.servers.fetch import Distribution, fetch
from tests.servers.java import java_path, missing_java, missing_maven
from tests.servers.process import spawn

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0

# Most servers of a test run live for seconds, so a fast start counts for more than a fast steady state.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-Dfile.encoding=UTF-8")


class ServerError(RuntimeError):
    """A server did not do what it was told."""


class JavaServer(ABC):
    """A server on 127.0.0.1 with its own temporary directory; its ports stay the same through restarts."""

    distribution: ClassVar[Distribution]
    java_versions: ClassVar[range]
    heap: ClassVar[str]

    def __init__(self, *, jvm_options: Sequence[str] = ()) -> None:
        """Starts nothing yet; `jvm_options` win over the usual ones (say -XX:TieredStopAtLevel=4)."""
        self._jvm_options = tuple(jvm_options)
        self._process: subprocess.Popen[bytes] | None = None
        self.home = Path(tempfile.mkdtemp(prefix=f"voicelog-{self.distribution.name}-"))
        self.log = self.home / "server.log"
        _guard.add(self)

    @classmethod
    def missing(cls) -> str | None:
        """Says what this machine lacks to run the server and how to get it; None if nothing."""
        return missing_java(cls.java_versions) or (None if cls.distribution.is_fetched else missing_maven())

    @property
    def running(self) -> bool:
        """Whether the process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running_process().pid

    def start(self) -> Self:
        """Starts the server on the data it has and returns when it answers."""
        if self.running:
            raise ServerError(f"{self} is running as process {self.pid} and cannot be started: stop it first")
        jars = fetch(self.distribution)
        self.prepare(jars)
        self._process = spawn(self.java(jars, *self.main()), self.log, self.home)
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ends the server in order (SIGTERM); its data stay."""
        process = self._running_process()
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            late = f"{self} did not stop in {STOP_TIMEOUT_S:.0f} s and was killed"
            raise ServerError(f"{late}; {self.tail()}") from None

    def kill(self) -> None:
        """Ends the server at once (SIGKILL), if it runs; its data stay."""
        if self._process and self.running:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Freezes the server (SIGSTOP): connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Stops the server in order, if it runs, and starts it with the same ports and data."""
        if self.running:
            self.stop()
        return self.start()

    def mend(self) -> Self:
        """Lets the server run again, whether it is paused, ended or was never started."""
        if self.running:
            self.resume()
            return self
        return self.start()

    def close(self) -> None:
        """Ends the server at once and removes its directory."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)
        _guard.discard(self)

    def tail(self, lines: int = 40) -> str:
        """Quotes the end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"the end of its log {self.log}:\n" + "\n".join(text.splitlines()[-lines:])

    def java(self, jars: Path, *arguments: str) -> list[str]:
        """Puts together the command line of a Java program of this server."""
        java = java_path()
        if java is None:
            raise ServerError(f"{self} cannot start: {self.missing()}")
        return [java, *QUICK_START, f"-Xmx{self.heap}", *self._jvm_options, "-cp", f"{jars}/*", *arguments]

    @abstractmethod
    def prepare(self, jars: Path) -> None:
        """Writes the settings and, before the first start, the data directory."""

    @abstractmethod
    def main(self) -> list[str]:
        """Names the server's own JVM options, its main class and that one's arguments."""

    @abstractmethod
    def answers(self) -> bool:
        """Tells whether a client of the server is served."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.distribution.version} in {self.home}>"

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if time.monotonic() > deadline:
                raise ServerError(f"{self} did not answer within {START_TIMEOUT_S:.0f} s; {self.tail()}")
            _raise_if_ended(self, process)

    def _running_process(self) -> "subprocess.Popen[bytes]":
        if self._process is None or not self.running:
            raise ServerError(f"{self} is not running: start() it first")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._running_process().pid, number)


def _raise_if_ended(server: JavaServer, process: "subprocess.Popen[bytes]") -> None:
    try:
        status = process.wait(0.05)
    except subprocess.TimeoutExpired:
        return
    raise ServerError(f"{server} ended with status {status} instead of answering; {server.tail()}")


class _Guard:
    """Closes at exit what a test left behind."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._servers: set[JavaServer] = set()
        atexit.register(self.close_all)

    def add(self, server: JavaServer) -> None:
        self._servers.add(server)

    def discard(self, server: JavaServer) -> None:
        self._servers.discard(server)

    def close_all(self) -> None:
        # A forked child inherits this registration and must not end its parent's servers.
        if os.getpid() == self._owner:
            for server in list(self._servers):
                server.close()


_guard = _Guard()
