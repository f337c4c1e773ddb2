"""`voicelog-sink sessions`: the list of calls."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import click
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.cli import INTERRUPTED
from voicelog_sink.given import not_empty
from voicelog_sink.options import STORE_SETTINGS, FiniteRange, secrets_epilog, with_settings
from voicelog_sink.period import period_ms, since_option, told, until_option
from voicelog_sink.progress import progress
from voicelog_sink.queries import Page, Place, is_listed, sessions_page
from voicelog_sink.reading import reading
from voicelog_sink.render import Column, console, moment, ms, one_line, print_table, span, usd
from voicelog_sink.rows import DAY_MS
from voicelog_sink.signals import stop_on_signals
from voicelog_sink.summary import Summary
from voicelog_sink.tables import SESSION_SUMMARIES
from voicelog_sink.tally import COMPLETE, MISSING
from voicelog_sink.wanted import Wanted

SETTINGS = (*STORE_SETTINGS, "slow_turn_ms")
MOST_CALLS = 1_000_000
"""Summaries that are held in memory."""
BY_SETTING = object()
"""What `--slow` is without MS."""

EXAMPLE = """\b
Examples:
  voicelog-sink sessions
  voicelog-sink sessions --since 7d --limit 100
  voicelog-sink sessions --slow --failed --provider openai
  voicelog-sink sessions --user customer-81 --since 400d
  voicelog-sink sessions --since 7d --until 6d --text "sea view"
  voicelog-sink sessions --json | jq -r 'select(.errors > 0) | .session_id'

"""

SUMMARY_DAYS = SESSION_SUMMARIES.lifetime_days
"""How far back a person's calls are known."""

COLUMNS = (
    Column("started (UTC)", rank=1), Column("session"), Column("service", rank=11), Column("variant", rank=10),
    Column("user", rank=13), Column("length", right=True, rank=3), Column("turns", right=True, rank=6),
    Column("errors", right=True, rank=2), Column("cut in", right=True, rank=12), Column("slow", right=True, rank=8),
    Column("p50 ms", right=True, rank=4), Column("max ms", right=True, rank=7), Column("cost", right=True, rank=9),
    Column("events", rank=5),
)  # fmt: skip


NONE = "'' for calls"


class SlowMs(FiniteRange):
    """A length in milliseconds, or what the setting says."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the length, or BY_SETTING as it is."""
        return value if value is BY_SETTING else super().convert(value, param, ctx)


