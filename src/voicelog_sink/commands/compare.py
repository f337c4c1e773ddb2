"""`voicelog-sink compare`: two variants, models, providers, services or periods, with confidence intervals."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence

import attrs
import click
from click.core import ParameterSource
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.commands.stats import LATEST
from voicelog_sink.compare import ERROR_RATE, CompareRow, Side, compared, judged, pairs, values_of
from voicelog_sink.errors import SinkError
from voicelog_sink.naming import listed, names_known, names_option, of_names
from voicelog_sink.options import STORE_SETTINGS, FiniteRange, secrets_epilog, with_settings
from voicelog_sink.parts import METRIC, MINUTE_MS
from voicelog_sink.period import period_ms, since_ms, since_option, told, until_option
from voicelog_sink.reading import reading
from voicelog_sink.render import NOTHING, Column, console, count, one_line, print_line, print_table, signed
from voicelog_sink.rolled import DIMENSIONS, shown_name
from voicelog_sink.stores.base import Store
from voicelog_sink.tiers import open_end_ms

PERIOD = "period"
BY = ("variant", "model", "provider", "service", PERIOD)
REGRESSED = 1
"""The exit status where B is worse than --fail-on-regression allows."""

EXAMPLE = """\b
Examples:
  voicelog-sink compare calm brisk --since 7d
  voicelog-sink compare gpt-4o gpt-4o-mini --by model --names llm
  voicelog-sink compare 14d..7d 7d.. --by period --where service=front-desk
  voicelog-sink compare main next --since 1d --fail-on-regression 10

"""

MOST_DECIMALS = 6
VERDICTS = {"higher": "B is higher", "lower": "B is lower", "unclear": "no clear difference"}


def checked_where(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the values by dimension; raises BadParameter for what is no NAME=VALUE, or names no dimension."""
    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or name not in DIMENSIONS:
            message = f"{text!r}: expected NAME=VALUE, where NAME is one of {', '.join(DIMENSIONS)}"
            raise click.BadParameter(message, context, parameter)
        found[name] = value
    return found


