"""Switching on and off: configure, flush, shutdown, stats."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from typing import Any

from voicelog.background import Background
from voicelog.client import Client, state
from voicelog.counters import Counters, logger
from voicelog.kafka import sentence_of
from voicelog.prices import with_prices
from voicelog.producer import KafkaProducer
from voicelog.session import open_sessions, those_open
from voicelog.settings import Settings, load, refuse_the_sinks
from voicelog.spool import SpoolProducer
from voicelog.stage import HotStage, Stage

FORK_WAIT_S = 1.0
"""How long a fork waits for events of the first seconds to get away."""

_lock = threading.Lock()
_hooks: set[str] = set()


def configure(**settings: Any) -> None:
    """Switch voicelog on: `configure(brokers="redpanda:9092", service="front-desk")`, or VOICELOG_* in the environment.

    Settings are listed in docs/reference/settings.md. The same settings again change nothing; other ones take the
    place of the first, whose unsent events are waited for as in shutdown(). Does not wait for the broker. Raises
    ConfigError for a wrong name or value given here; what is wrong in the environment, or refused by librdkafka, is
    said in a warning, and the program runs on. Within voicelog.testing.capture() it only checks the settings.
    """
    refuse_the_sinks(settings)
    loaded, problems = with_prices(*load(settings), in_code=settings.get("prices") is not None)
    with _lock:
        before = state.current
        if before is not None and (before.captures or (before.settings == loaded and not before.closed)):
            return
        for problem in problems:
            logger.warning("voicelog: %s", problem.told())
        state.current = _start(loaded) if loaded.enabled else None
        _install_hooks()
    if before is not None:
        _stop(before, before.settings.flush_timeout_ms / 1000)


def _start(settings: Settings) -> Client | None:
    counters = Counters()
    try:
        producer = SpoolProducer if settings.spool_dir else KafkaProducer
        client = Client(settings, producer(settings, counters), counters)
    except Exception as exc:  # librdkafka refuses a setting: the program must run on without voicelog
        said = sentence_of(exc)
        logger.warning("voicelog: off, librdkafka refuses the settings: %s. Check brokers, TLS and kafka_config.", said)
        return None
    client.background = Background(client, open_sessions)
    client.watcher = client.background.watcher
    return client


def _install_hooks() -> None:
    if not _hooks:
        _hooks.add("exit")
        atexit.register(_at_exit)
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
        _follow_multiprocessing()


def _follow_multiprocessing(_: Any = None) -> None:
    """Flush at the end of a multiprocessing child too: it leaves without running what atexit knows."""
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        return
    if "multiprocessing" not in _hooks:
        _hooks.add("multiprocessing")  # a child forgets the finalisers it has, and then calls this
        util.register_after_fork(_after_fork, _follow_multiprocessing)
    if sys.modules["multiprocessing.process"].parent_process() is not None:
        util.Finalize(None, _at_exit, exitpriority=0)


def _at_exit() -> None:
    client = state.current
    if client is None or client.closed:
        return
    for session in those_open():
        try:
            session.end_at_exit()
        except Exception as exc:
            client.fault("exit", exc)
    shutdown()


def _before_fork() -> None:
    client = state.current
    _fork.safe = True
    if client is not None and isinstance(client.producer, (KafkaProducer, SpoolProducer)) and not client.closed:
        _fork.safe = client.producer.rest(FORK_WAIT_S)


def _after_fork_in_parent() -> None:
    client = state.current
    if client is not None and isinstance(client.producer, (KafkaProducer, SpoolProducer)):
        client.producer.wake()


def _after_fork() -> None:
    """Give the child a client and streams of its own; the parent's threads are not here, and its queue is not ours."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held the old one
    client = state.current
    if client is None or client.captures or client.closed:
        return
    _fork.inherited.append(client)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client.producer))  # never ended here: its threads are the parent's
    client.closed = True
    if isinstance(client.producer, SpoolProducer):
        client.producer.let_go()
    state.current = _start(client.settings) if _fork.safe else None
    if state.current is None:
        logger.warning(
            "voicelog: off in this forked process: the parent had just begun to send, and its events did not get away "
            "in %.1f s. Fork before the first session, or start processes with spawn.", FORK_WAIT_S,
        )  # fmt: skip
        return
    for session in those_open():
        session.renew_stream(state.current)
    _follow_multiprocessing()


class _Fork:
    """What the hooks around a fork tell each other."""

    def __init__(self) -> None:
        self.safe = True
        self.inherited: list[Client] = []


_fork = _Fork()


def flush(timeout: float = 5.0) -> int:
    """Wait up to `timeout` seconds for the broker's acknowledgements; return how many events still wait."""
    client = state.current
    return client.producer.flush(timeout) if client is not None else 0


def shutdown(timeout: float | None = None) -> int:
    """Flush for up to `timeout` seconds (flush_timeout_ms by default) and switch off; return how many events were left.

    Events after it are dropped and counted as `closed`, until `configure` is called again. Called at exit by itself.
    """
    client = state.current
    if client is None:
        return 0
    return _stop(client, client.settings.flush_timeout_ms / 1000 if timeout is None else timeout)


def _stop(client: Client, timeout_s: float) -> int:
    client.closed = True
    if client.background is not None:
        client.background.close()
    left = client.producer.close(timeout_s)
    if left:
        client.counters.say(client.producer.loss(left, timeout_s))
    return left


def stats() -> dict[str, Any]:
    """Return what was counted since configure(): the rows of voicelog.counters.COUNTERS, delivered and queued.

    produced = delivered + queued + the sum of failed. All zero when voicelog is off. A forked child counts its own.
    `accelerated` says whether stages run in C, as they do where the extension was built.
    """
    client = state.current
    counters = client.counters if client is not None else Counters()
    counts = counters.snapshot()
    taken = counts["produced"] - sum(counts["failed"].values())
    queued = min(taken, client.producer.queued()) if client is not None else 0
    now = {"delivered": taken - queued, "queued": queued, "accelerated": HotStage is not Stage}
    return {"enabled": client is not None, **counts, **now}
