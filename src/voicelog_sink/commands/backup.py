"""`voicelog-sink backup`: every table of the store as Parquet files, or whether such a backup is whole."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import Progress

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.backup import ORDER, OnRead, backup, begin, chosen, ignore, only_run
from voicelog_sink.backup_manifest import Asked, Manifest, complete, damage
from voicelog_sink.backup_parquet import needed
from voicelog_sink.options import STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.period import FORMS, checked_since, maybe_since_option, since_ms
from voicelog_sink.progress import progress
from voicelog_sink.reading import reading
from voicelog_sink.render import console, count

EXAMPLE = """\b
Examples:
  voicelog-sink backup /backups/2026-11-25
  voicelog-sink backup /backups/2026-11-25 --check
  voicelog-sink backup /backups/november --since 2026-11-01 --until 2026-12-01

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*STORE_SETTINGS))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@maybe_since_option(f"Only rows from then on, by their own time: {FORMS}")
@click.option("--until", default=None, callback=checked_since, help="Only rows from before then, as --since")
@click.option(
    "--table", "tables", type=click.Choice(sorted(table.name for table in ORDER)), multiple=True,
    help="Only this table; may be given several times",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Compare the files of a backup with their checksums; needs no store")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object: directory, tables (rows), files, bytes, damaged"
)
@with_settings(*STORE_SETTINGS)
def command(settings: Settings, directory: Path, since: str | None, until: str | None, tables: tuple[str, ...],
            check: bool, as_json: bool) -> int:  # fmt: skip
    """Write every row of the store that can't be made anew into Parquet files in DIRECTORY, beside a manifest.

    Sinks may run meanwhile. A backup that was cut short goes on where it was when the same command is given again.
    Needs the extra `parquet`. `voicelog-sink restore` brings it back, into either kind of store.
    """
    if check:
        return checked(directory, as_json)
    needed()
    now_ms = int(time.time() * 1000)
    period = (None if since is None else since_ms(since, now_ms), None if until is None else since_ms(until, now_ms))
    if None not in period and period[0] >= period[1]:  # type: ignore[operator]
        message = f"--since {since} is not before --until {until}: expected the earlier moment first"
        raise click.UsageError(message)
    with only_run(directory), reading(settings) as store, bar() as on_read:
        manifest = begin(directory, settings.store, Asked(since=since, until=until, tables=chosen(tables)), period)
        done = backup(store, directory, manifest, on_read)
    tell(directory, done, None, as_json)
    return 0


def checked(directory: Path, as_json: bool) -> int:
    """Say of each file that is not as it was written what is wrong with it; status 1 if there is any."""
    manifest = complete(directory)
    wrong = []
    with progress("checking", manifest.bytes) as on_read:
        for part, found in damage(directory, manifest):
            on_read(part.bytes)
            wrong += [] if found is None else [found]
    tell(directory, manifest, wrong, as_json)
    return 1 if wrong else 0


def tell(directory: Path, manifest: Manifest, wrong: list[str] | None, as_json: bool) -> None:
    """Print what is in the backup, and what is wrong with it; None where that was not looked at."""
    if as_json:
        click.echo(shapes.line(shapes.backup_shape(str(directory.absolute()), manifest, wrong or [])))
        return
    for sentence in wrong or ():
        click.echo(sentence, err=True)
    for table, rows in manifest.rows.items():
        click.echo(f"{table}: {count(rows, 'row')}")
    size = f"{manifest.bytes / 1e6:,.1f} MB"
    click.echo(
        f"{count(sum(manifest.rows.values()), 'row')} in {count(len(manifest.files), 'file')}, {size}{_state(wrong)}"
    )


def _state(wrong: list[str] | None) -> str:
    if wrong is None:
        return ""
    return f", {count(len(wrong), 'file')} damaged" if wrong else ": all files are as they were written"


@contextmanager
def bar() -> Iterator[OnRead]:
    """Give what shows how far a backup is, table by table, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield ignore
        return
    with Progress(console=console(sys.stderr), transient=True, redirect_stdout=False, redirect_stderr=False) as shown:
        tasks = {}

        def on_read(table: str, read: int, of: int) -> None:
            if table not in tasks:
                tasks[table] = shown.add_task(table, total=of)
            shown.advance(tasks[table], read)

        yield on_read
