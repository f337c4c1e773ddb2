"""`voicelog-sink anomalies`: what departs from the same hour on earlier days and since when; trends over weeks."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import click
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.anomalies import Anomaly, Found, anomalies
from voicelog_sink.baseline import DAYS, LEAST_DAYS, THRESHOLD
from voicelog_sink.commands.stats import LATEST, checked_by
from voicelog_sink.departure import LEAST_VALUES, Rules
from voicelog_sink.errors import SinkError
from voicelog_sink.hourly import COST, COUNT, ERROR_RATE
from voicelog_sink.measures import BY
from voicelog_sink.naming import names_known, names_option, of_names
from voicelog_sink.options import STORE_SETTINGS, FiniteRange, secrets_epilog, with_settings
from voicelog_sink.period import period_ms, since_option
from voicelog_sink.reading import reading
from voicelog_sink.render import (
    NOTHING,
    Column,
    console,
    count,
    glyphs,
    moment,
    ms,
    one_line,
    print_line,
    print_table,
    signed,
    span,
)
from voicelog_sink.rolled import shown_name
from voicelog_sink.stats import GROUPS
from voicelog_sink.trends import LEAST_WEEKS, WEEKS, Trend, trends

FAILED = 1
MOST_DAYS = 60
MOST_WEEKS = 52
BARS = "▁▂▃▄▅▆▇█"

EXAMPLE = """\b
Examples:
  voicelog-sink anomalies
  voicelog-sink anomalies --since 7d --by provider,model,variant
  voicelog-sink anomalies --names llm,user_bot_latency --threshold 4
  voicelog-sink anomalies --since 2h --fail || notify-send "the bot is not itself"
  voicelog-sink anomalies --trend --weeks 12
  voicelog-sink anomalies --json | jq '.anomalies[] | select(.worse)'

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*STORE_SETTINGS))
@since_option
@click.option(
    "--by", default=",".join(("stage", *BY)), show_default=True, callback=checked_by, help=f"Some of {','.join(GROUPS)}"
)
@names_option
@click.option(
    "--days",
    type=click.IntRange(LEAST_DAYS, MOST_DAYS),
    default=DAYS,
    show_default=True,
    help="How many earlier days make the baseline",
)
@click.option(
    "--threshold",
    type=FiniteRange(min=1),
    default=THRESHOLD,
    show_default=True,
    help="How many spreads from the median are a departure",
)
@click.option("--trend", is_flag=True, help="Show how each figure moves from week to week instead")
@click.option("--weeks", type=click.IntRange(2, MOST_WEEKS), help=f"For --trend: how many weeks  [default: {WEEKS}]")
@click.option(
    "--fail",
    "is_check",
    is_flag=True,
    help="Exit status 1 where something is worse now, or nothing measured could be judged; for cron",
)
@click.option("--json", "as_json", is_flag=True, is_eager=True, help="JSON: one object; with --trend one a line")
@with_settings(*STORE_SETTINGS)
def command(
    settings: Settings,
    since: str,
    by: tuple[str, ...],
    names: tuple[str, ...],
    days: int,
    threshold: float,
    trend: bool,
    weeks: int | None,
    is_check: bool,
    as_json: bool,
) -> int:
    """Show what departs from the same hour on earlier days, and since when: slower, dearer, more errors, no calls.

    An hour of a stage, turn figure or metric departs where a percentile, its error rate or its cost is far from the
    median of that hour on earlier days, in spreads and in percent, and not by chance. What lasts comes first. What
    can't be judged is counted: the same hour of at least 7 earlier days must have hour rollups with 30 values or more.
    """
    _check_use(trend, weeks, is_check)
    rules = Rules(days, threshold)
    # wrong use is told before a store is waited for
    since_ms, now_ms = period_ms(since, None, int(time.time() * 1000), 0)
    period = "in these weeks" if trend else f"since {since}, nor on the {days} days before"
    with reading(settings) as store, names_known(period):
        if trend:
            show_trends(trends(store, now_ms, weeks or WEEKS, by, only=names), names, as_json)
            return 0
        found = anomalies(store, since_ms, now_ms, by, rules=rules, only=names)
    show(found, Looked(since, names, days), as_json)
    return checked(found, days) if is_check else 0


def _check_use(trend: bool, weeks: int | None, is_check: bool) -> None:
    """Raise UsageError for options that do not go together."""
    if is_check and trend:
        message = "--fail is for what is worse now, and --trend shows weeks: leave one of them out"
        raise click.UsageError(message)
    if weeks is not None and not trend:
        message = f"--weeks {weeks} is for --trend: add it, or say --since {weeks}w"
        raise click.UsageError(message)


@attrs.frozen
class Looked:
    """What was looked at, for the sentences that repeat it: since when, which names, how many days before."""

    since: str
    names: tuple[str, ...]
    days: int


def checked(found: Found, days: int) -> int:
    """Return the exit status of a check; raises SinkError where there were figures and none of them could be judged."""
    if not found.judged and (reasons := _not_judged(found, days)):
        remedy = "wait for as many days" if found.no_baseline else "take a longer --since"
        message = f"nothing could be judged: {'; '.join(reasons)}; {remedy}, or take fewer dimensions with --by"
        raise SinkError(message)
    return FAILED if any(_is_bad(one) for one in found.anomalies) else 0


def _is_bad(found: Anomaly) -> bool:
    return bool(found.worse) and found.until_ms is None