def checked_after(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the token; raises BadParameter for one that is none."""
    try:
        return value if value is None else Place.read(value).token
    except ValueError as exc:
        raise click.BadParameter(str(exc), context, parameter) from exc


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Wanted`."""
    options = (
        click.option("--service", help=f"Of this service; {NONE} without one"),
        click.option("--provider", help=f"With a stage of this provider; {NONE} without any"),
        click.option("--model", help=f"With a stage of this model; {NONE} without any"),
        click.option("--variant", help=f"Of this variant; {NONE} without one"),
        click.option(
            "--user",
            help="Of this person: the `user` of sessions, whole; found by an index, not by reading; "
            f"{NONE} without one, which are looked for among all",
        ),
        click.option(
            "--slow", "slow_ms", type=SlowMs(min=0), is_flag=False, flag_value=BY_SETTING, metavar="[MS]",
            help="With a turn of at least MS milliseconds; without MS of at least slow_turn_ms. The column slow stays "
            "as the sink counted",
        ),
        click.option("--failed", is_flag=True, help="With an error, or a stage that failed"),
        click.option("--interrupted", is_flag=True, help="With a turn in which the user spoke into the bot's speech"),
        click.option(
            "--text", callback=not_empty("text", "what was said, or no --text"),
            help="In which this was said; reads the events of every call that fits otherwise",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@since_option
@until_option
@filters
@click.option("--limit", type=click.IntRange(1, MOST_CALLS), default=20, show_default=True, help="Most calls to list")
@click.option("--after", callback=checked_after, metavar="CURSOR", help="Go on after this call's `cursor`")
@click.option(
    "--seconds", type=FiniteRange(min=0), help="Search for --text no longer than that, and say how far it came"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, each with its `cursor`")
@with_settings(*SETTINGS)
def command(
    settings: Settings,
    since: str,
    until: str | None,
    limit: int,
    after: str | None,
    seconds: float | None,
    as_json: bool,
    **given: Any,
) -> int:
    """List the calls, newest first: how long, how slow, what went wrong, what it cost.

    p50 and max are of user_bot_latency_ms, over the turns whose quality is ok; a slow turn took the sink's slow_turn_ms
    or more; in "cut in" turns the user spoke into the bot's speech. A call shows up a minute after it began.

    Filters are joined: a call is listed when each of them holds; an empty name is for calls without one. --text looks,
    whatever the case, in what was heard, answered, spoken and logged, in error messages, and in the call's id, user,
    end and attributes. Ctrl-C ends such a search with what it has found, and says how to go on.
    """
    if seconds is not None and not given["text"]:
        message = f"--seconds {seconds:g} is for a search that may take long: expected --text with it"
        raise click.UsageError(message)
    if given["slow_ms"] is BY_SETTING:
        given["slow_ms"] = float(settings.slow_turn_ms)
    wanted = Wanted(**given)
    since_ms, until_ms = period_ms(since, until, int(time.time() * 1000), DAY_MS)
    search = Search(since_ms, until_ms, math.inf if seconds is None else seconds)
    with reading(settings) as store, search.begun() if wanted.text else nullcontext():
        page = sessions_page(store, since_ms, until_ms, limit, wanted, after, search.go_on)
        is_known = bool(page.calls) or after is None or is_listed(store, after)
    _print(page, as_json)
    if page.after and page.searched_to is not None:
        click.echo(_stopped(page.after, page.searched_to), err=True)
    elif not page.calls:
        period = told(since, until)
        click.echo(_nothing(period, wanted) if after is None else _end(period, after, is_known), err=True)
    elif page.after and not as_json:
        click.echo(f"there are more: go on with --after {shlex.quote(page.after)}, or take a higher --limit", err=True)
    return INTERRUPTED if search.is_interrupted else 0


class Search:
    """A search through texts, which ends when its time is over or a signal comes; on a terminal it draws a bar."""

    def __init__(self, since_ms: int, until_ms: int, seconds: float) -> None:
        """Search back from the one moment to the other."""
        self._length_ms, self._reached_ms = until_ms - since_ms, until_ms
        self._end_s = time.monotonic() + seconds
        self._tell: Callable[..., object] = lambda _: None
        self.is_interrupted = False

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Draw the bar, and let the first signal end the search, a second one the process."""
        with progress("searching", self._length_ms) as self._tell, stop_on_signals(self._interrupt):
            yield

    def _interrupt(self) -> None:
        self.is_interrupted = True

    def go_on(self, place: Place) -> bool:
        """Say whether to search on from this place."""
        self._tell(self._reached_ms - place.started_at)
        self._reached_ms = place.started_at
        return not self.is_interrupted and time.monotonic() < self._end_s


def _print(page: Page, as_json: bool) -> None:
    if as_json:
        for summary in page.calls:
            click.echo(shapes.line(shapes.listed_shape(summary)))
    elif page.calls:
        print_table(console(table=True), COLUMNS, [_row(summary) for summary in page.calls])


def _stopped(after: str, searched_to: int) -> str:
    return f"searched back to {moment(searched_to)} UTC and no further: go on with --after {shlex.quote(after)}"


def _end(period: str, after: str, is_known: bool) -> str:
    sentence = f"no more calls {period}: the list ends here"
    return sentence if is_known else f"{sentence}; at {after!r} itself is no call: it was erased, or never there"


def _nothing(period: str, wanted: Wanted) -> str:
    nothing = f"no calls {period}" + ("" if wanted == Wanted() else " for which all of that holds")
    all_days = f"{SUMMARY_DAYS}d"
    if wanted.user and period == told(all_days, None):
        return f"{nothing}: that is as far back as calls are known"
    further = "7d" if not wanted.user else f"{all_days}, which takes no longer"
    return f"{nothing}: look elsewhere with --since, such as --since {further}"


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
