"""The read side: the list of calls and one call, for the command line, the page and its API. Needs no broker.

Every function blocks while it reads, and raises StoreError as the store does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import attrs

from voicelog_sink.calls import Call, call_of
from voicelog_sink.errors import SinkError
from voicelog_sink.listing import listed, newest_first, of_user
from voicelog_sink.rows import DAY_MS, event_of
from voicelog_sink.saying import saying
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.summary import Summary, summarise, summary_of
from voicelog_sink.tables import SESSION_SUMMARIES, VOICE_INTERACTIONS
from voicelog_sink.tally import SLOW_TURN_MS
from voicelog_sink.wanted import EVERY_CALL, Wanted

LAST = "last"
"""What stands for the newest call where a session id is expected."""

EARLIEST_MS = 1_577_836_800_000
"""2020 began: no call that is kept is older, and a smaller number is no moment in milliseconds."""

NEWEST_WITHIN_MS = 90 * DAY_MS
AT_ONCE = 32
"""Summaries that are read together."""
SHOWN = 5


class NoSuchSession(SinkError):
    """No call, or several, are meant by what was given; `near` are the ids it could have been."""

    def __init__(self, message: str, near: tuple[str, ...] = ()) -> None:
        """Keep the ids beside the sentence."""
        super().__init__(message)
        self.near = near


@attrs.frozen
class Place:
    """A call's place in the list, which no newer call moves."""

    started_at: int
    session_id: str

    @classmethod
    def of(cls, summary: Summary) -> Place:
        """Return the call's place."""
        return cls(summary.started_at, summary.session_id)

    @classmethod
    def read(cls, token: str) -> Place:
        """Return the place that a token stands for; raises ValueError."""
        started_at, colon, session_id = token.partition(":")
        is_number = started_at.isascii() and started_at.isdecimal() and len(started_at) < 16
        if not (is_number and int(started_at) >= EARLIEST_MS and colon and session_id):
            message = f"{token!r} is no place in the list: expected a `cursor` that `sessions --json` printed"
            raise ValueError(message)
        return cls(int(started_at), session_id)

    @property
    def token(self) -> str:
        """The place as a text, to be given back as it is."""
        return f"{self.started_at}:{self.session_id}"

    def is_before(self, row: Values) -> bool:
        """Say whether a row of the list comes after this place."""
        return (-self.started_at, self.session_id) < newest_first(row)


@attrs.frozen
class Page:
    """Some calls of the list; `after` is the token that the next page begins after, None where there is no more.

    `searched_to` is the start, epoch milliseconds, of the last call that was searched, where the search was stopped
    before it was through: nobody knows then whether there is more.
    """

    calls: tuple[Summary, ...]
    after: str | None
    searched_to: int | None = None


GoOn = Callable[[Place], bool]
"""Told how far back a search for a text has come; says whether to go on."""


def on_and_on(_: Place) -> bool:
    """Go on, however long it takes."""
    return True


def sessions(store: Store, since_ms: int, until_ms: int, limit: int, wanted: Wanted = EVERY_CALL) -> list[Summary]:
    """Return the calls that began from `since_ms` (inclusive) to `until_ms` (exclusive), newest first.

    A row of the list that disagrees with the call's own summary is left out: the call is listed under another start,
    or was erased.
    """
    return list(islice(sessions_between(store, since_ms, until_ms, wanted, at_once=limit), limit))


def sessions_page(
    store: Store,
    since_ms: int,
    until_ms: int,
    limit: int,
    wanted: Wanted = EVERY_CALL,
    after: str | None = None,
    go_on: GoOn = on_and_on,
) -> Page:
    """Return the first calls that `sessions` would list after the token `after`; raises ValueError for a wrong one.

    Calls that begin meanwhile come before the first page: no other page changes for them. Where a text is searched
    for, `go_on` is asked from time to time, and ends the page where it says no.
    """
    stopped: list[Place] = []

    def asked(place: Place) -> bool:
        goes_on = go_on(place)
        if not goes_on:
            stopped.append(place)
        return goes_on

    begin = Place.read(after) if after else None
    found = sessions_between(store, since_ms, until_ms, wanted, begin, asked, limit + 1)
    calls = tuple(islice(found, limit))
    more = next(found, None) if len(calls) == limit else None
    if more:
        return Page(calls, Place.of(calls[-1]).token)
    return Page(calls, stopped[0].token, stopped[0].started_at) if stopped else Page(calls, None)


def is_listed(store: Store, token: str) -> bool:
    """Say whether a call is at the place that a token stands for; raises ValueError for a wrong one."""
    place = Place.read(token)
    found = _summary(store, place.session_id)
    return found is not None and Place.of(found) == place


