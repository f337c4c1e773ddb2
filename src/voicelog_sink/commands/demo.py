"""`voicelog-sink demo`: recorded calls through the embedded broker and the sink, and what is seen of them then."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence

import click

from voicelog.settings import Settings
from voicelog_sink import logs, shapes
from voicelog_sink.commands import sessions, show, stats
from voicelog_sink.commands.dev import outcome, tell
from voicelog_sink.daemon import Daemon
from voicelog_sink.demo import Played, anew, recorded, sent_us
from voicelog_sink.embedded import EmbeddedBroker, at_broker
from voicelog_sink.errors import Unfinished
from voicelog_sink.metrics import Metrics
from voicelog_sink.options import load_strictly
from voicelog_sink.player import Player
from voicelog_sink.reading import reading
from voicelog_sink.signals import stop_on_signals
from voicelog_sink.status import Status
from voicelog_sink.tables import VOICE_INTERACTIONS

STORE = "sqlite:///voicelog-demo.db"
FAST, REAL = "fast", "real"

EXAMPLE = """\b
Examples:
  voicelog-sink demo
  voicelog-sink demo --speed real --store sqlite:////tmp/calls.db
  voicelog-sink demo --json | jq .stored

"""


@click.command(epilog=EXAMPLE)
@click.option(
    "--store", default=STORE, show_default=True, metavar="URL",
    help="Where the calls are kept; VOICELOG_STORE does not count here, so that no demo gets among your calls",
)  # fmt: skip
@click.option(
    "--speed", type=click.Choice([FAST, REAL]), default=FAST, show_default=True,
    help="All at once as calls that have just ended, or as they come in",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object: store, sessions, produced, stored")
def command(store: str, speed: str, as_json: bool) -> int:
    """Play recorded calls through an embedded broker and the sink into a store, and show what was recorded.

    The calls are real ones of a voice bot whose models ran on a small machine: one by a human voice, one in which the
    caller interrupts, one with a tool that fails. Nothing is needed but this package, and no network. Each demo adds
    the calls under new ids. Exit status 1 where not every event that was produced is stored.
    """
    logs.set_up("text", logging.WARNING)
    settings = load_strictly({"store": store})
    played = play(settings, speed)
    if as_json:
        click.echo(shapes.line(shapes.played_shape(played)))
    elif played.sessions:  # Ctrl-C may come before the first event
        show_all(played)
    if played.stored != played.produced:
        message = f"{played.produced} events were produced and {played.stored} are stored: see what is said above"
        raise Unfinished(message)
    return 0


def play(settings: Settings, speed: str) -> Played:
    """Play the calls through a broker and a sink of their own; blocks until all that was sent is stored."""
    events, run = recorded(), secrets.token_hex(3)
    length_us = max(map(sent_us, events)) - min(event.ts for event in events)
    begin_us = time.time_ns() // 1000 - (length_us if speed == FAST else 0)
    calls = anew(events, begin_us, run)
    broker = EmbeddedBroker(settings.topic_prefix)
    daemon = Daemon(at_broker(settings, broker.address), Metrics(), Status())
    try:
        daemon.startup()
        tell(f"broker at {broker.address}, store {settings.store}: {len(calls)} events, {_takes(speed, length_us)}")
        player = Player(daemon.settings, [(event, sent_us(event) / 1e6) for event in calls])
        sink_all(daemon, player)
    finally:
        daemon.close()
    names = tuple(dict.fromkeys(str(event.session_id) for event in calls[: player.produced]))
    return Played(store=settings.store, sessions=names, produced=player.produced, stored=stored(settings, names))


def sink_all(daemon: Daemon, player: Player) -> None:
    """Store what the player sends, to its end or a signal's."""
    with stop_on_signals(daemon.stop):
        daemon.run(until=player.is_done)
        player.finish()
        daemon.catch_up()
        daemon.drain()
    tell(outcome(daemon.metrics))


def stored(settings: Settings, names: Sequence[str]) -> int:
    """Return how many events of these calls the store gives back."""
    partitions = [{"session_id": name} for name in names]
    with reading(settings) as store:
        return sum(1 for _ in store.tuples(VOICE_INTERACTIONS.name, ("seq",), partitions))


def show_all(played: Played) -> None:
    """Print the list of calls, one call, the percentiles, and how to see more."""
    store = ("--store", played.store)
    _run(sessions.command, "sessions", *store)
    _run(show.command, "show", played.sessions[-1], *store)
    _run(stats.command, "stats", *store)
    click.echo(f"\n{played.produced} events produced, {played.stored} stored. More of it:\n")
    for words in ("sessions --json", f"show {played.sessions[0]} --stacks", "stats --by variant"):
        click.echo(f"    voicelog-sink {words} --store {played.store}")
    click.echo("    voicelog-sink --help")


def _run(command: click.Command, *words: str) -> None:
    """Print a command as one would type it, and what it prints."""
    click.echo(f"\n$ voicelog-sink {' '.join(words)}\n")
    command.main(words[1:], prog_name=f"voicelog-sink {words[0]}", standalone_mode=False)


def _takes(speed: str, length_us: int) -> str:
    return "all at once" if speed == FAST else f"as they came in, for {length_us / 1e6:.0f} s"
