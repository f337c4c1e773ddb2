"""Daemons that join, leave, die and come back from the dead share the work and never undo each other's."""

from __future__ import annotations

import os
import select
import signal
from contextlib import ExitStack
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.chaos.audit import audit, is_done, wait_until_done
from tests.chaos.daemons import OffsetWatch, conditions, daemon
from tests.chaos.load import Sent, fleet, sent
from tests.chaos.proxy import Proxy
from tests.chaos.truth import Truth, produced, producing
from tests.real.sinks import Place
from tests.running import Raw, RunningSink, wait_until
from tests.servers import CassandraServer

pytestmark = [pytest.mark.real, pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.mark.parametrize("place", ["cql"], indirect=True)
def test_three_daemons_join_and_leave_during_load(place: Place, random: Random, tmp_path: Path) -> None:
    messages = [*sent(fleet(random, 400)), *(Sent(Raw("llm-requests", b"{%d" % n), "not_json") for n in range(60))]
    random.shuffle(messages)
    with ExitStack() as stack, producing(tmp_path, place, messages, len(messages) / 40) as producer:
        stack.enter_context(OffsetWatch(place))
        there = [stack.enter_context(daemon(place, tmp_path / f"log{n}")) for n in range(3)]
        number = len(there)
        while producer.running() and number < 12:
            leaving = there.pop(random.randrange(3))
            leaving.wait_for("assigned: ")
            if random.random() < 0.5:
                assert leaving.stop() == 0, leaving.output()
            else:
                leaving.stop(signal.SIGKILL)
            there.append(stack.enter_context(daemon(place, tmp_path / f"log{number}")))
            number += 1
        truth = Truth(messages, producer.acks())
        wait_until_done(place)
        audit(place, truth)
        assert [one.stop() for one in there] == [0, 0, 0]


@pytest.mark.parametrize("place", ["cql"], indirect=True)
def test_workers_are_killed_during_load_and_end_with_their_daemon(place: Place, random: Random, tmp_path: Path) -> None:
    """A worker that dies is started anew; a daemon that is killed takes its workers with it, and another goes on."""
    messages = sent(fleet(random, 250))
    with producing(tmp_path, place, messages, len(messages) / 25) as producer, OffsetWatch(place):
        with daemon(place, tmp_path / "log-killed", workers=2) as running:
            running.wait_for("assigned: ")
            for _ in range(3):
                killed = random.choice(workers_of(running))
                os.kill(killed, signal.SIGKILL)
                told = "two workers run, another one for the one that was killed"
                wait_until(lambda: len(there := workers_of(running)) == 2 and killed not in there, told)  # noqa: B023
            orphans = [os.pidfd_open(pid) for pid in workers_of(running)]
            running.stop(signal.SIGKILL)
            wait_until(lambda: len(select.select(orphans, [], [], 0)[0]) == 2, "the workers have ended")
            for orphan in orphans:
                os.close(orphan)
        with daemon(place, tmp_path / "log", workers=2) as running:
            truth = Truth(messages, producer.acks())
            wait_until_done(place)
            audit(place, truth)
            assert running.stop() == 0, running.output()


def workers_of(running: RunningSink) -> list[int]:
    """Return the processes that a daemon has started and that live."""
    pid = running.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if _lives(child)]


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it has ended since its parent was asked for it
        return False


def test_daemon_that_was_stopped_past_its_session_commits_nothing_that_it_lost(
    fragile: Place, cassandra: CassandraServer, random: Random, tmp_path: Path
) -> None:
    """It holds a batch, sleeps, loses its partitions to another one that finishes them, and wakes up."""
    first, second = sent(fleet(random, 60)), sent(fleet(random, 60, "later"))
    with Proxy(cassandra.contact_point[1]) as proxy, OffsetWatch(fragile):
        behind = attrs.evolve(fragile, store=fragile.store.replace(str(proxy.target), str(proxy.port)))
        with daemon(behind, tmp_path / "log-zombie") as zombie:
            zombie.wait_for("assigned: ")
            proxy.hold()
            truth = produced(tmp_path, fragile, first)
            wait_until(lambda: conditions(zombie).get("store_up") is False, "the zombie holds a batch")
            os.kill(zombie.process.pid, signal.SIGSTOP)
            with daemon(fragile, tmp_path / "log-heir") as heir:
                heir.wait_for("assigned: ")
                wait_until_done(fragile)
                os.kill(zombie.process.pid, signal.SIGCONT)
                wait_until(lambda: was_given_work_again(zombie), "the zombie has partitions of its own again")
                proxy.pass_on()  # now the old batch is stored, long after another one has stored and committed it
                wait_until(lambda: conditions(zombie).get("store_up"), "the zombie has stored its batch")
                truth += produced(tmp_path, fragile, second)
                wait_until_done(fragile)
                audit(fragile, truth)
                assert [zombie.stop(), heir.stop()] == [0, 0]
    assert is_done(fragile)


def was_given_work_again(zombie: RunningSink) -> bool:
    """Return whether the one that came back has learned what it lost, and owns something since."""
    _, lost, since = zombie.output().partition("lost to another member")
    return bool(lost) and "assigned: t" in since
