"""The window: never wider than allowed, never shut, halved once for one overload, and slow after an outage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from voicelog_sink.stores.window import Ticket, Window

MOST, MAX_BYTES = 20, 1_000


class Flights(RuleBasedStateMachine):
    """Requests that are sent as soon as they fit, and come back in any order and way."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(MOST, MAX_BYTES, 8)
        self.tickets: list[Ticket] = []

    @rule(size=st.integers(0, 2 * MAX_BYTES))
    def send(self, size: int) -> None:
        if self.window.fits(size):
            self.tickets.append(self.window.sent(size))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), overload=st.booleans())
    def land(self, data: st.DataObject, overload: bool) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        before = self.window.size
        (self.window.overloaded if overload else self.window.answered)(ticket)
        if overload:
            assert self.window.size in (before, max(1, before // 2))
        else:
            assert before <= self.window.size <= before + 1

    @rule()
    def outage(self) -> None:
        self.window.outage()
        assert self.window.size == 1

    @invariant()
    def never_shut_and_never_wider_than_allowed(self) -> None:
        assert 1 <= self.window.size <= MOST
        assert self.window.fits(2 * MAX_BYTES) or self.window.waiting

    @invariant()
    def knows_what_is_in_flight(self) -> None:
        assert self.window.waiting == len(self.tickets) <= MOST
        assert self.window.waiting_bytes == sum(ticket.size_bytes for ticket in self.tickets)
        assert self.window.waiting_bytes <= MAX_BYTES or self.window.waiting == 1


TestFlights = Flights.TestCase


def fill(window: Window) -> list[Ticket]:
    tickets = []
    while window.fits(0):
        tickets.append(window.sent(0))
    return tickets


def answer(window: Window, requests: int) -> None:
    for _ in range(requests):
        window.answered(window.sent(0))


def test_overload_of_everything_in_flight_halves_once() -> None:
    window = Window(64, start=64)
    for ticket in fill(window):
        window.overloaded(ticket)
    assert window.size == 32
    window.overloaded(window.sent(0))
    assert window.size == 16


@given(st.integers(2, 200))
def test_after_an_outage_it_is_quick_up_to_half_of_what_it_was_and_slow_from_there(most: int) -> None:
    window = Window(most, start=most)
    window.outage()
    answer(window, most // 2)
    assert most // 2 <= window.size <= most // 2 + 1
    answer(window, 2)
    assert window.size <= most // 2 + 2
    answer(window, most * most)
    assert window.size == most


def test_outage_that_goes_on_does_not_forget_how_wide_it_was() -> None:
    window = Window(64, start=64)
    for _ in range(5):
        window.outage()
    answer(window, 31)
    assert window.size == 32