def show(found: Found, looked: Looked, as_json: bool) -> None:
    """Print what was found on stdout, and what could be judged; where there was nothing to judge, say so."""
    if as_json:
        click.echo(shapes.line(shapes.anomalies_shape(found)))
        return
    out = console(table=True)
    if found.anomalies:
        print_table(out, _columns(found.anomalies), [_cells(one, found.at_ms) for one in found.anomalies])
        out.print()
    elif found.judged:
        print_line(out, Text(f"nothing departs from earlier days since {looked.since}", "green"))
    for sentence in _judged(found, looked):
        print_line(out, Text(sentence, "dim"))


def _judged(found: Found, looked: Looked) -> list[str]:
    """Return what could be judged and what could not, a sentence each."""
    reasons = _not_judged(found, looked.days)
    if not (found.judged or reasons):
        nothing = f"nothing was measured{of_names(looked.names)} since {looked.since}"
        return [f"{nothing}: look elsewhere with --since, such as --since 7d; {LATEST}"]
    judged = f"judged: {count(found.judged, 'measure')} of stages, figures and metrics by group; {LATEST}"
    return [judged, *(f"not judged: {reason}" for reason in reasons)]


def _not_judged(found: Found, days: int) -> list[str]:
    """Return of how many measures nothing can be said, and why."""
    told = []
    if found.no_baseline:
        told.append(
            f"{found.no_baseline:,} without a baseline: of the {days} days before, {LEAST_DAYS} or more must have "
            f"{LEAST_VALUES} values or more in the same hour (from rollups by hour)"
        )
    if found.too_few:
        told.append(f"{found.too_few:,} with fewer than {LEAST_VALUES} values in every hour")
    return told


def _columns(found: Sequence[Anomaly]) -> list[Column]:
    groups = [Column(name) for name in found[0].group]
    return [Column("name"), *groups, Column("figure"), Column("measure"), Column("what"),
            Column("value", right=True, rank=1), Column("usual", right=True, rank=2),
            Column("spread", right=True, rank=7), Column("z", right=True, rank=6), Column("count", right=True, rank=5),
            Column("since (UTC)", rank=3), Column("for", rank=4)]  # fmt: skip


def _cells(one: Anomaly, at_ms: int) -> list[Text | str]:
    style = "dim" if one.until_ms else "bold red" if one.worse else "yellow"
    groups = [one_line(value or NOTHING) for value in one.group.values()]
    numbers = [number(one.measure, value) for value in (one.value, one.median, one.spread)]
    older = "before " if one.is_older else ""
    return [_name(one), *groups, one.figure, one.measure, Text(one.direction, style), *numbers,
            f"{one.z:+.1f}", f"{one.count:,}", older + moment(one.since_ms)[:16], _length(one, at_ms)]  # fmt: skip


def _name(one: Anomaly | Trend) -> Text:
    return Text(one_line(shown_name(one.name, one.kind)), "bold")


def _length(one: Anomaly, at_ms: int) -> str:
    ended = one.until_ms is not None
    took = span((one.until_ms if one.until_ms is not None else at_ms) - one.since_ms)
    return f"{took}, over" if ended else took


def number(measure: str, value: float) -> str:
    """Return a measure's value as people read it: milliseconds, percent, cents."""
    if measure == ERROR_RATE:
        return f"{value * 100:.2f} %"
    if measure == COST:
        return f"${value:.6f}" if abs(value) < 0.1 else f"${value:.2f}"
    return f"{value:,.0f}" if measure == COUNT else ms(value)


def show_trends(found: Sequence[Trend], names: Sequence[str], as_json: bool) -> None:
    """Print trends on stdout, as JSON or as a table; where there are none, say so on stderr."""
    if as_json:
        for one in found:
            click.echo(shapes.line(shapes.trend_shape(one)))
        return
    if not found:
        click.echo(f"nothing was measured{of_names(names)} in these weeks: look further back with --weeks", err=True)
        return
    out = console(table=True)
    bars = BARS if glyphs(out).running == BARS[-1] else ""
    groups = [Column(name) for name in found[0].group]
    columns = [Column("name"), *groups, Column("figure"), Column("measure"), Column("weeks", rank=4),
               Column("first", right=True, rank=2), Column("last", right=True, rank=2),
               Column("a week", right=True, rank=1), Column("chance", right=True, rank=3), Column("")]  # fmt: skip
    print_table(out, columns, [_trend_cells(one, bars) for one in found])
    out.print()
    print_line(
        out, Text("weeks end with yesterday, UTC; chance: how often weeks without a trend look like this", "dim")
    )


def _trend_cells(one: Trend, bars: str) -> list[Text | str]:
    groups = [one_line(value or NOTHING) for value in one.group.values()]
    known = [week.value for week in one.weeks if week.value is not None]
    ends = [number(one.measure, value) for value in (known[0], known[-1])] if known else [NOTHING] * 2
    percent = NOTHING if one.percent is None else signed(f"{one.percent:.1f} %")
    chance = NOTHING if one.chance is None else "<0.001" if one.chance < 0.001 else f"{one.chance:.3f}"
    return [_name(one), *groups, one.figure, one.measure, _drawn(one, bars), *ends, percent,
            chance, _said(one)]  # fmt: skip


def _drawn(one: Trend, bars: str) -> str:
    """Return a bar a week, from 0 up to the highest; a blank for a week with too few values."""
    most = max((abs(week.value) for week in one.weeks if week.value is not None), default=0.0)
    if not bars or not most:
        return ""
    return "".join(
        " " if week.value is None else bars[round(abs(week.value) / most * (len(bars) - 1))] for week in one.weeks
    )


def _said(one: Trend) -> Text:
    if one.verdict == "too_few":
        return Text(f"too few: {LEAST_WEEKS} weeks with {LEAST_VALUES} values are needed", "yellow")
    if one.verdict == "unclear":
        return Text("no clear trend", "dim")
    return Text(one.verdict, "bold red" if one.worse else "green" if one.worse is False else "")
