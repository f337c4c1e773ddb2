"""`voicelog-sink restore`: a backup's rows into a store, of either kind."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import attrs
import click

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.backup_manifest import complete
from voicelog_sink.backup_parquet import needed
from voicelog_sink.commands.forget import settle
from voicelog_sink.erasures import SETTLE_S
from voicelog_sink.opening import open_store
from voicelog_sink.options import STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.progress import progress
from voicelog_sink.reading import reading_or_empty
from voicelog_sink.render import Column, console, count, print_table
from voicelog_sink.restore import restore
from voicelog_sink.restored import Counts, Restored

SETTINGS = (*STORE_SETTINGS, "ttl_days")
RANKS = {"written": 0, "there": 2, "expired": 3, "erased": 4, "refused": 1}
"""Which columns are left out first where there is no room: the highest."""

EXAMPLE = """\b
Examples:
  voicelog-sink restore /backups/2026-11-25 --dry-run
  voicelog-sink restore /backups/2026-11-25 --store "scylla://scylla:9042/voice_ai_ks?local_dc=dc1"

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check the files and count what would be written, change nothing")
@click.option("--no-wait", is_flag=True, help=f"Do not wait {SETTLE_S:.0f} s for sinks that run: there are none")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: tables (counts), damaged, refusals, derived")
@with_settings(*SETTINGS)
def command(settings: Settings, directory: Path, dry_run: bool, no_wait: bool, as_json: bool) -> int:
    """Write what a backup in DIRECTORY has and the store does not. What is newer there stays, and what was erased.

    Sinks may run meanwhile. Rows keep the time they had left to live. Run again, it goes on where it was. Status 1
    where a file is damaged, of which nothing is written, or the store refused a row.
    """
    needed()
    manifest = complete(directory)
    with reading_or_empty(settings, say) if dry_run else open_store(settings, settings.start_timeout_ms) as store:
        if not dry_run and urlsplit(settings.store).scheme == "sqlite":
            store.init()
        with progress("restoring", sum(manifest.rows.values())) as on_rows:
            done = restore(
                store, directory, manifest, ttl_days=settings.ttl_days, dry_run=dry_run,
                settle=(lambda: None) if no_wait else settle, on_rows=on_rows,
            )  # fmt: skip
    tell(directory, done, dry_run, as_json)
    return 1 if done.damaged or done.refusals else 0


def say(sentence: str) -> None:
    """Say something on stderr."""
    click.echo(sentence, err=True)


def tell(directory: Path, done: Restored, dry_run: bool, as_json: bool) -> None:
    """Print what became of the rows, and what was left out for a fault."""
    if as_json:
        click.echo(shapes.line(shapes.restored_shape(str(directory.absolute()), done, dry_run)))
        return
    for sentence in (*done.damaged, *(f"refused: {message}" for message in done.refusals)):
        click.echo(sentence, err=True)
    names = [field.name for field in attrs.fields(Counts)]
    columns = [Column("table"), *(Column(name, right=True, rank=RANKS[name]) for name in names)]
    rows = [[table, *(f"{getattr(counts, name):,}" for name in names)] for table, counts in done.tables.items()]
    print_table(console(table=True), columns, rows)
    written = sum(counts.written for counts in done.tables.values())
    click.echo(f"{count(written, 'row')} {'to write' if dry_run else 'written'}")
    if done.calls or done.hours:
        calls, hours = count(done.calls, "call"), count(done.hours, "hour")
        click.echo(f"A sink derives anew: summaries of {calls}, rollups of {hours}; it begins within two minutes")
    if done.erased:
        click.echo(f"{count(done.erased, 'row')} of what the backup says was erased were deleted")
