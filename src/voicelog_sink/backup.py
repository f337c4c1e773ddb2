"""Taking a backup: every table that can't be made anew, row by row, into Parquet files beside a manifest.

A table's partitions are read in the order of its plan and cut into files between two of them. After each file the
manifest says so; a run that was cut short goes on after the last file that it names.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import attrs

from voicelog_sink.backup_file import Reading, Written, write_rows
from voicelog_sink.backup_manifest import (
    FORMAT,
    MANIFEST,
    Asked,
    BackupRefused,
    Hashed,
    Manifest,
    Part,
    flush_folder,
    read,
    save,
)
from voicelog_sink.backup_plan import Plan
from voicelog_sink.export_file import Unwritable, whole_file
from voicelog_sink.patience import patiently
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.tables import (
    DERIVED_PENDING,
    ERASURES,
    ERROR_LOGS,
    METRIC_NAMES,
    METRIC_PARTS,
    METRIC_ROLLUPS,
    PERFORMANCE_METRICS,
    RETENTION,
    SESSION_SUMMARIES,
    SESSIONS_BY_DAY,
    SYSTEM_HEALTH,
    TABLES,
    VOICE_INTERACTIONS,
    Table,
)
from voicelog_sink.version import sink_version

ORDER = (
    VOICE_INTERACTIONS, PERFORMANCE_METRICS, ERROR_LOGS, SYSTEM_HEALTH, METRIC_PARTS, DERIVED_PENDING,
    SESSION_SUMMARIES, SESSIONS_BY_DAY, METRIC_ROLLUPS, METRIC_NAMES, RETENTION, ERASURES,
)  # fmt: skip
"""In this order, of a store that is written meanwhile: an event that is in it has its rows in the other tables too;
what its summary or rollup does not have yet is in derived_pending; and whatever was erased before the end is known.
"""
ALWAYS_WHOLE = frozenset({DERIVED_PENDING.name, METRIC_NAMES.name, RETENTION.name, ERASURES.name})
"""Tables that no period cuts."""

OURS = (".plan", ".part")
"""What a run that was killed at its very beginning may leave."""

OnRead = Callable[[str, int, int], object]
"""Told a table's name, and how many partitions of how many were read since the last time."""


def ignore(_table: str, _read: int, _of: int) -> None:
    """Do nothing with what was read."""


def begin(folder: Path, url: str, asked: Asked, period: tuple[int | None, int | None]) -> Manifest:
    """Return the manifest to go on with: that of an earlier run, or a new one.

    Raises BackupRefused for a directory that holds something else.
    """
    found = read(folder)
    if found is not None:
        return _checked(folder, found, url, asked)
    if left := [each.name for each in folder.iterdir() if not each.name.endswith(OURS)]:
        message = f"{str(folder)!r} has {left[0]!r} in it and no {MANIFEST}: expected an empty directory, or a new one"
        raise BackupRefused(message)
    return Manifest(
        format=FORMAT, voicelog=sink_version(), store=url.partition(":")[0], store_id=_id_of(url), asked=asked,
        since=period[0], until=period[1], began_at=time.time_ns() // 1_000_000,
        tables={table.name: table.columns for table in ORDER if table.name in asked.tables},
    )  # fmt: skip


def _checked(folder: Path, found: Manifest, url: str, asked: Asked) -> Manifest:
    if found.ended_at is not None:
        message = f"{str(folder)!r} holds a backup that is complete: give a new directory for the next one"
        raise BackupRefused(message)
    if found.store_id != _id_of(url):
        message = (
            f"{str(folder)!r} was begun from another store ({found.store}): go on with that, or give a new directory"
        )
        raise BackupRefused(message)
    if found.asked != asked:
        was = ", ".join(f"{name}={value!r}" for name, value in attrs.asdict(found.asked).items())
        message = f"{str(folder)!r} was begun with {was}: go on with the same options, or give a new directory"
        raise BackupRefused(message)
    return found


