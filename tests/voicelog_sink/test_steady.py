"""The steady clock: begins with the wall's time, and follows no jump of it."""

from __future__ import annotations

from voicelog_sink.steady import steady_clock


def test_wall_clock_that_jumps_is_not_followed() -> None:
    now = {"wall": 1_790_000_000.5, "monotonic": 77.25}
    clock = steady_clock(lambda: now["wall"], lambda: now["monotonic"])
    assert clock() == 1_790_000_000_500
    now |= {"wall": now["wall"] + 6 * 3600, "monotonic": now["monotonic"] + 1.5}
    assert clock() == 1_790_000_002_000
    now |= {"wall": 0.0, "monotonic": now["monotonic"] + 60}
    assert clock() == 1_790_000_062_000
