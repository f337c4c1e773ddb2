"""Clocks that are wrong: the bots' for hours, the daemon's in jumps."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.chaos.audit import audit, wait_until_done
from tests.chaos.daemons import daemon
from tests.chaos.load import fleet, sent
from tests.chaos.truth import produced
from tests.real.sinks import Place

from voicelog.events import Event

pytestmark = [pytest.mark.real, pytest.mark.chaos, pytest.mark.timeout(400)]

HOUR_US = 3_600_000_000


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


@pytest.mark.parametrize("hours", ["+6", "-6"])
def test_daemons_clock_that_jumps_and_jumps_back(
    place: Place, hours: str, random: Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every offset is committed and every summary there in its minute by the clock on the wall."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    for name, value in faked_by(clock).items():
        monkeypatch.setenv(name, value)
    with daemon(place, tmp_path / "log") as running:
        for name in faked_by(clock):
            monkeypatch.delenv(name)
        running.wait_for("assigned: ")
        truth = produced(tmp_path, place, sent(fleet(random, 30, "before")))
        clock.write_text(f"{hours}h\n")
        truth += produced(tmp_path, place, sent(fleet(random, 30, "meanwhile")))
        wait_until_done(place)
        clock.write_text("+0\n")
        truth += produced(tmp_path, place, sent(fleet(random, 30, "after")))
        wait_until_done(place)
        audit(place, truth)
        assert running.stop() == 0


def faked_by(clock: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock is off by what the file says; its other clocks are right."""
    found = find_spec("libfaketime")
    if found is None or found.origin is None or sys.platform != "linux":
        pytest.skip("libfaketime is not there: pip install 'voicelog[test]', on Linux (x86-64)")
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }  # fmt: skip
