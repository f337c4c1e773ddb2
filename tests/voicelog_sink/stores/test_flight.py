"""The flight: every request is answered for once, no more are out than the window allows, and failure stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.stores.base import Asked
from voicelog_sink.stores.cql_rows import Encoded
from voicelog_sink.stores.flight import Flight, Request
from voicelog_sink.stores.window import Window


class Refused(Exception):
    """The server's answer to a bad row."""


class TimedOut(Exception):
    """No answer."""


class Server:
    """Answers in a thread of its own, each request as its table's name says; knows how many it had at once."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.most = 0
        self._out = 0
        self._lock = threading.Lock()

    def start(self, request: Request) -> Any:
        if request.table == "raises":
            raise TimedOut
        if request.table == "bug":
            raise KeyError
        with self._lock:
            self._out += 1
            self.most = max(self.most, self._out)
            self.asked.append(request)
        return Future(self, request)

    def answer(self, future: Future, call: Callable[[], None]) -> None:
        with self._lock:
            self._out -= 1
        call()


class Future:
    """The part of the driver's future that is used."""

    def __init__(self, server: Server, request: Request) -> None:
        self._server, self._request = server, request

    def add_callbacks(self, good: Any, bad: Any, good_args: Any, _: Any, bad_args: Any) -> None:
        error = {"refused": Refused(), "timed out": TimedOut()}.get(self._request.table)
        call = (lambda: bad(error, *bad_args)) if error else (lambda: good(None, *good_args))
        threading.Thread(target=self._server.answer, args=(self, call)).start()


def request(table: str, size_bytes: int = 10) -> Request:
    return Request({}, table, [Encoded(0, b"k", [], size_bytes)])


def flown(tables: list[str], window: Window) -> tuple[Flight, Server]:
    server = Server()
    flight = Flight(server.start, window, (TimedOut,), (Refused,))
    for table in tables:
        if not flight.send(request(table)):
            break
    flight.land()
    return flight, server


@given(st.lists(st.sampled_from(["taken", "refused"]), max_size=30), st.integers(1, 5))
def test_all_are_sent_and_the_refused_are_told_and_never_too_many_are_out(tables: list[str], most: int) -> None:
    window = Window(most, start=most)
    flight, server = flown(tables, window)
    assert [r.table for r in server.asked] == tables
    assert len(flight.failures) == tables.count("refused")
    assert server.most <= most
    assert (window.waiting, window.waiting_bytes, window.size) == (0, 0, most)


@pytest.mark.parametrize("failing", ["timed out", "raises"])
def test_request_that_is_not_answered_narrows_the_window_and_stops_the_flight(failing: str) -> None:
    window = Window(4, start=4)
    flight, server = flown([failing] + ["taken"] * 100, window)
    assert len(server.asked) < 10
    assert [r.table for r, _ in flight.failures] == [failing]
    assert window.waiting == 0
    assert window.size < 4


def test_flight_after_a_stopped_one_begins_with_a_clear_sky() -> None:
    window = Window(4, start=4)
    flown(["timed out", "taken"], window)
    flight, server = flown(["taken"] * 5, window)
    assert len(server.asked) == 5
    assert flight.failures == []


def test_bug_while_sending_is_raised_and_takes_no_seat() -> None:
    window = Window(4, start=4)
    with pytest.raises(KeyError):
        flown(["bug"], window)
    assert (window.waiting, window.waiting_bytes) == (0, 0)


def test_every_request_that_landed_is_told_with_its_rows_its_time_and_its_error() -> None:
    told: list[Asked] = []
    seconds = iter(range(100, 200))
    flight = Flight(
        Server().start, Window(1, start=1), (TimedOut,), (Refused,), told.append, lambda: float(next(seconds))
    )
    for table in ("taken", "refused", "raises"):
        flight.send(request(table)._replace(rows=[*request(table).rows] * 3))
    flight.land()
    assert told == [
        Asked("taken", 3, 100.0, 101.0),
        Asked("refused", 3, 102.0, 103.0, "Refused"),
        Asked("raises", 3, 104.0, 105.0, "TimedOut"),
    ]
