"""`voicelog-sink tail`: live events from the broker."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter

import click

from voicelog.events import EVENT_TYPES, Event
from voicelog.settings import Settings
from voicelog_sink import logs, shapes
from voicelog_sink.given import checked_whole_ids
from voicelog_sink.options import BROKER_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.period import FORMS, maybe_since_option, since_ms
from voicelog_sink.render import console, count
from voicelog_sink.render_event import event_line
from voicelog_sink.signals import stop_on_signals
from voicelog_sink.tail import TailFilter
from voicelog_sink.tailing import Tail

SETTINGS = (*BROKER_SETTINGS, "start_timeout_ms", "log_format")

EXAMPLE = """\b
Examples:
  voicelog-sink tail
  voicelog-sink tail --session call-7f3a --since 5m
  voicelog-sink tail --errors --service front-desk
  voicelog-sink tail --stage llm --json | jq -r .response

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@click.option("--session", multiple=True, callback=checked_whole_ids, help="Only of this call; repeatable")
@click.option("--stage", multiple=True, help="Only of this stage: stt, llm, tts, ...; repeatable")
@click.option("--service", multiple=True, help="Only from this service; repeatable")
@click.option(
    "--type", "types", type=click.Choice(list(EVENT_TYPES)), multiple=True, help="Only of this type; repeatable"
)
@click.option("--errors", is_flag=True, help="Only errors, what ended with one, and logs from WARNING up")
@maybe_since_option(f"Begin with what came since: {FORMS}; without it, with what is yet to come")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line")
@with_settings(*SETTINGS)
def command(
    settings: Settings,
    session: tuple[str, ...],
    stage: tuple[str, ...],
    service: tuple[str, ...],
    types: tuple[str, ...],
    errors: bool,
    since: str | None,
    as_json: bool,
) -> int:
    """Show events as they come in, until Ctrl-C.

    It reads the topics and not the store, joins no consumer group and commits nothing. Events that come within half a
    second are put in order. Times are UTC.
    """
    logs.set_up(settings.log_format, logging.WARNING)
    wanted = TailFilter(frozenset(session), frozenset(stage), frozenset(service), frozenset(types), errors)
    at_ms = None if since is None else since_ms(since, int(time.time() * 1000))
    stopped = threading.Event()
    with Tail(settings, wanted, at_ms) as tail:
        starts = tail.starts()
        show = show_json if as_json else Printer()
        if sys.stderr.isatty():
            click.echo("waiting for events; Ctrl-C ends it", err=True)
        with stop_on_signals(stopped.set):
            for event in tail.events(starts, stopped.is_set):
                show(event)
    tell_unreadable(tail.unreadable)
    return 0


def show_json(event: Event) -> None:
    """Print an event as one line of JSON."""
    click.echo(shapes.line(shapes.event_shape(event)))


class Printer:
    """Prints events for people, a line each: cut to a terminal's width, whole in a pipe."""

    def __init__(self) -> None:
        """Take stdout."""
        self._out = console(table=True)

    def __call__(self, event: Event) -> None:
        """Print an event."""
        line = event_line(event, self._out.width if self._out.is_terminal else None)
        self._out.print(line, no_wrap=True, crop=False, overflow="ignore")


def tell_unreadable(found: Counter[str]) -> None:
    """Say on stderr how many messages were no events."""
    if found:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in found.most_common())
        click.echo(
            f"{count(found.total(), 'message')} left out, no events: {reasons}; `voicelog-sink dlq list` has what the "
            "sink made of them",
            err=True,
        )
