"""`voicelog-sink dev`: broker, sink and store in one process, for one machine with nothing but pip."""

from __future__ import annotations

import logging
import sys

import click

from voicelog.errors import REASONS
from voicelog.settings import Settings
from voicelog_sink import logs
from voicelog_sink.child import NOT_FOUND, Child, unrunnable
from voicelog_sink.daemon import Daemon
from voicelog_sink.embedded import EmbeddedBroker, at_broker
from voicelog_sink.http import application, serving
from voicelog_sink.metrics import Metrics
from voicelog_sink.options import LOOP_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.signals import stop_on_signals
from voicelog_sink.status import Status

log = logging.getLogger(__name__)

SETTINGS = (*STORE_SETTINGS, "topic_prefix", *LOOP_SETTINGS, "kafka_config")

EXAMPLE = """\b
Examples:
  voicelog-sink dev -- python bot.py
  voicelog-sink dev --store sqlite:///calls.db

"""


@click.command(
    epilog=EXAMPLE + secrets_epilog(*SETTINGS),
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.argument("command_line", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@with_settings(*SETTINGS)
def command(settings: Settings, command_line: tuple[str, ...]) -> int:
    """Run an embedded broker, the sink and a store in one process, and COMMAND with VOICELOG_BROKERS set to it.

    When COMMAND ends, everything that it sent is stored first; then dev ends with COMMAND's exit status. Without
    COMMAND it runs until Ctrl-C; where there is no such program, nothing is started, and the status is 127. The broker
    keeps about 5 MB a partition in memory: for development, not for keeping.
    """
    if command_line and (why := unrunnable(command_line[0])):
        tell(why)
        return NOT_FOUND
    logs.set_up(settings.log_format, logging.WARNING)
    broker = EmbeddedBroker(settings.topic_prefix)
    metrics, status = Metrics(), Status()
    with serving(application(status, metrics), settings.http, or_free=True) as url:
        daemon = Daemon(at_broker(settings, broker.address), metrics, status)
        try:
            daemon.startup()
            daemon.deriver.adopt(daemon.keeper.now_ms(), everything=True)
            tell(f"broker at {broker.address} (VOICELOG_BROKERS={broker.address}), store {settings.store}")
            tell(f"metrics at {url}/metrics" if url else "no HTTP")
            return work(daemon, command_line)
        finally:
            daemon.close()


NOTHING_STORED = "stored 0 events"


def work(daemon: Daemon, command_line: tuple[str, ...]) -> int:
    """Store what arrives until the command ends or a signal comes, and then the rest; return the exit status."""
    child = Child(command_line, for_command(daemon.settings)) if command_line else None
    with stop_on_signals(daemon.stop, force=child.kill if child else None):
        try:
            daemon.run(until=child.has_ended if child else lambda: False)
        finally:
            if child and not child.has_ended():
                child.stop()
        daemon.catch_up()
        daemon.drain()
    told = outcome(daemon.metrics)
    tell(f"{told}: does COMMAND call voicelog.configure()?" if child and told == NOTHING_STORED else told)
    return child.status() if child else 0


def for_command(settings: Settings) -> dict[str, str]:
    """Return what COMMAND's environment needs to reach the embedded broker."""
    return {
        "VOICELOG_BROKERS": settings.brokers,
        "VOICELOG_TOPIC_PREFIX": settings.topic_prefix,
        "VOICELOG_SECURITY_PROTOCOL": settings.security_protocol,
    }


def outcome(metrics: Metrics) -> str:
    """Return what became of the events, dead letters by their reason, since those end with the broker."""
    dead = {reason: int(metrics.value("dlq_produced_total", reason=reason)) for reason in REASONS}
    told = "".join(f"; {count} not stored: {REASONS[reason]} ({reason})" for reason, count in dead.items() if count)
    return f"stored {int(metrics.value('events_stored_total'))} events{told}"


def tell(sentence: str) -> None:
    """Say something to the person at the terminal, apart from what COMMAND prints to stdout."""
    print(f"voicelog-sink: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
