"""Waits between tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.backoff import CAP_S, FIRST_S, Backoff


def test_waits_double_up_to_the_cap() -> None:
    backoff = Backoff(chance=lambda: 0.0)
    assert [backoff.next_s() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_no_wait_is_longer_than_the_cap_or_shorter_than_half_the_first(chances: list[float]) -> None:
    left = iter(chances)
    backoff = Backoff(chance=lambda: next(left))
    assert all(FIRST_S / 2 <= backoff.next_s() <= CAP_S for _ in chances)
