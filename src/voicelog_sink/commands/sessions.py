"""`voicelog-sink sessions`: the list of calls."""

from __future__ import annotations

import time

import click
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.options import STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.period import since_ms, since_option
from voicelog_sink.queries import sessions
from voicelog_sink.reading import reading
from voicelog_sink.render import Column, console, moment, ms, one_line, print_table, span, usd
from voicelog_sink.rows import DAY_MS
from voicelog_sink.summary import Summary
from voicelog_sink.tally import COMPLETE, MISSING

EXAMPLE = """\b
Examples:
  voicelog-sink sessions
  voicelog-sink sessions --since 7d --limit 100
  voicelog-sink sessions --json | jq -r 'select(.errors > 0) | .session_id'

"""

COLUMNS = (
    Column("started (UTC)"), Column("session", shrink=True), Column("service", rank=5), Column("variant", rank=4),
    Column("user", rank=7), Column("length", right=True), Column("turns", right=True),
    Column("errors", right=True), Column("cut in", right=True, rank=6), Column("slow", right=True, rank=2),
    Column("p50 ms", right=True), Column("max ms", right=True, rank=1), Column("cost", right=True, rank=3),
    Column("events"),
)  # fmt: skip


@click.command(epilog=EXAMPLE + secrets_epilog(*STORE_SETTINGS))
@since_option
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most calls to list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line")
@with_settings(*STORE_SETTINGS)
def command(settings: Settings, since: str, limit: int, as_json: bool) -> int:
    """List the calls, newest first: how long, how slow, what went wrong, what it cost.

    p50 and max are of user_bot_latency_ms, over the turns whose quality is ok; a slow turn took 2 s or more; in "cut
    in" turns the user spoke into the bot's speech. A call shows up a minute after it began.
    """
    now_ms = int(time.time() * 1000)
    with reading(settings) as store:
        found = sessions(store, since_ms(since, now_ms), now_ms + DAY_MS, limit)
    if not found:
        click.echo(f"no calls since {since}: look elsewhere with --since, such as --since 7d", err=True)
    elif as_json:
        for summary in found:
            click.echo(shapes.line(shapes.session_shape(summary)))
    else:
        print_table(console(table=True), COLUMNS, [_row(summary) for summary in found])
    return 0


def _row(summary: Summary) -> list[Text | str]:
    return [
        moment(summary.started_at),
        Text(one_line(summary.session_id), "bold"),
        one_line(summary.service or "-"),
        one_line(summary.variant or "-"),
        one_line(summary.user_id or "-"),
        span(summary.duration_ms),
        str(summary.turns),
        _count(summary.errors, "bold red"),
        _count(summary.interruptions, "yellow"),
        _count(summary.slow_turns, "yellow"),
        ms(summary.user_bot_latency_p50_ms),
        ms(summary.user_bot_latency_max_ms),
        usd(summary.cost_usd),
        _events(summary),
    ]


def _count(number: int, style: str) -> Text:
    return Text(str(number), style if number else "dim")


def _events(summary: Summary) -> Text:
    if summary.completeness == COMPLETE:
        return Text("complete", "green")
    if summary.completeness == MISSING:
        return Text(f"{summary.missing} missing", "bold red")
    return Text("no end yet", "yellow")
