"""A database that stands still, dies, is slow or refuses rows: the daemon waits, and loses nothing."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.calls import a_call
from tests.chaos.audit import audit, wait_until_done
from tests.chaos.daemons import OffsetWatch, conditions, daemon
from tests.chaos.load import Sent, fleet, sent
from tests.chaos.proxy import Proxy
from tests.chaos.truth import Truth, produced, producing
from tests.real.sinks import Place
from tests.running import RunningSink, message_of, wait_until
from tests.servers import CassandraServer

from voicelog.events import SttResult

pytestmark = [pytest.mark.real, pytest.mark.chaos, pytest.mark.timeout(600)]


def misses_its_store(running: RunningSink) -> None:
    """Wait until the daemon says so, as a living process that keeps its offsets."""
    wait_until(lambda: conditions(running).get("store_up") is False, "the daemon misses its store", every_s=0.2)
    assert running.process.poll() is None


def test_database_that_is_frozen_and_then_stutters(
    fragile: Place, cassandra: CassandraServer, random: Random, tmp_path: Path
) -> None:
    messages = sent(fleet(random, 150))
    with daemon(fragile, tmp_path / "log") as running, OffsetWatch(fragile):
        running.wait_for("assigned: ")
        with producing(tmp_path, fragile, messages, 250) as producer:
            cassandra.pause()
            misses_its_store(running)
            cassandra.resume()
            while producer.running():
                cassandra.pause()
                pause(random)
                cassandra.resume()
                pause(random)
            truth = Truth(messages, producer.acks())
        wait_until_done(fragile)
        audit(fragile, truth)
        assert running.stop() == 0


def test_database_that_is_killed_and_comes_back(
    fragile: Place, cassandra: CassandraServer, random: Random, tmp_path: Path
) -> None:
    messages = sent(fleet(random, 150))
    with daemon(fragile, tmp_path / "log") as running, OffsetWatch(fragile):
        running.wait_for("assigned: ")
        with producing(tmp_path, fragile, messages, 200) as producer:
            for _ in range(2):
                wait_until(lambda: store_is_up(running), "the daemon has its store", every_s=0.2)
                cassandra.kill()
                misses_its_store(running)
                cassandra.start()
            truth = Truth(messages, producer.acks())
        wait_until_done(fragile)
        audit(fragile, truth)
        assert running.stop() == 0


def test_database_that_is_slow_and_then_stands_still_until_its_connections_break(
    fragile: Place, cassandra: CassandraServer, random: Random, tmp_path: Path
) -> None:
    messages = sent(fleet(random, 100))
    with Proxy(cassandra.contact_point[1]) as proxy:
        behind = attrs.evolve(fragile, store=fragile.store.replace(str(proxy.target), str(proxy.port)))
        with daemon(behind, tmp_path / "log") as running, OffsetWatch(fragile):
            running.wait_for("assigned: ")
            proxy.slow(0.1, 400_000)
            truth = produced(tmp_path, fragile, messages[: len(messages) // 2])
            wait_until_done(fragile)
            proxy.hold()
            truth += produced(tmp_path, fragile, messages[len(messages) // 2 :])
            misses_its_store(running)
            proxy.cut()
            wait_until_done(fragile)
            audit(fragile, truth)
            assert running.stop() == 0


def test_rows_that_the_database_refuses_are_dead_lettered_and_their_neighbours_stored(
    fragile: Place, random: Random, tmp_path: Path
) -> None:
    """An operator allows messages that are larger than what the database takes in one mutation."""
    messages = sent(fleet(random, 30))
    for number in range(6):
        good = a_call(f"large-{number}", 20)
        messages += sent(good)
        large = SttResult(
            session_id=f"large-{number}", stream_id=f"st-large-{number}", seq=100, ts=good[0].ts + 99_000, stage="stt",
            transcript="um, " * 1_250_000,
        )  # fmt: skip
        messages.append(Sent(message_of(large), "store_rejected", large))
    random.shuffle(messages)
    truth = produced(tmp_path, fragile, messages)
    with daemon(fragile, tmp_path / "log", max_message_bytes=8_000_000) as running:
        wait_until_done(fragile)
        assert audit(fragile, truth).dead == 6
        assert running.stop() == 0


def store_is_up(running: RunningSink) -> bool:
    """Return whether the daemon has its store."""
    return conditions(running).get("store_up") is True


def pause(random: Random) -> None:
    """Let a moment of chance pass: the stutter is the point."""
    time.sleep(random.uniform(0.1, 0.6))
