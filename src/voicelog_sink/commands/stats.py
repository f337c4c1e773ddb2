"""`voicelog-sink stats`: percentiles by stage, provider, model, variant, service."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import click
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.options import STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.period import since_ms, since_option
from voicelog_sink.reading import reading
from voicelog_sink.render import NOTHING, Column, console, ms, one_line, print_table, usd
from voicelog_sink.rows import DAY_MS
from voicelog_sink.stats import GROUPS, Percentiles, StatsRow, stats

EXAMPLE = """\b
Examples:
  voicelog-sink stats
  voicelog-sink stats --since 7d --by provider,model
  voicelog-sink stats --by variant --json | jq 'select(.name == "turn.user_bot_latency_ms")'

"""

Cells = list[Text | str]


def split(by: str) -> tuple[str, ...]:
    """Return the names in `by`, each once."""
    return tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))


def checked_by(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the names of the groups; raises BadParameter for a name that is none."""
    for name in split(value):
        if name not in GROUPS:
            message = f"{name!r} is no group: expected some of {', '.join(GROUPS)}"
            raise click.BadParameter(message, context, parameter)
    return split(value)


@click.command(epilog=EXAMPLE + secrets_epilog(*STORE_SETTINGS))
@since_option
@click.option("--by", default="stage", show_default=True, callback=checked_by, help=f"Some of {','.join(GROUPS)}")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line")
@with_settings(*STORE_SETTINGS)
def command(settings: Settings, since: str, by: tuple[str, ...], as_json: bool) -> int:
    """Show how long stages and turns took: exact percentiles, by nearest rank.

    Left out of the percentiles, and counted as excluded, are stages that did not end ok and figures whose quality is
    not ok. "first" is the time to the first item: token, audio chunk.
    """
    now_ms = int(time.time() * 1000)
    with reading(settings) as store:
        found = stats(store, since_ms(since, now_ms), now_ms + DAY_MS, by)
    if not found:
        click.echo(f"nothing was measured since {since}: look elsewhere with --since, such as --since 7d", err=True)
    elif as_json:
        for row in found:
            click.echo(shapes.line(shapes.stats_shape(row)))
    else:
        print_tables(found)
    return 0


def print_tables(found: Sequence[StatsRow]) -> None:
    """Print stages, turns and metrics on stdout, a table each."""
    out = console(table=True)
    parts = (("stage", "Stages, ms", _stage_columns, _stage_row), ("turn", "Turns, ms", _value_columns, _turn_row),
             ("metric", "Metrics", _value_columns, _metric_row))  # fmt: skip
    between = False
    for kind, title, columns, row_of in parts:
        rows = _told_apart([row for row in found if row.kind == kind])
        if not rows:
            continue
        if between:
            out.print()
        between = True
        out.print(Text(title, "bold underline"))
        print_table(out, columns(rows), [row_of(row) for row in rows])


def _told_apart(rows: Sequence[StatsRow]) -> list[StatsRow]:
    """Return the rows without the dimensions that none of them has: a turn has no provider."""
    known = [name for name in (rows[0].group if rows else ()) if any(row.group[name] for row in rows)]
    return [attrs.evolve(row, group={name: row.group[name] for name in known}) for row in rows]


def _dimensions(rows: Sequence[StatsRow]) -> list[Column]:
    return [Column(name) for name in rows[0].group]


def _stage_columns(rows: Sequence[StatsRow]) -> list[Column]:
    took = [Column(name, right=True, rank=rank) for name, rank in _ranked("took p50", 0)]
    first = [Column(name, right=True, rank=rank) for name, rank in _ranked("first p50", 1)]
    counts = [Column("count", right=True), Column("errors", right=True), Column("excluded", right=True, rank=2)]
    return [Column("stage"), *_dimensions(rows), *counts, *took, *first, Column("cost", right=True, rank=3)]


def _ranked(first: str, more: int) -> list[tuple[str, int]]:
    return [(first, 0), ("p90", 6 + more), ("p95", 0), ("p99", 4 + more)]


def _value_columns(rows: Sequence[StatsRow]) -> list[Column]:
    name = Column("figure" if rows[0].kind == "turn" else "metric")
    unit = [] if rows[0].kind == "turn" else [Column("unit")]
    counts = [Column("count", right=True), Column("excluded", right=True)]
    return [name, *_dimensions(rows), *unit, *counts, *(Column(p, right=True) for p in ("p50", "p90", "p95", "p99"))]


def _stage_row(row: StatsRow) -> Cells:
    errors = Text(f"{row.errors:,}", "bold red" if row.errors else "dim")
    return [*_names(row, row.name), f"{row.count:,}", errors, _excluded(row), *_points(row.duration_ms),
            *_points(row.first_item_ms), usd(row.cost_usd)]  # fmt: skip


def _turn_row(row: StatsRow) -> Cells:
    name = row.name.removeprefix("turn.").removesuffix("_ms")
    return [*_names(row, name), f"{row.count:,}", _excluded(row), *_points(row.value)]


def _metric_row(row: StatsRow) -> Cells:
    names = _names(row, row.name)
    return [*names, one_line(row.unit or NOTHING), f"{row.count:,}", _excluded(row), *_points(row.value)]


def _names(row: StatsRow, name: str) -> Cells:
    return [Text(one_line(name), "bold"), *(one_line(value or NOTHING) for value in row.group.values())]


def _excluded(row: StatsRow) -> Text:
    return Text(f"{row.excluded:,}", "yellow" if row.excluded else "dim")


def _points(found: Percentiles | None) -> Cells:
    if found is None:
        return [NOTHING] * 4
    return [ms(value) for value in (found.p50, found.p90, found.p95, found.p99)]
