"""Clocks that are wrong: the bots' for hours, the daemon's in jumps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.chaos.audit import audit, wait_until_done
from tests.chaos.daemons import daemon
from tests.chaos.load import fleet, sent
from tests.chaos.truth import produced
from tests.real.sinks import Place
from tests.running import RunningSink

from voicelog.events import Event

pytestmark = [pytest.mark.real, pytest.mark.chaos, pytest.mark.timeout(400)]

HOUR_US = 3_600_000_000
CLOCK = """
import pathlib, time
path, real = pathlib.Path({path!r}), time.time

def shifted():
    return real() + float(path.read_text() or 0)

time.time, time.time_ns = shifted, lambda: int(shifted() * 1e9)
"""
"""Shifts the wall clock of Python's code, and no other: a library that fakes it for the whole process lets librdkafka's
waits, which are by the wall clock, never end.
"""


def test_events_whose_clocks_are_hours_off(place: Place, random: Random, tmp_path: Path) -> None:
    """Each stream of a call may have another clock, and a clock may jump within one."""
    events = fleet(random, 150)
    hours = {event.stream_id: random.choice([0, -30, -5, -1, 1, 6, 30, 24 * 40]) for event in events}
    shifted = [moved(event, hours[event.stream_id] + random.choice([0, 0, 0, 0, 2])) for event in events]
    truth = produced(tmp_path, place, sent(shifted))
    with daemon(place, tmp_path / "log") as running:
        wait_until_done(place)
        audit(place, truth)
        assert running.stop() == 0


def moved(event: Event, hours: int) -> Event:
    return attrs.evolve(event, ts=event.ts + hours * HOUR_US)


@pytest.mark.parametrize("hours", [6, -6])
def test_daemons_clock_that_jumps_and_jumps_back(
    place: Place, hours: int, random: Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every offset is committed and every summary there in its minute by the clock on the wall."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(path=str(clock)))
    with monkeypatch.context() as patched, daemon_under(patched, place, tmp_path) as running:
        running.wait_for("assigned: ")
        truth = produced(tmp_path, place, sent(fleet(random, 30, "before")))
        clock.write_text(str(hours * 3600))
        truth += produced(tmp_path, place, sent(fleet(random, 30, "meanwhile")))
        wait_until_done(place)
        clock.write_text("0")
        truth += produced(tmp_path, place, sent(fleet(random, 30, "after")))
        wait_until_done(place)
        audit(place, truth)
        assert running.stop() == 0


@contextmanager
def daemon_under(patched: pytest.MonkeyPatch, place: Place, folder: Path) -> Iterator[RunningSink]:
    """Run a daemon that imports the sitecustomize.py in the folder; nothing else does."""
    patched.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    with daemon(place, folder / "log") as running:
        patched.undo()
        yield running
