"""kill -9, whenever and wherever: what was in the dead daemon's hands is stored by the next one, once."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.chaos.audit import PROMISED_S, audit, wait_until_done
from tests.chaos.daemons import OffsetWatch, conditions, daemon
from tests.chaos.load import fleet, sent
from tests.chaos.proxy import Proxy
from tests.chaos.truth import Truth, produced, producing
from tests.real.sinks import Place
from tests.running import RunningSink, committed, wait_until
from tests.servers import CassandraServer

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("place", "kills"),
    [
        pytest.param("cql", 3, id="cql-3"),
        pytest.param("cql", 10, id="cql-10", marks=pytest.mark.chaos),
        pytest.param("sqlite", 10, id="sqlite-10", marks=pytest.mark.chaos),
    ],
    indirect=["place"],
)
@pytest.mark.timeout(600)
def test_killed_at_random_moments(place: Place, kills: int, random: Random, tmp_path: Path) -> None:
    messages = sent(fleet(random, 40 * kills))
    with (
        producing(tmp_path, place, messages, len(messages) / (3.0 * kills)) as producer,
        OffsetWatch(place),
    ):
        for number in range(kills):
            with daemon(place, tmp_path / f"log{number}", batch_max_events=100) as running:
                kill_some_time(running, random)
        with daemon(place, tmp_path / "log") as running:
            truth = Truth(messages, producer.acks())
            wait_until_done(place)
            audit(place, truth, PROMISED_S if kills == 10 else None)  # a short run has no time for another's work
            assert running.stop() == 0


def kill_some_time(running: RunningSink, random: Random) -> None:
    """Kill the daemon at a random moment: while it starts, or in the midst of its work."""
    if random.random() < 0.8:
        running.wait_for("assigned: ")
    with suppress(subprocess.TimeoutExpired):
        running.process.wait(random.uniform(0.0, 2.0))  # where in its work it dies is the point
    assert running.process.poll() is None, running.output()
    assert running.stop(signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.chaos
def test_killed_with_a_batch_on_its_way_to_a_database_that_stands_still(
    fragile: Place, cassandra: CassandraServer, random: Random, tmp_path: Path
) -> None:
    with Proxy(cassandra.contact_point[1]) as proxy:
        behind = attrs.evolve(fragile, store=fragile.store.replace(str(proxy.target), str(proxy.port)))
        with daemon(behind, tmp_path / "log-dying") as running:
            running.wait_for("assigned: ")
            proxy.hold()
            truth = produced(tmp_path, fragile, sent(fleet(random, 60)))
            wait_until(lambda: conditions(running).get("store_up") is False, "the daemon misses its store")
            assert committed(fragile.brokers, fragile.group, fragile.topics()) == {}
            running.stop(signal.SIGKILL)
    with daemon(fragile, tmp_path / "log") as running:
        wait_until_done(fragile)
        audit(fragile, truth)
        assert running.stop() == 0
