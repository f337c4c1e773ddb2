"""The spool's disk: this process's home and those it has adopted, and what all of them take."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from voicelog import spool_home
from voicelog.spool_file import Segment
from voicelog.spool_home import Home

SEGMENT_BYTES = 4 * 1024 * 1024
ADOPT_S = 10.0
"""How often it is looked for homes of dead processes, and for what all processes' files take."""


class Disk:
    """Files in `directory`, with room for `max_bytes`. All but `used_bytes` is for one thread, and raises OSError."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.segment_bytes = max(64 * 1024, min(SEGMENT_BYTES, max_bytes // 8))
        """How large a file becomes, about."""
        self.used_bytes = 0
        """What the files take, those of other processes as of the last look around."""
        self._others_bytes = 0
        self._homes: list[Home] = []
        self._own: Home | None = None
        self._open: Segment | None = None
        self._look_at_s = 0.0

    def segments(self) -> list[Segment]:
        """Return all files, those of dead processes first, each home's oldest first. From any thread."""
        return [segment for home in list(self._homes) for segment in list(home.segments)]

    def append(self, frames: list[bytes]) -> None:
        """Write frames to this process's newest file, all or none."""
        try:
            self._append(frames)
        except OSError:
            if self._own is not None and not self._own.path.exists():  # someone has deleted it: another one, next time
                self._own = self._open = None
            raise

    def _append(self, frames: list[bytes]) -> None:
        if self._own is None:
            self._own = spool_home.create(self.directory)
            self._homes.append(self._own)
        if self._open is None or self._open.size >= self.segment_bytes:
            self._open = self._own.new_segment()
        self._open.append(frames)
        self.used_bytes += sum(map(len, frames))

    def look_around(self) -> None:
        """Adopt the homes of dead processes, now and then."""
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + ADOPT_S
        self._homes[:0] = list(spool_home.orphans(self.directory))
        self._others_bytes = max(0, spool_home.size_bytes(self.directory) - self._mine_bytes())

    def _mine_bytes(self) -> int:
        return sum(segment.size for segment in self.segments())

    def tidy(self, done: Callable[[Segment], None]) -> None:
        """Delete what is acknowledged; `done` is told of each file first."""
        try:
            for home in list(self._homes):
                self._tidy_home(home, done)
        finally:
            self.used_bytes = self._mine_bytes() + self._others_bytes

    def _tidy_home(self, home: Home, done: Callable[[Segment], None]) -> None:
        for segment in list(home.segments):
            if not segment.is_done():
                continue
            done(segment)
            if segment is not self._open:
                home.segments.remove(segment)
                segment.delete()
            elif segment.size:
                segment.clear()
        if not home.segments and home is not self._own:
            self._homes.remove(home)
            home.close()

    def close(self) -> None:
        """Delete what is acknowledged; the rest is for another process."""
        while self._homes:
            self._homes.pop().close()

    def let_go(self) -> None:
        """Close, in a forked child, what is its parent's, which keeps it."""
        for home in self._homes:
            home.let_go()
