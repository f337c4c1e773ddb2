"""`voicelog-sink stats`: percentiles by stage, provider, model, variant, service."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import attrs
import click
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.naming import names_known, names_option, of_names, split
from voicelog_sink.options import STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.period import period_ms, since_option, told, until_option
from voicelog_sink.reading import reading
from voicelog_sink.render import NOTHING, Column, console, ms, one_line, per_minute, print_line, print_table, usd
from voicelog_sink.rolled import shown_name
from voicelog_sink.stats import ERROR_PERCENT, GROUPS, Percentiles, StatsRow, stats
from voicelog_sink.tiers import open_end_ms

EXAMPLE = """\b
Examples:
  voicelog-sink stats
  voicelog-sink stats --since 7d --by provider,model
  voicelog-sink stats --since 90d --names llm,user_bot_latency
  voicelog-sink stats --since 1h --watch
  voicelog-sink stats --by variant --json | jq 'select(.name == "turn.user_bot_latency_ms")'

"""

WATCH_S = 5
LATEST = "the last minute's events may not be in yet"

Cells = list[Text | str]

STAGE_COLUMNS = (
    Column("count", right=True, rank=2), Column("per min", right=True, rank=12), Column("errors", right=True, rank=3),
    Column("excluded", right=True, rank=6), Column("took p50", right=True), Column("p90", right=True, rank=10),
    Column("p95", right=True, rank=1), Column("p99", right=True, rank=8), Column("first p50", right=True, rank=4),
    Column("p90", right=True, rank=11), Column("p95", right=True, rank=5), Column("p99", right=True, rank=9),
    Column("cost", right=True, rank=7),
)  # fmt: skip
"""A p95 goes before the p50 on its left, so that none is taken for one of the p50 before."""

VALUE_COLUMNS = (
    Column("count", right=True, rank=2), Column("per min", right=True, rank=6), Column("excluded", right=True, rank=3),
    Column("p50", right=True), Column("p90", right=True, rank=5), Column("p95", right=True, rank=1),
    Column("p99", right=True, rank=4),
)  # fmt: skip


def checked_by(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the names of the groups; raises BadParameter for a name that is none."""
    if not split(value):
        message = f"no group is named: expected some of {', '.join(GROUPS)}"
        raise click.BadParameter(message, context, parameter)
    for name in split(value):
        if name not in GROUPS:
            message = f"{name!r} is no group: expected some of {', '.join(GROUPS)}"
            raise click.BadParameter(message, context, parameter)
    return split(value)


