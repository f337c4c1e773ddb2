"""Bringing a backup back: only what the store does not have, nothing over what is newer, nothing that was erased.

Needs no note of how far it came: what is in the store already is not written again, so a second run goes on where the
first one ended. Sinks may run meanwhile.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from voicelog_sink.backup_manifest import BackupRefused, Manifest, Part, wrong_with
from voicelog_sink.backup_parquet import batches
from voicelog_sink.patience import patiently
from voicelog_sink.pending import ROLLUP_BUCKETS, Announcer
from voicelog_sink.restore_chunks import Chunk, chunks
from voicelog_sink.restore_gate import Gate
from voicelog_sink.restore_there import There
from voicelog_sink.restored import Counts, Restored
from voicelog_sink.retention import Retention, Rule, lifetimes, read_rules
from voicelog_sink.rows import hour_of
from voicelog_sink.stores.base import Rejected, Row, Store, Values
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
    VOICE_INTERACTIONS,
    Table,
)

ORDER = (
    SESSION_SUMMARIES, SESSIONS_BY_DAY, VOICE_INTERACTIONS, PERFORMANCE_METRICS, ERROR_LOGS, SYSTEM_HEALTH,
    METRIC_NAMES, METRIC_PARTS, METRIC_ROLLUPS,
)  # fmt: skip
"""After the erasures and the rules of retention. Summaries first: they name the persons whose calls these are."""
SHOWN_REFUSALS = 20
PENDING_ROWS = 1_000

OnRows = Callable[[int], object]


def ignore(_: int) -> None:
    """Do nothing with rows that are done."""


def restore(
    store: Store, folder: Path, manifest: Manifest, *, ttl_days: int, dry_run: bool = False,
    settle: Callable[[], None] = lambda: None, on_rows: OnRows = ignore,
) -> Restored:  # fmt: skip
    """Write the rows of a backup that the store does not have; with `dry_run` only count them.

    A damaged file is left out and named. Blocks for all of it; waits while the store is away for up to a minute.
    Raises BackupRefused where the erasures are damaged, before anything is written, and StoreError as the store does:
    it can be run again.
    """
    run = _Run(store, folder, manifest, ttl_days, dry_run, on_rows)
    run.erasures()
    run.rules()
    for table in ORDER:
        for part in manifest.of(table.name):
            run.part(table, part)
    run.derive_anew()
    run.gate.finish(settle)
    run.done.erased = run.gate.erased.total()
    return run.done


class _Run:
    """One restore."""

    def __init__(
        self, store: Store, folder: Path, manifest: Manifest, ttl_days: int, dry_run: bool, on_rows: OnRows
    ) -> None:
        self._store = store
        self._folder = folder
        self._manifest = manifest
        self._ttl_days = ttl_days
        self._lifetimes = Retention(ttl_days).lifetimes
        self._dry_run = dry_run
        self._on_rows = on_rows
        self._hours: set[str] = set()
        sink_id = f"restore-{secrets.token_hex(4)}"
        self._calls_announced = Announcer(sink_id, first_bucket=0)
        self._hours_announced = Announcer(sink_id, first_bucket=ROLLUP_BUCKETS)
        self.gate = Gate(store, dry_run)
        self.done = Restored({name: Counts() for name in manifest.tables if name != DERIVED_PENDING.name})

    def erasures(self) -> None:
        """Bring what was erased, before any row that it covers; raises BackupRefused where a file of it is damaged."""
        parts = self._manifest.of(ERASURES.name)
        for part in parts:
            if wrong := wrong_with(self._folder, part):
                message = f"{wrong}; it says what was erased, and without it what must stay so could come back"
                raise BackupRefused(message)
        rows = [row for part in parts for batch in batches(ERASURES, self._folder / part.file) for row in batch]
        written = self.gate.bring(rows)
        counts = self.done.tables.setdefault(ERASURES.name, Counts())
        counts.written, counts.there = written, len(rows) - written
        self._on_rows(len(rows))

    def rules(self) -> None:
        """Go by the store's rules of how long things are kept; bring the backup's where the store has none at all.

        A store with rules of its own was given them since, or had others taken away: nothing is added to them.
        """
        rows = list(self._sound(RETENTION))
        known = patiently(read_rules, self._store)
        new = [] if known else rows
        counts = self.done.tables.setdefault(RETENTION.name, Counts())
        counts.written, counts.there = len(new), len(rows) - len(new)
        self._write([Row(RETENTION.name, row) for row in new])
        self._lifetimes = lifetimes(known or {row["name"]: Rule(**row) for row in new}, self._ttl_days)
        self._store.keep_for(self._lifetimes)

    def _sound(self, table: Table) -> Iterator[Values]:
        """Yield a small table's rows; name its damaged files, of which nothing is taken."""
        for part in self._manifest.of(table.name):
            self._on_rows(part.rows)
            if wrong := wrong_with(self._folder, part):
                self.done.damaged.append(wrong)
                continue
            for batch in batches(table, self._folder / part.file):
                yield from batch

    def part(self, table: Table, part: Part) -> None:
        """Restore a file's rows, none of them where it is damaged."""
        wrong = wrong_with(self._folder, part)
        if wrong is not None:
            self.done.damaged.append(wrong)
            self._on_rows(part.rows)
            return
        for chunk in chunks(table, batches(table, self._folder / part.file)):
            self._chunk(table, chunk)
            self._on_rows(len(chunk.rows))

    def _chunk(self, table: Table, chunk: Chunk) -> None:
        counts = self.done.tables[table.name]
        there = patiently(There.of, self._store, table, chunk)
        self.gate.renew()  # as late as can be: what is read takes its time
        kept = [row for row in chunk.rows if not self.gate.covers(table.name, row)]
        alive = self._alive(table, kept)
        missing = [row for row in alive if there.lacks(row)]
        counts.erased += len(chunk.rows) - len(kept)
        counts.expired += len(kept) - len(alive)
        counts.there += len(alive) - len(missing)
        announced = self._announced(table, there, missing)
        refused = self._write([*(Row(table.name, row) for row in missing), *announced])
        refused = [each for each in refused if each.index < len(missing)]
        counts.refused += len(refused)
        counts.written += len(missing) - len(refused)

    def _alive(self, table: Table, rows: list[Values]) -> list[Values]:
        now_ms = _now_ms()
        return [row for row in rows if not self._lifetimes.is_row_over(table.name, row, now_ms)]

    def _announced(self, table: Table, there: There, missing: Sequence[Values]) -> list[Row]:
        """Return the rows of derived_pending for calls that a summary must be made of; note hours of metrics."""
        if table is METRIC_PARTS:
            new = missing if METRIC_ROLLUPS.name not in self._manifest.tables else ()
            self._hours.update(row["minute"][:13] for row in (*there.mixed, *new))
        elif table is METRIC_ROLLUPS:
            self._hours.update(hour for row in there.mixed for hour in _hours_of(row))
        elif table is VOICE_INTERACTIONS:
            new = missing if SESSION_SUMMARIES.name not in self._manifest.tables else ()
            return self._calls({row["session_id"] for row in (*there.mixed, *new)})
        return []

    def _calls(self, session_ids: Iterable[str]) -> list[Row]:
        rows = [Row(DERIVED_PENDING.name, self._calls_announced.new(each, _now_ms())) for each in session_ids]
        self.done.calls += len(rows)
        return rows

    def derive_anew(self) -> None:
        """Leave to the sinks what the backup's summaries and rollups did not have yet, and what is of both sides."""
        for part in self._manifest.of(DERIVED_PENDING.name):
            wrong = wrong_with(self._folder, part)
            if wrong is not None:
                self.done.damaged.append(wrong)
                continue
            for batch in batches(DERIVED_PENDING, self._folder / part.file):
                self._pending(batch)
        hours = [Row(DERIVED_PENDING.name, self._hours_announced.new(hour, _now_ms())) for hour in sorted(self._hours)]
        self.done.hours = len(hours)
        self._write(hours)

    def _pending(self, rows: Sequence[Values]) -> None:
        self._hours.update(row["key"] for row in rows if row["bucket"] >= ROLLUP_BUCKETS)
        calls = {row["key"] for row in rows if row["bucket"] < ROLLUP_BUCKETS}
        alive = [each for each in calls if not self.gate.covers(VOICE_INTERACTIONS.name, {"session_id": each})]
        self._write(self._calls(alive))
        self._on_rows(len(rows))

    def _write(self, rows: Sequence[Row]) -> list[Rejected]:
        if self._dry_run or not rows:
            return []
        refused = patiently(self._store.write, rows)
        room = SHOWN_REFUSALS - len(self.done.refusals)
        self.done.refusals += [each.message for each in refused[: max(room, 0)]]
        return refused


def _hours_of(row: Values) -> list[str]:
    """Return the hours whose rollup makes a row of metric_rollups anew: all of a day, since any of them has it."""
    hour = hour_of(row["start"] * 1000)
    return [f"{hour[:11]}{each:02d}" for each in range(24)] if row["tier"] == "day" else [hour]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
