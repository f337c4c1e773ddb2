"""stdin, stdout and stderr as a command has them: all are there, and stdout tells why it fails."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from voicelog_sink.errors import SinkError


class StdoutUnwritable(SinkError):
    """What was to be printed can't be written: a full disk, a closed stdout."""


class _Stdout(io.FileIO):
    """The file behind stdout, whose errors are told from those of every other file."""

    def write(self, data: Any) -> int:
        """Write as a file does; raises StdoutUnwritable, and BrokenPipeError where nobody reads any more."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as exc:
            why = "it is closed" if exc.errno == errno.EBADF else exc.strerror
            message = f"stdout can't be written: {why}"
            raise StdoutUnwritable(message) from exc


@contextmanager
def own_streams() -> Iterator[None]:
    """Have sys.stdout raise StdoutUnwritable for the length of the block.

    A closed stderr takes everything, and a closed stdin is empty. A stdout that a program has put in its place is left
    as it is. Not for several threads at once.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = os.fdopen(_opened(0, os.O_RDONLY), encoding="utf-8", closefd=False)
    if sys.stderr is None:
        nowhere = _opened(2, os.O_WRONLY)
        sys.stderr = os.fdopen(nowhere, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _told(sys.stdout)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def silence_stdout() -> None:
    """Point stdout at nothing, so that what it still holds has somewhere to go when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(stdout: TextIO | None) -> TextIO:
    """Return what writes where `stdout` does, as it does."""
    if stdout is None:
        raw = _Stdout(_opened(1, os.O_RDONLY), "w", closefd=False)
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
    stdout.flush()
    raw = _Stdout(stdout.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stdout.encoding, stdout.errors, line_buffering=bool(stdout.line_buffering),
        write_through=getattr(stdout, "write_through", False),
    )  # fmt: skip


def _opened(number: int, how: int) -> int:
    """Return a descriptor of nothing at all, `number` where that is free: a store's file must not get it.

    Opened for reading, it refuses what is written as a closed one does. Programs that are started don't get it.
    """
    opened = os.open(os.devnull, how)
    if opened == number or _is_open(number):
        return opened
    os.dup2(opened, number, inheritable=False)
    os.close(opened)
    return number


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
