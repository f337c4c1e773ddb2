"""`voicelog-sink run`: the daemon."""

from __future__ import annotations

import gc
import logging

import click

from voicelog.settings import Settings
from voicelog_sink import logs
from voicelog_sink.daemon import Daemon
from voicelog_sink.http import application, serving
from voicelog_sink.metrics import Metrics
from voicelog_sink.options import BROKER_SETTINGS, LOOP_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.signals import stop_on_signals
from voicelog_sink.status import Status
from voicelog_sink.workers import Workers

log = logging.getLogger(__name__)

COLLECT_AFTER = (20_000, 5, 10)
"""Objects made before Python looks for garbage in cycles, and how often before it looks at older ones: a batch makes
about as many, and what is on its way to a CQL store is in cycles, whole rows with it, so the second is low.
"""

SETTINGS = (*BROKER_SETTINGS, *STORE_SETTINGS, *LOOP_SETTINGS, "workers")

EXAMPLE = """\b
Example:
  voicelog-sink run --brokers redpanda:9092 --store "scylla://scylla:9042/voice_ai_ks?local_dc=dc1"

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@with_settings(*SETTINGS)
def command(settings: Settings) -> int:
    """Drain the topics into the store, until SIGTERM or Ctrl-C; any number of replicas share the work.

    An offset is committed only after all before it is stored or in the dead letters. /health, /ready and /metrics are
    at --http.
    """
    logs.set_up(settings.log_format)
    if settings.workers > 1:
        return supervise(Workers(settings))
    metrics, status = Metrics(), Status()
    with serving(application(status, metrics), settings.http) as url:
        if url:
            log.info("serving %s/health, %s/ready, %s/metrics", url, url, url)
        serve(Daemon(settings, metrics, status))
    return 0


def supervise(workers: Workers) -> int:
    """Run the workers to their end; return the exit status."""
    try:
        with stop_on_signals(workers.stop, force=workers.force):
            return workers.run()
    finally:
        workers.close()


def serve(daemon: Daemon) -> None:
    """Run the daemon to its end. Raises Unfinished for what could not be stored in time, which stays in the topics."""
    try:
        daemon.startup()
        spare_collector()
        with stop_on_signals(daemon.stop):
            daemon.run()
            daemon.drain()
    finally:
        daemon.close()
    log.info("stopped")


def spare_collector() -> None:
    """Make Python look through rows and messages for cycles less often, and through what is there by now never again.

    That is a seventh of the sink's CPU with Python's own thresholds (docs/explanation/sink-cost.md). For a process that
    is the sink's alone.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