def sessions_between(
    store: Store,
    since_ms: int,
    until_ms: int,
    wanted: Wanted = EVERY_CALL,
    after: Place | None = None,
    go_on: GoOn = on_and_on,
    at_once: int = AT_ONCE,
) -> Iterator[Summary]:
    """Yield what `sessions` lists, all of it, from the call after the place `after` on; some are held at a time.

    About `at_once` calls are read before the first is needed.
    """
    rows = _rows(store, since_ms, until_ms, wanted, after)
    if wanted.text:
        groups = saying(store, rows, wanted.text, lambda row: go_on(Place(row["started_at"], row["session_id"])))
    else:
        groups = _together(rows, min(at_once, AT_ONCE))
    for group in groups:
        yield from filter(wanted.fits, _summaries(store, group))


def call(store: Store, session_id: str, slow_turn_ms: float = SLOW_TURN_MS) -> Call | None:
    """Return a call, live or over, as its events say; None when nothing is known of it.

    Where the events have expired and the summary has not, the call has no turns.
    """
    events = [event_of(row) for row in store.select(VOICE_INTERACTIONS.name, [{"session_id": session_id}])]
    summary = summarise(events, slow_turn_ms) or _summary(store, session_id)
    return call_of(summary, events) if summary else None


def find(store: Store, given: str, now_ms: int) -> str:
    """Return the session id that is meant: itself, the only one that begins so, or the newest for `last`.

    Raises NoSuchSession. A call is found by its beginning once it has a summary, a minute after it began.
    """
    if given == LAST:
        return _last(store, now_ms)
    if _is_known(store, given):
        return given
    known = sorted(_known(store))
    found = _begun_by(given, known)
    if len(found) == 1:
        return found[0]
    raise _ambiguous(given, found) if found else _unknown(given, known)


def not_stored(store: Store, session_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the ids under which nothing is stored, each with ids that begin so, or else with some that look alike."""
    missing = [session_id for session_id in session_ids if not _is_known(store, session_id)]
    known = sorted(_known(store)) if missing else []
    return {each: tuple(_begun_by(each, known)[:SHOWN] or _alike(each, known)) for each in missing}


def _rows(store: Store, since_ms: int, until_ms: int, wanted: Wanted, after: Place | None) -> Iterator[Values]:
    """Yield where the calls are that may be wanted, in the order of the list."""
    if after:
        until_ms = min(until_ms, after.started_at + 1)
    if wanted.user:
        rows = iter(of_user(store, wanted.user, since_ms, until_ms))
    else:
        rows = listed(store, since_ms, until_ms, wanted.conditions)
    return (row for row in rows if after.is_before(row)) if after else rows


def _together(rows: Iterator[Values], at_once: int) -> Iterator[list[Values]]:
    while some := list(islice(rows, at_once)):
        yield some


def _summaries(store: Store, rows: list[Values]) -> Iterator[Summary]:
    """Yield the summaries of rows of the list, those left out that disagree with it."""
    for some in _together(iter(rows), AT_ONCE):
        partitions = [{"session_id": row["session_id"]} for row in some]
        found = {row["session_id"]: row for row in store.select(SESSION_SUMMARIES.name, partitions)}
        for row in some:
            summary = found.get(row["session_id"])
            if summary and summary["started_at"] == row["started_at"]:
                yield summary_of(summary)


def _summary(store: Store, session_id: str) -> Summary | None:
    row = next(store.select(SESSION_SUMMARIES.name, [{"session_id": session_id}]), None)
    return summary_of(row) if row else None


def _is_known(store: Store, session_id: str) -> bool:
    sources = (SESSION_SUMMARIES.name, VOICE_INTERACTIONS.name)
    return any(next(store.select(name, [{"session_id": session_id}], limit=1), None) for name in sources)


def _known(store: Store) -> Iterator[str]:
    return (row["session_id"] for row in store.partitions(SESSION_SUMMARIES.name))


def _begun_by(given: str, known: list[str]) -> list[str]:
    return [session_id for session_id in known if session_id.startswith(given)]


def _alike(given: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(given, known, n=3, cutoff=0.75)


def _last(store: Store, now_ms: int) -> str:
    newest = sessions(store, now_ms - NEWEST_WITHIN_MS, now_ms + DAY_MS, 1)
    if not newest:
        message = (
            f"there is no call yet within {NEWEST_WITHIN_MS // DAY_MS} days (a call shows up a minute after it began)"
        )
        raise NoSuchSession(message)
    return newest[0].session_id


def _ambiguous(given: str, found: list[str]) -> NoSuchSession:
    shown = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    message = f"{len(found)} calls begin with {given!r}: {shown}; give more of the id"
    return NoSuchSession(message, tuple(found[:SHOWN]))


def _unknown(given: str, known: list[str]) -> NoSuchSession:
    near = _alike(given, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "`voicelog-sink sessions --since 90d` lists the calls"
    return NoSuchSession(f"no call {given!r} is stored: {hint}", tuple(near))