def checked_watch(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Return whether to watch; raises BadParameter where there is no terminal to redraw."""
    if value and (context.params.get("as_json") or not sys.stdout.isatty()):
        message = "it redraws a terminal, and stdout is none, or --json is given: leave it out, and call stats again"
        raise click.BadParameter(message, context, parameter)
    return value


@click.command(epilog=EXAMPLE + secrets_epilog(*STORE_SETTINGS))
@since_option
@until_option
@click.option("--by", default="stage", show_default=True, callback=checked_by, help=f"Some of {','.join(GROUPS)}")
@names_option
@click.option("--json", "as_json", is_flag=True, is_eager=True, help="One JSON object a line")
@click.option("--watch", is_flag=True, callback=checked_watch, help=f"Draw it anew every {WATCH_S} s, until Ctrl-C")
@with_settings(*STORE_SETTINGS)
def command(
    settings: Settings,
    since: str,
    until: str | None,
    by: tuple[str, ...],
    names: tuple[str, ...],
    as_json: bool,
    watch: bool,
) -> int:
    """Show how long stages and turns took: percentiles within 1 % of the exact ones, how many, errors, cost.

    Left out of the percentiles, and counted as excluded, are stages that did not end ok and figures whose quality is
    not ok. "first" is the time to the first item: token, audio chunk. Whole minutes are read, up to 400 days back, from
    metric_rollups; an event is in them within a minute of its arrival.
    """

    def moments() -> tuple[int, int, int]:
        now_ms = int(time.time() * 1000)
        return *period_ms(since, until, now_ms, open_end_ms(now_ms) - now_ms), now_ms

    nothing = f"nothing was measured{of_names(names)} {told(since, until)}"
    moments()  # wrong use is told before a store is waited for
    with reading(settings) as store, names_known(told(since, until)):

        def look() -> list[StatsRow]:
            since_ms, until_ms, now_ms = moments()
            return stats(store, since_ms, until_ms, by, now_ms=now_ms, only=names)

        def draw() -> None:
            found = look()
            click.clear()  # only now: what is there stays while the store works
            show(found, nothing, as_json=False)

        if watch:
            redraw(draw, lambda: time.sleep(WATCH_S))
        else:
            show(look(), nothing, as_json)
    return 0


def redraw(draw: Callable[[], None], pause: Callable[[], None]) -> None:
    """Draw again and again; Ctrl-C is the way to end it, and no failure."""
    try:
        while True:
            draw()
            pause()
    except KeyboardInterrupt:
        return


def show(found: Sequence[StatsRow], nothing: str, as_json: bool) -> None:
    """Print what was found; where that is nothing, say so on stderr, in the words of `nothing`."""
    if not found:
        click.echo(f"{nothing}: look elsewhere with --since, such as --since 7d; {LATEST}", err=True)
    elif as_json:
        for row in found:
            click.echo(shapes.line(shapes.stats_shape(row)))
    else:
        print_tables(found)


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
    out.print()
    print_line(out, Text(f"percentiles are within {ERROR_PERCENT} %; {LATEST}", "dim"))


def _told_apart(rows: Sequence[StatsRow]) -> list[StatsRow]:
    """Return the rows without the dimensions that none of them has: a turn has no provider."""
    known = [name for name in (rows[0].group if rows else ()) if any(row.group[name] for row in rows)]
    return [attrs.evolve(row, group={name: row.group[name] for name in known}) for row in rows]


def _dimensions(rows: Sequence[StatsRow]) -> list[Column]:
    return [Column(name) for name in rows[0].group]


def _stage_columns(rows: Sequence[StatsRow]) -> list[Column]:
    return [Column("stage"), *_dimensions(rows), *STAGE_COLUMNS]


def _value_columns(rows: Sequence[StatsRow]) -> list[Column]:
    name = Column("figure" if rows[0].kind == "turn" else "metric")
    unit = [] if rows[0].kind == "turn" else [Column("unit")]
    return [name, *_dimensions(rows), *unit, *VALUE_COLUMNS]


def _stage_row(row: StatsRow) -> Cells:
    errors = Text(f"{row.errors:,}", "bold red" if row.errors else "dim")
    return [*_names(row, row.name), *_counted(row), errors, _excluded(row), *_points(row.duration_ms),
            *_points(row.first_item_ms), usd(row.cost_usd)]  # fmt: skip


def _turn_row(row: StatsRow) -> Cells:
    return [*_names(row, shown_name(row.name, row.kind)), *_counted(row), _excluded(row), *_points(row.value)]


def _metric_row(row: StatsRow) -> Cells:
    names = _names(row, row.name)
    return [*names, one_line(row.unit or NOTHING), *_counted(row), _excluded(row), *_points(row.value)]


def _names(row: StatsRow, name: str) -> Cells:
    return [Text(one_line(name), "bold"), *(one_line(value or NOTHING) for value in row.group.values())]


def _counted(row: StatsRow) -> Cells:
    return [f"{row.count:,}", per_minute(row.per_minute)]


def _excluded(row: StatsRow) -> Text:
    return Text(f"{row.excluded:,}", "yellow" if row.excluded else "dim")


def _points(found: Percentiles | None) -> Cells:
    if found is None:
        return [NOTHING] * 4
    return [ms(value) for value in (found.p50, found.p90, found.p95, found.p99)]
