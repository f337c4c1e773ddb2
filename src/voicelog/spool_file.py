"""Spool files: messages in append-only segments, each framed with its length and checksum, read back in order.

Own code, since no library does it: persist-queue pickles and rewrites a file a message, and is for one process;
diskcache pickles into SQLite, of which a damaged page takes all. What is framed here is msgspec's MessagePack.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

MAGIC = b"\xf7vl1"
"""Begins each frame; its first byte is none of UTF-8's, so no JSON holds it."""
_FRAME = struct.Struct(">4sII")
"""Magic, bytes of the payload, crc32 of the payload."""
READ_BYTES = 256 * 1024


class Record(NamedTuple):
    """A message as the spool keeps it; `topic` has its prefix."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]] | None = None


class Found(NamedTuple):
    """What stands in a segment from `start` to `end`: a record, or None for bytes that are damaged."""

    start: int
    end: int
    record: Record | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def framed(record: Record) -> bytes:
    """Return a record as it stands in a segment."""
    payload = _encoder.encode(record)
    return _FRAME.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def record_at(data: bytes, at: int) -> tuple[Record, int] | None:
    """Return the record that stands at `at` and where it ends, or None when there is no sound one."""
    if len(data) - at < _FRAME.size:
        return None
    magic, length, checksum = _FRAME.unpack_from(data, at)
    begin = at + _FRAME.size
    payload = data[begin : begin + length]
    if magic != MAGIC or len(payload) < length or zlib.crc32(payload) != checksum:
        return None
    try:
        return _decoder.decode(payload), begin + length
    except msgspec.DecodeError:  # another version's
        return None


def is_torn(data: bytes) -> bool:
    """Return whether `data`, the end of a segment, is a frame that was cut off while it was written."""
    if len(data) < _FRAME.size:
        return MAGIC.startswith(data[: len(MAGIC)])
    magic, length, _ = _FRAME.unpack_from(data)
    return bool(magic == MAGIC and _FRAME.size + length > len(data))


def _next_sound(data: bytes) -> int | None:
    at = data.find(MAGIC, 1)
    while at > 0 and record_at(data, at) is None:
        at = data.find(MAGIC, at + 1)
    return at if at > 0 else None


class Segment:
    """One file: appended to by its writer, read from its start, deleted when all of it is acknowledged.

    Not safe from several threads, but for `outstanding`, `settled` and `again`, which its owner guards.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self.path = path
        self.own = new
        """Whether this process has written it; else it is a dead one's."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) if new else None
        self.size = path.stat().st_size
        self.position = 0
        """Up to where it was handed on."""
        self.written = self.settled = 0
        """How many messages this process has written, and how many of them were delivered or given up."""
        self.outstanding = 0
        """Messages that were handed on and not yet reported."""
        self.again: list[int] = []
        """Where messages stand that are to be handed on again."""
        self.again_at_s = 0.0

    def append(self, frames: Sequence[bytes]) -> None:
        """Write frames at the end, all or none; raises OSError."""
        data = memoryview(b"".join(frames))
        fd, written = self._writable(), 0
        try:
            while written < len(data):
                written += os.pwrite(fd, data[written:], self.size + written)
        except OSError:
            os.ftruncate(fd, self.size)
            raise
        self.size += written
        self.written += len(frames)

    def _writable(self) -> int:
        if self._fd is None:
            message = f"{self.path} is read only: it was sealed, or another process has written it"
            raise OSError(message)
        return self._fd

    def ahead(self) -> Iterator[Found]:
        """Yield what stands from `position` on, for a while; nothing when all was read or the rest is torn."""
        base, at = self.position, 0
        data = self._data(base, READ_BYTES)
        sound = record_at(data, at)
        if sound is None and base < self.size:
            yield from self._one_from(base)
        while sound is not None:
            record, end = sound
            yield Found(base + at, base + end, record)
            at, sound = end, record_at(data, end)

    def at(self, start: int) -> Record | None:
        """Return the record that stands at `start`."""
        sound = record_at(self._data(start, READ_BYTES), 0) or record_at(self._data(start, self.size), 0)
        return sound[0] if sound is not None else None

    def _one_from(self, start: int) -> Iterator[Found]:
        """Yield the record at `start`, however long; else what is damaged, up to the next sound record."""
        data = self._data(start, self.size)
        sound = record_at(data, 0)
        if sound is not None:
            yield Found(start, start + sound[1], sound[0])
        elif (at := _next_sound(data)) is not None:
            yield Found(start, start + at, None)
        elif is_torn(data):
            self.size = start
        else:
            yield Found(start, self.size, None)

    def _data(self, start: int, length: int) -> bytes:
        """Read; a sealed file is opened for it, so that a spool of a thousand files holds none open."""
        fd = os.open(self.path, os.O_RDONLY) if self._fd is None else self._fd
        try:
            return os.pread(fd, max(0, min(length, self.size - start)), start)
        finally:
            if fd != self._fd:
                os.close(fd)

    def is_done(self) -> bool:
        """Return whether all of it was handed on and acknowledged."""
        return self.position >= self.size and not self.outstanding and not self.again

    def clear(self) -> None:
        """Forget what is acknowledged; raises OSError."""
        os.ftruncate(self._writable(), 0)
        self.size = self.position = self.written = self.settled = 0

    def seal(self) -> None:
        """Close the file, which stays: nothing more is written to it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def delete(self) -> None:
        """Close and delete the file."""
        self.seal()
        self.path.unlink(missing_ok=True)
