"""`voicelog-sink export`: events, and what was made from them, as JSON Lines, CSV or Parquet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO

import click
from click.core import ParameterSource

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.export import EXPORTS, Export, Rows
from voicelog_sink.export_file import whole_file
from voicelog_sink.export_formats import Csv, JsonLines, Writer
from voicelog_sink.export_parquet import Parquet, pyarrow
from voicelog_sink.export_progress import told
from voicelog_sink.given import checked_session, not_empty
from voicelog_sink.options import STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.period import period_ms, since_option, until_option
from voicelog_sink.queries import find
from voicelog_sink.reading import reading
from voicelog_sink.render import count
from voicelog_sink.rows import DAY_MS
from voicelog_sink.stores.base import Store

SETTINGS = (*STORE_SETTINGS, "slow_turn_ms")

EXAMPLE = """\b
Examples:
  voicelog-sink export --since 7d -o calls.parquet
  voicelog-sink export --session last | jq -r 'select(.type == "stt_result") | .transcript'
  voicelog-sink export --table errors --since 2026-11-01 --until 2026-12-01 -o errors.csv

"""

Format = Callable[[Export, IO[bytes]], Writer]

FORMATS: dict[str, Format] = {"jsonl": JsonLines, "csv": Csv, "parquet": Parquet}
DEFAULT = "jsonl"
STDOUT = "-"


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@since_option
@until_option
@click.option(
    "--session", callback=checked_session,
    help="Only this call: its id, enough of its beginning, or `last`; instead of a period",
)  # fmt: skip
@click.option("--table", type=click.Choice(list(EXPORTS)), default="events", show_default=True, help="What to export")
@click.option(
    "--format", "file_format", type=click.Choice(list(FORMATS)),
    help=f"How; by default what FILE's suffix says (.{', .'.join(FORMATS)}), otherwise {DEFAULT}",
)  # fmt: skip
@click.option(
    "-o", "--output", default=STDOUT, show_default=True, metavar="FILE", help="The file, or - for stdout",
    callback=not_empty("file name", "a file, or - for stdout"),
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Say what was written in a JSON object; needs -o FILE")
@with_settings(*SETTINGS)
def command(
    settings: Settings,
    since: str,
    until: str | None,
    session: str | None,
    table: str,
    file_format: str | None,
    output: str,
    as_json: bool,
) -> int:
    """Write events, or what was made from them, as JSON Lines, CSV or Parquet: of a period, or of one call.

    events are the calls' events; of a period, those of the calls that began in it, each call whole. sessions are the
    summaries of these calls. metrics, errors and health are rows of performance_metrics, error_logs and system_health
    with a time in the period, those of no call too. A file appears under its name when it is whole, or not at all.
    """  # fmt: skip
    file_format = _format(file_format, output)
    _check_use(session, file_format, output, as_json)
    since_ms, until_ms = period_ms(since, until, int(time.time() * 1000), DAY_MS)
    export, end_ms = EXPORTS[table], None if session else since_ms
    with reading(settings) as store:
        if session:
            rows = _of_call(store, export, session, settings.slow_turn_ms)
        else:
            rows = export.between(store, since_ms, until_ms)
        if output == STDOUT:
            stdout = sys.stdout.buffer
            _write(FORMATS[file_format], export, rows, end_ms, stdout)
            stdout.flush()
            return 0
        with whole_file(output) as file:
            written = _write(FORMATS[file_format], export, rows, end_ms, file)
            size_bytes = file.tell() if file.seekable() else None
    if as_json:
        click.echo(shapes.line(shapes.export_shape(table, file_format, written, os.path.abspath(output), size_bytes)))
    else:
        click.echo(f"{count(written, 'row')} of {table} in {output}", err=True)
    return 0


def _format(given: str | None, output: str) -> str:
    """Return the format that is given, or that FILE's suffix names; say so on stderr where these are two."""
    suffix = os.path.splitext(output)[1].lower().removeprefix(".")
    named = suffix if suffix in FORMATS else None
    if given and named and given != named:
        click.echo(f"{output} is written as {given}, as --format says, whatever its suffix", err=True)
    return given or named or DEFAULT


def _check_use(session: str | None, file_format: str, output: str, as_json: bool) -> None:
    """Raise a UsageError for options that do not go together, ParquetMissing where pyarrow is."""
    context = click.get_current_context()
    given = [name for name in ("since", "until") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if session and given:
        message = f"--session {session} and --{given[0]}: expected one of both; a call is exported whole"
        raise click.UsageError(message)
    if output == STDOUT and as_json:
        message = "--json says what was written to a file: expected -o FILE with it; --format jsonl prints rows as JSON"
        raise click.UsageError(message)
    if file_format == "parquet":
        pyarrow()
        if output == STDOUT and sys.stdout.isatty():
            message = "--format parquet is binary and stdout is a terminal: expected -o FILE, or a pipe"
            raise click.UsageError(message)


def _of_call(store: Store, export: Export, session: str, slow_turn_ms: float) -> Rows:
    return export.of_call(store, find(store, session, int(time.time() * 1000)), slow_turn_ms)


def _write(make: Format, export: Export, rows: Rows, end_ms: int | None, file: IO[bytes]) -> int:
    """Write every row and return how many there were; a terminal shows the rows alone, no bar among them."""
    writer = make(export, file)
    try:
        with nullcontext(rows) if file.isatty() else told(rows, export, end_ms) as passing:
            written = 0
            for row in passing:
                writer.write(row)
                written += 1
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return written