@click.command(epilog=EXAMPLE + secrets_epilog(*STORE_SETTINGS))
@click.argument("a")
@click.argument("b")
@click.option("--by", type=click.Choice(BY), default=BY[0], show_default=True, help="What A and B are")
@since_option
@until_option
@click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUE",
    callback=checked_where,
    help=f"Only events of this {', '.join(DIMENSIONS[:-1])} or {DIMENSIONS[-1]}; may be given several times",
)
@names_option
@click.option(
    "--fail-on-regression",
    type=FiniteRange(min=0),
    metavar="PERCENT",
    help="Exit status 1 where B is worse than A by more than so many percent, and not by chance",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line")
@with_settings(*STORE_SETTINGS)
def command(
    settings: Settings,
    a: str,
    b: str,
    by: str,
    since: str,
    until: str | None,
    where: dict[str, str],
    names: tuple[str, ...],
    fail_on_regression: float | None,
    as_json: bool,
) -> int:
    """Compare B with A: p50, p95 and error rates, and how far apart they are with 95 % confidence.

    A and B are two variants (or models, providers, services), '' for events without one; or two periods such as 14d..7d
    and 7d.. with --by period. Left out of percentiles is what `stats` leaves out. Values are taken for
    independent; those of one call are not quite, so let a build fail on clear differences only. Needs the extra
    voicelog[analysis].
    """  # fmt: skip
    now_ms = int(time.time() * 1000)
    asked = Asked(a, b, by, since, until, where, names)
    _check_use(by)
    sides = [_side(text, by, since, until, where, now_ms) for text in (a, b)]
    with reading(settings) as store, names_known(asked.period):
        found = pairs(store, *sides, now_ms=now_ms, only=names)
        if not found:
            raise SinkError(_nothing(store, sides, asked, now_ms))
    rows = compared(found) if fail_on_regression is None else judged(found, fail_on_regression)
    show(rows, a, b, as_json)
    return 0 if fail_on_regression is None else verdict(rows, a, b, fail_on_regression)


@attrs.frozen
class Asked:
    """What was asked for, for the sentences that repeat it."""

    a: str
    b: str
    by: str
    since: str
    until: str | None
    where: Mapping[str, str]
    names: tuple[str, ...]

    @property
    def period(self) -> str:
        """The time it is about: `since 24h`, or both periods."""
        return f"in {self.a} or {self.b}" if self.by == PERIOD else told(self.since, self.until)

    @property
    def narrowed(self) -> str:
        """Which part of the events it is about: ` of llm with service=desk`, or nothing."""
        having = ", ".join(f"{name}={value}" for name, value in self.where.items())
        return of_names(self.names) + (f" with {having}" if having else "")

    @property
    def look(self) -> str:
        """The command that shows what there is."""
        dimensions = [name for name in (self.by, *self.where) if name != PERIOD]
        by = f" --by {','.join(dimensions)}" if dimensions else ""
        times = [] if self.by == PERIOD else [("since", self.since), ("until", self.until)]
        options = (f" --{name} {shlex.quote(value)}" for name, value in times if value)
        return f"`voicelog-sink stats{by}{''.join(options)}`"


def _check_use(by: str) -> None:
    """Raise UsageError for options that do not go together."""
    source_of = click.get_current_context().get_parameter_source
    for name in ("since", "until") if by == PERIOD else ():
        if source_of(name) is ParameterSource.COMMANDLINE:
            message = (
                f"--{name} is not for --by {PERIOD}: A and B are the periods already, such as 14d..7d; leave it out"
            )
            raise click.UsageError(message)


def _nothing(store: Store, sides: Sequence[Side], asked: Asked, now_ms: int) -> str:
    """Return the sentence for nothing to compare: which side has no values, and what there is instead."""
    by = DIMENSIONS[0] if asked.by == PERIOD else asked.by
    there = [values_of(store, side, by, now_ms=now_ms, only=asked.names) for side in sides]
    if asked.by == PERIOD:
        lacking = [text for text, values in zip((asked.a, asked.b), there, strict=True) if not values]
        others = ""
    else:
        lacking = [text for text in (asked.a, asked.b) if text not in there[0]]
        others = f"; {asked.by}s there: {listed(there[0])}" if there[0] else f"; no {asked.by} has any"
    return f"nothing to compare: {_reason(lacking, asked)}{others}; see what there is with {asked.look}; {LATEST}"


def _reason(lacking: Sequence[str], asked: Asked) -> str:
    when = "" if asked.by == PERIOD else f" {asked.period}"
    if not lacking:
        return f"no figure{asked.narrowed} was measured for both {asked.a!r} and {asked.b!r}{when}"
    has = f"{lacking[0]!r} has no" if len(lacking) == 1 else f"neither {asked.a!r} nor {asked.b!r} has"
    return f"{has} values{asked.narrowed}{when}"


def _side(text: str, by: str, since: str, until: str | None, where: dict[str, str], now_ms: int) -> Side:
    """Return what A or B means; raises UsageError for what means nothing."""
    if by == PERIOD:
        return Side(*_period(text, now_ms), where)
    if by in where:
        message = f"--where {by}={where[by]}: A and B are the {by}s already; leave it out"
        raise click.UsageError(message)
    return Side(*period_ms(since, until, now_ms, open_end_ms(now_ms) - now_ms), {by: text, **where})


def _period(text: str, now_ms: int) -> tuple[int, int]:
    """Return the period, in whole minutes: where one ends and the next begins, a minute is in one of them."""
    first, dots, last = text.partition("..")
    try:
        moments = since_ms(first, now_ms), since_ms(last, now_ms) if last else open_end_ms(now_ms)
    except ValueError as exc:
        message = f"{text!r} is no period such as 14d..7d or 7d..: {exc}"
        raise click.UsageError(message) from exc
    since, until = (moment // MINUTE_MS * MINUTE_MS for moment in moments)
    if not dots or since >= until:
        message = f"{text!r} is no period: expected SINCE..UNTIL, the first before the second, such as 14d..7d or 7d.."
        raise click.UsageError(message)
    return since, until


def verdict(rows: Sequence[CompareRow], a: str, b: str, allowed_percent: float) -> int:
    """Say on stderr what regressed and what could not be judged, and return the exit status.

    Raises SinkError where no percentile could be judged: a build must not pass for want of calls.
    """
    judgeable = [row for row in rows if row.kind != METRIC]
    if all(row.regression is None for row in judgeable if row.measure != ERROR_RATE):
        needed = max(row.needed for row in rows)
        message = (
            f"nothing could be judged: each percentile of {a!r} or {b!r} has too few values, a p95 needs {needed} "
            "or more of both; take a longer period"
        )
        raise SinkError(message)
    for row in judgeable:
        if row.regression:
            click.echo(_regression(row, allowed_percent), err=True)
    left_out = sum(row.regression is None for row in judgeable)
    if left_out:
        click.echo(f"not judged for too few values: {left_out} of {count(len(judgeable), 'measure')}", err=True)
    return REGRESSED if any(row.regression for row in judgeable) else 0


def _regression(row: CompareRow, allowed_percent: float) -> str:
    change = "from 0" if row.percent is None else f"by {row.percent:.1f} %"
    name = one_line(f"{shown_name(row.name, row.kind)} {row.figure} {row.measure}")
    return f"regression: {name} is worse {change}; {allowed_percent:g} % is allowed"


def show(rows: Sequence[CompareRow], a: str, b: str, as_json: bool) -> None:
    """Print the rows on stdout, as JSON or as a table."""
    if as_json:
        for row in rows:
            click.echo(shapes.line(shapes.compare_shape(row)))
        return
    out = console(table=True)
    print_line(out, Text(f"A is {one_line(a) or NOTHING}, B is {one_line(b) or NOTHING}"))
    out.print()
    print_table(out, COLUMNS, [_cells(row) for row in rows])
    out.print()
    units = "stages and turns in ms, differences of error rates in points"
    print_line(out, Text(f"intervals have 95 % confidence; {units}; {LATEST}", "dim"))


COLUMNS = (
    Column("name"), Column("figure"), Column("measure"), Column("A count", right=True, rank=5),
    Column("B count", right=True, rank=5), Column("A", right=True, rank=1), Column("B", right=True, rank=1),
    Column("difference", right=True, rank=2), Column("from", right=True, rank=3), Column("to", right=True, rank=3),
    Column("change", right=True, rank=4), Column(""),
)  # fmt: skip


def _cells(row: CompareRow) -> list[Text | str]:
    numbers = [_number(row, value) for value in (row.a, row.b)]
    apart = [_number(row, value, is_signed=True) for value in (row.difference, row.low, row.high)]
    change = NOTHING if row.percent is None else signed(f"{row.percent:.1f} %")
    name = Text(one_line(shown_name(row.name, row.kind)), "bold")
    return [name, row.figure, row.measure, f"{row.a_count:,}", f"{row.b_count:,}", *numbers, *apart, change, _said(row)]


def _number(row: CompareRow, value: float | None, is_signed: bool = False) -> str:
    if value is None:
        return NOTHING
    text = f"{value * 100:.2f} %" if row.measure == ERROR_RATE else f"{value:.{_decimals(row)}f}"
    return signed(text) if is_signed else text


def _decimals(row: CompareRow) -> int:
    """Return how many decimals a row has: three digits of its larger value are shown, so that small ones are seen."""
    largest = max(abs(value) for value in (row.a or 0.0, row.b or 0.0))
    return max(0, min(2 - math.floor(math.log10(largest)), MOST_DECIMALS)) if largest else 0


def _said(row: CompareRow) -> Text:
    if row.verdict == "too_few":
        return Text(f"too few: {row.needed} of each are needed", "yellow")
    if row.regression:
        return Text("regression", "bold red")
    return Text(VERDICTS[row.verdict], "dim" if row.verdict == "unclear" else "")
