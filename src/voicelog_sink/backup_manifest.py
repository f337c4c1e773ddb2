"""What a backup's directory holds: its manifest, the files that this names, and whether they are what was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import attrs
import msgspec

from voicelog_sink.errors import SinkError
from voicelog_sink.export_file import Unwritable, whole_file
from voicelog_sink.tables import TABLES

FORMAT = 1
MANIFEST = "manifest.json"
BLOCK_BYTES = 1024 * 1024


class BackupRefused(SinkError):
    """A directory that is no backup, or not one that can be gone on with or restored."""


@attrs.frozen(kw_only=True)
class Part:
    """One file of a table: `partitions` are where it begins and ends in the table's plan.

    `first` and `last` are the earliest and latest of its rows' times, epoch milliseconds.
    """

    file: str
    table: str
    rows: int
    bytes: int
    sha256: str
    partitions: tuple[int, int]
    first: int | None
    last: int | None


@attrs.frozen(kw_only=True)
class Asked:
    """What a backup was asked for: the texts of --since and --until, and the tables."""

    since: str | None
    until: str | None
    tables: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Manifest:
    """A backup so far. `ended_at` is None until it is complete; `done` are the tables that are.

    `store` is the kind of store, `store_id` tells one from another without naming it; `tables` are the columns by
    their types. Moments are epoch milliseconds.
    """

    format: int
    voicelog: str
    store: str
    store_id: str
    asked: Asked
    since: int | None
    until: int | None
    began_at: int
    ended_at: int | None = None
    tables: dict[str, dict[str, str]]
    done: tuple[str, ...] = ()
    files: tuple[Part, ...] = ()

    @property
    def rows(self) -> dict[str, int]:
        """How many rows there are of each table."""
        return {name: sum(part.rows for part in self.of(name)) for name in self.tables}

    @property
    def bytes(self) -> int:
        """How large the files are together."""
        return sum(part.bytes for part in self.files)

    def of(self, table: str) -> list[Part]:
        """Return a table's files, in their order."""
        return [part for part in self.files if part.table == table]


class Hashed:
    """A file that is written through this: how many bytes, and their SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        """Count from here."""
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Write and count."""
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)

    @property
    def sha256(self) -> str:
        """The hash of what was written, in hexadecimal digits."""
        return self._hash.hexdigest()


def save(folder: Path, manifest: Manifest) -> None:
    """Put the manifest in the place of the one before, at once and on the disk; raises Unwritable."""
    with whole_file(str(folder / MANIFEST)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Make the names of a directory's files last; raises Unwritable."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        message = f"{str(folder)!r} can't be written: {exc.strerror}; check the directory, and its disk"
        raise Unwritable(message) from exc


def read(folder: Path) -> Manifest | None:
    """Return the manifest, None where there is none; raises BackupRefused for one that can't be read."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        message = f"{str(folder / MANIFEST)!r} can't be read: {exc.strerror}; check its owner and permissions"
        raise BackupRefused(message) from exc
    try:
        number = msgspec.json.decode(text, type=dict[str, msgspec.Raw]).get("format")
        if number is not None and bytes(number) != str(FORMAT).encode():
            message = (
                f"{str(folder)!r} is a backup of format {bytes(number).decode()}: expected {FORMAT}; update voicelog"
            )
            raise BackupRefused(message)
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as exc:
        message = f"{str(folder / MANIFEST)!r} is damaged: {exc}; without it the files can't be told from others"
        raise BackupRefused(message) from exc


def complete(folder: Path) -> Manifest:
    """Return the manifest of a backup that is whole and of tables that are known here; raises BackupRefused."""
    manifest = read(folder)
    if manifest is None:
        message = f"{str(folder)!r} is no backup: it has no {MANIFEST}; expected a directory of `voicelog-sink backup`"
        raise BackupRefused(message)
    if manifest.ended_at is None:
        message = (
            f"{str(folder)!r} is not complete: finish it with `voicelog-sink backup {folder}` and the same options"
        )
        raise BackupRefused(message)
    for name, columns in manifest.tables.items():
        known = TABLES[name].columns if name in TABLES else {}
        if unknown := [column for column in columns if columns[column] != known.get(column)]:
            message = f"{str(folder)!r} was made by voicelog {manifest.voicelog}: {name}.{unknown[0]} is not known to "
            raise BackupRefused(message + "this version; update voicelog")
    return manifest


def wrong_with(folder: Path, part: Part) -> str | None:
    """Return what is wrong with a file, None where it is what was written; reads all of it."""
    path = folder / part.file
    try:
        size_bytes = path.stat().st_size
        if size_bytes != part.bytes:
            return f"{path} is damaged: {size_bytes} bytes, expected {part.bytes}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as exc:
        return f"{path} can't be read: {exc.strerror}"
    return None if digest == part.sha256 else f"{path} is damaged: its SHA-256 is {digest}, expected {part.sha256}"


def damage(folder: Path, manifest: Manifest) -> Iterator[tuple[Part, str | None]]:
    """Yield each file with what is wrong with it."""
    for part in manifest.files:
        yield part, wrong_with(folder, part)
