"""A disk that is full under SQLite: the daemon waits until there is room, and loses nothing."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.chaos.audit import audit, wait_until_done
from tests.chaos.daemons import conditions, daemon
from tests.chaos.load import fleet, sent
from tests.chaos.truth import produced
from tests.real.sinks import Place
from tests.running import RunningSink, committed, ends, wait_until

pytestmark = [pytest.mark.real, pytest.mark.chaos, pytest.mark.timeout(300)]


def test_file_that_may_not_grow(sqlite_place: Place, random: Random, tmp_path: Path) -> None:
    """The process's own limit stands for a quota."""
    place = sqlite_place
    with daemon(place, tmp_path / "log") as running:
        running.wait_for("assigned: ")
        no_limit = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (1_500_000, no_limit[1]))
        truth = produced(tmp_path, place, sent(fleet(random, 200)))
        waits_for_room(running, place)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, no_limit)
        wait_until_done(place)
        audit(place, truth)
        assert running.stop() == 0


def test_file_system_without_room(sqlite_place: Place, random: Random, tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", "3m") as disk:
        place = attrs.evolve(sqlite_place, store=f"sqlite:///{disk}/calls.db")
        with daemon(place, tmp_path / "log") as running:
            running.wait_for("assigned: ")
            truth = produced(tmp_path, place, sent(fleet(random, 200)))
            waits_for_room(running, place)
            subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
            wait_until_done(place)
            audit(place, truth)
            assert running.stop() == 0


def waits_for_room(running: RunningSink, place: Place) -> None:
    """See that the daemon goes on living, has stored a part, and holds the rest."""
    wait_until(lambda: conditions(running).get("store_up") is False, "the daemon misses its store", every_s=0.2)
    assert running.process.poll() is None
    assert committed(place.brokers, place.group, place.topics()) != ends(place.brokers, place.topics())


@contextmanager
def small_file_system(at: Path, size: str) -> Iterator[Path]:
    """Mount one for the length of the block; skips the test where that is not allowed."""
    at.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system can't be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)
