"""Spool homes: each process has a directory of its own in spool_dir, which another adopts once its owner is dead.

A home is locked with flock for as long as its owner lives: the kernel lets go of the lock whatever ends the process, so
two live ones never send the same files, and a dead one's don't stay behind.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from voicelog.spool_file import Segment

PREFIX = "voicelog-"
LOCK = "lock"
SUFFIX = ".spool"


class Home:
    """A directory that this process has locked, and its segments, oldest first."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd
        names = sorted(path.glob(f"*{SUFFIX}"))
        self.segments = [Segment(name, new=False) for name in names]
        self._count = int(names[-1].stem) if names else 0

    def new_segment(self) -> Segment:
        """Begin another file and seal the one before; raises OSError."""
        self._count += 1
        segment = Segment(self.path / f"{self._count:012d}{SUFFIX}", new=True)
        for before in self.segments[-1:]:
            before.seal()
        self.segments.append(segment)
        return segment

    def let_go(self) -> None:
        """Close all files and the lock, which stays with whoever else has it: a forked child's parent."""
        for segment in self.segments:
            segment.seal()
        os.close(self._lock_fd)

    def close(self) -> None:
        """Close all files and give up the lock; what is empty is deleted, the rest is for another process."""
        for segment in list(self.segments):
            if segment.is_done():
                segment.delete()
                self.segments.remove(segment)
        if not self.segments:
            (self.path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # something else lies in it: not ours to delete
                self.path.rmdir()
        self.let_go()


def create(spool_dir: Path) -> Home:
    """Make a home for this process; raises OSError."""
    spool_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        path = spool_dir / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        home = claim(path)
        if home is not None:  # else another process has just adopted it
            return home


def claim(path: Path) -> Home | None:
    """Return a home if no live process has it, else None; raises OSError."""
    try:
        lock_fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # its owner has just ended in order
        return None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path / LOCK), os.fstat(lock_fd)):
            return Home(path, lock_fd)
    except (BlockingIOError, FileNotFoundError):  # a live process has it, or had it until now
        pass
    except OSError:
        os.close(lock_fd)
        raise
    os.close(lock_fd)
    return None


def orphans(spool_dir: Path) -> Iterator[Home]:
    """Yield the homes of dead processes, which are this one's from then on; raises OSError."""
    for path in sorted(spool_dir.glob(f"{PREFIX}*/")):
        home = claim(path)
        if home is not None:
            yield home


def size_bytes(spool_dir: Path) -> int:
    """Return what the files of all processes take."""
    total = 0
    for path in spool_dir.glob(f"{PREFIX}*/*{SUFFIX}"):
        with suppress(FileNotFoundError):  # just acknowledged
            total += path.stat().st_size
    return total
