"""Requests on their way to the server, as many at once as the window allows. Imports no driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from voicelog_sink.stores.base import Asked, OnAsked, ignore
from voicelog_sink.stores.cql_rows import Encoded
from voicelog_sink.stores.window import Ticket, Window

Errors = tuple[type[Exception], ...]


class Request(NamedTuple):
    """Rows of one partition that go to the server together; `statements` are the prepared ones by their columns."""

    statements: Mapping[tuple[str, ...], Any]
    table: str
    rows: list[Encoded]


class Flight:
    """One thread sends and lands; the driver's thread only puts what it hears into a queue."""

    def __init__(
        self,
        start: Callable[[Request], Any],
        window: Window,
        errors: Errors,
        answers: Errors,
        on_asked: OnAsked = ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send by `start`, which gives the driver's future or raises one of `errors`.

        `answers` are the errors by which the server answers in time: the others narrow the window, and end the flight.
        `on_asked` is called by the sending thread for each request that has landed.
        """
        self._start = start
        self._window = window
        self._errors = errors
        self._answers = answers
        self._on_asked = on_asked
        self._clock = clock
        self._landed: SimpleQueue[tuple[Ticket, Request, float, float, Exception | None]] = SimpleQueue()
        self._stop = False
        self.failures: list[tuple[Request, Exception]] = []

    def send(self, request: Request) -> bool:
        """Send one request, waiting until it fits; False when one has failed so that no more are worth sending."""
        size_bytes = sum(row.size_bytes for row in request.rows)
        self._take_landed()
        while not self._window.fits(size_bytes):
            self._take(*self._landed.get())
        if self._stop:
            return False
        ticket = self._window.sent(size_bytes)
        start_s = self._clock()
        try:
            future = self._start(request)
        except self._errors as exc:
            self._failed(exc, ticket, request, start_s)
        except BaseException:  # a bug or an interrupt: the seat must not stay taken
            self._window.overloaded(ticket)
            raise
        else:
            sent = (ticket, request, start_s)
            future.add_callbacks(self._arrived, self._failed, sent, None, sent)
        return True

    def land(self) -> None:
        """Wait until every request is answered or has timed out."""
        while self._window.waiting:
            self._take(*self._landed.get())

    def _arrived(self, _: Any, ticket: Ticket, request: Request, start_s: float) -> None:
        self._landed.put((ticket, request, start_s, self._clock(), None))

    def _failed(self, exc: Exception, ticket: Ticket, request: Request, start_s: float) -> None:
        self._landed.put((ticket, request, start_s, self._clock(), exc))

    def _take_landed(self) -> None:
        try:
            while True:
                self._take(*self._landed.get_nowait())
        except Empty:
            return

    def _take(self, ticket: Ticket, request: Request, start_s: float, end_s: float, exc: Exception | None) -> None:
        error = type(exc).__name__ if exc is not None else ""
        self._on_asked(Asked(request.table, len(request.rows), start_s, end_s, error))
        in_time = exc is None or isinstance(exc, self._answers)
        (self._window.answered if in_time else self._window.overloaded)(ticket)
        if exc is not None:
            self.failures.append((request, exc))
            self._stop = self._stop or not in_time
