"""Where an export goes: a file that is whole or not there at all, or stdout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from voicelog_sink.errors import SinkError


class Unwritable(SinkError):
    """The file can't be written."""


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """Give a file beside `path` that takes its place at the block's end, on the disk; when the block raises, it goes.

    What was at `path` stays until then. What is no regular file, such as a named pipe, is written as it is. Raises
    Unwritable.
    """
    if os.path.isdir(path):
        message = f"{path!r} is a directory: expected a file; give the file's name too"
        raise Unwritable(message)
    try:
        with _written_at_once(path) if _is_special(path) else _renamed(os.path.realpath(path)) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as exc:
        remedy = "check the path, its owner and permissions, and the space on the disk"
        message = f"{path!r} can't be written: {exc.strerror or exc}; {remedy}"
        raise Unwritable(message) from exc


def _is_special(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


@contextmanager
def _written_at_once(path: str) -> Iterator[IO[bytes]]:
    with open(path, "wb") as file:
        yield file


@contextmanager
def _renamed(path: str) -> Iterator[IO[bytes]]:
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
