"""The minute in which a departure began."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.onset import Counted, began, counter_of

FIRST = 600
"""The first minute of the hour that departs; the hour before begins at 540."""


def minutes(start: int, usual: float, then: float, each: int, seed: int = 1) -> dict[int, Counted]:
    random = Random(seed)

    def counts(share: float) -> Counted:
        return each, sum(random.random() < share for _ in range(each))

    return {minute: counts(then if minute >= start else usual) for minute in range(540, 660)}


@pytest.mark.parametrize("start", [541, 575, 600, 630])
@pytest.mark.parametrize(("usual", "then", "sign"), [(0.5, 0.9, 1), (0.5, 0.1, -1), (0.05, 0.4, 1), (0.0, 0.2, 1)])
def test_change_is_found_to_some_minutes(start: int, usual: float, then: float, sign: int) -> None:
    assert began(minutes(start, usual, then, each=20), FIRST, usual, sign) == pytest.approx(start, abs=3)


@pytest.mark.parametrize(
    ("counted", "minute"),
    [
        ({minute: (10, 10 if minute >= 600 else 0) for minute in range(540, 660, 2)}, 600),
        ({598: (10, 10), 600: (10, 10)}, 598),
        ({598: (2, 2), 599: (10, 10), 600: (10, 10)}, 598),
        ({598: (10, 7), 599: (10, 10), 600: (10, 10)}, 599),
    ],
    ids=["with gaps", "before the hour", "little at first", "first minute as usual"],
)
def test_clear_change_is_found_to_the_minute(counted: dict[int, Counted], minute: int) -> None:
    assert began(counted, FIRST, 0.5, 1) == minute


def test_change_before_the_two_hours_began_with_them() -> None:
    assert began(minutes(0, 0.5, 1.0, each=5), FIRST, 0.5, 1) == 540


def test_without_minutes_it_began_with_the_hour() -> None:
    assert began({}, FIRST, 0.5, 1) == FIRST
    assert began({541: (3, 3)}, FIRST, 0.5, 1) == FIRST


@given(st.dictionaries(st.integers(540, 659), st.tuples(st.just(9), st.integers(0, 9))), st.sampled_from([-1, 1]))
def test_it_is_a_minute_of_the_two_hours(counted: dict[int, Counted], sign: int) -> None:
    assert 540 <= began(counted, FIRST, 0.5, sign) < 660


def test_cost_has_no_minute() -> None:
    assert counter_of("cost_usd", 0.1) is None