def _id_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Make the directory and keep other runs out of it for the block; raises BackupRefused where one is in it.

    A file system that can't lock directories does not keep them out. Raises Unwritable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        message = f"{str(folder)!r} can't be made or read: {exc.strerror}; check the path, its owner and permissions"
        raise Unwritable(message) from exc
    try:
        with suppress(OSError):
            _lock(folder, descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        message = f"another backup is writing into {str(folder)!r}: wait for it, or give a new directory"
        raise BackupRefused(message) from exc


def backup(store: Store, folder: Path, manifest: Manifest, on_read: OnRead = ignore) -> Manifest:
    """Write what `manifest` does not have yet and return it complete.

    Blocks for all of it, waits while the store is away for up to a minute, holds some thousand rows. Raises StoreError
    and Unwritable: what was written stays, and the next call with the manifest that is in the directory goes on. A
    table that the store does not have is said before anything is written.
    """
    patiently(_look_for, store, manifest)
    _tidy(folder, "*.part")  # of a run that was killed
    run = _Run(store, folder, manifest, on_read)
    run.save()
    for table in ORDER:
        if table.name in manifest.tables and table.name not in run.manifest.done:
            run.table(table)
    return run.end()


def _look_for(store: Store, manifest: Manifest) -> None:
    """Ask for each table: the last one may else be missed after an hour, where `init` has not run since an update."""
    for table in ORDER:
        if table.name in manifest.tables and table.name not in manifest.done:
            with closing(cast("Generator[Values]", store.partitions(table.name))) as keys:
                next(keys, None)


def _tidy(folder: Path, pattern: str) -> None:
    for left in folder.glob(pattern):
        left.unlink(missing_ok=True)


class _Run:
    """One run of a backup."""

    def __init__(self, store: Store, folder: Path, manifest: Manifest, on_read: OnRead) -> None:
        self._store = store
        self._folder = folder
        self._on_read = on_read
        self.manifest = manifest

    def save(self, **changes: Any) -> None:
        self.manifest = attrs.evolve(self.manifest, **changes)
        save(self._folder, self.manifest)

    def table(self, table: Table) -> None:
        """Write what is left of a table."""
        since_ms, until_ms = self._period(table)
        plan = Plan(self._folder, table)
        parts = self.manifest.of(table.name)
        if parts and not plan.exists:
            message = (
                f"{str(self._folder)!r} has no {plan.name} any more, without which it can't go on: begin a new backup"
            )
            raise BackupRefused(message)
        patiently(plan.make, self._store, since_ms, until_ms)
        at = parts[-1].partitions[1] if parts else 0
        self._on_read(table.name, at, len(plan))
        while at < len(plan):
            at = patiently(self._file, table, plan, at)
        self.save(done=(*self.manifest.done, table.name))
        plan.remove()

    def end(self) -> Manifest:
        """Say that it is complete."""
        self.save(ended_at=time.time_ns() // 1_000_000)
        _tidy(self._folder, "*.plan")
        return self.manifest

    def _period(self, table: Table) -> tuple[int | None, int | None]:
        whole = table.name in ALWAYS_WHOLE
        return (None, None) if whole else (self.manifest.since, self.manifest.until)

    def _file(self, table: Table, plan: Plan, first: int) -> int:
        """Write one file, from the plan's partition `first` on; return the partition that comes next."""
        reading = Reading(self._store, table, plan, first, self._period(table))
        rows = reading.rows()
        row = next(rows, None)
        if row is not None:
            name = f"{table.name}-{len(self.manifest.of(table.name)) + 1:06}.parquet"
            with whole_file(str(self._folder / name)) as file:
                hashed = Hashed(file)
                reading.size_bytes = lambda: hashed.size_bytes
                written = write_rows(table, cast("IO[bytes]", hashed), chain([row], rows))
            flush_folder(self._folder)
            self._keep(name, table, written, hashed, (first, reading.at))
        self._on_read(table.name, reading.at - first, len(plan))
        return reading.at

    def _keep(self, name: str, table: Table, written: Written, hashed: Hashed, partitions: tuple[int, int]) -> None:
        part = Part(file=name, table=table.name, rows=written.rows, bytes=hashed.size_bytes, sha256=hashed.sha256,
                    partitions=partitions, first=written.first, last=written.last)  # fmt: skip
        self.save(files=(*self.manifest.files, part))


def chosen(tables: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tables to back up, in the order in which that is done: those that are named, or all of them.

    What was erased and what is still to be derived is in every backup.
    """
    wanted = set(tables or TABLES) | {ERASURES.name, DERIVED_PENDING.name}
    return tuple(table.name for table in ORDER if table.name in wanted)
