"""The linger: within its bounds whatever happens, short when idle, long and wide when the writer is behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.linger import LEAST, LONGEST_S, Linger, Take

histories = st.lists(st.tuples(st.integers(0, 20_000), st.booleans()), max_size=60)


def after(history: list[tuple[int, bool]], most: int = 5_000, shortest_s: float = 0.05) -> Linger:
    linger = Linger(most, shortest_s)
    for taken, behind in history:
        linger.note(taken, behind)
    return linger


@given(histories, st.integers(1, 20_000), st.floats(0.001, 1.0))
def test_never_more_events_and_never_longer_than_allowed(
    history: list[tuple[int, bool]], most: int, shortest_s: float
) -> None:
    take = after(history, most, shortest_s).next()
    assert min(LEAST, most) <= take.max_events <= most
    assert shortest_s <= take.wait_s <= max(shortest_s, LONGEST_S)


@given(histories)
def test_idle_sink_is_back_at_the_shortest_wait_and_the_fewest_events(history: list[tuple[int, bool]]) -> None:
    assert after([*history, *[(3, False)] * 40]).next() == Take(LEAST, 0.05)


@given(histories)
def test_writer_that_stays_behind_gets_the_most_events_after_the_longest_wait(history: list[tuple[int, bool]]) -> None:
    assert after([*history, *[(100, True)] * 8]).next() == Take(5_000, LONGEST_S)


def test_backlog_widens_what_is_taken_without_making_anyone_wait() -> None:
    linger = Linger(5_000, 0.05)
    for _ in range(5):
        linger.note(linger.next().max_events, behind=False)
    assert linger.next() == Take(5_000, 0.05)


def test_one_slow_write_is_soon_forgotten() -> None:
    assert after([(50, True), *[(50, False)] * 20]).next() == Take(LEAST, 0.05)
