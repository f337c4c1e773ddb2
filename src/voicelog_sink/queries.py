"""The read side: the list of calls and one call, for the command line, the page and its API. Needs no broker.

Every function blocks while it reads, and raises StoreError as the store does.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Any

import attrs

from voicelog.events import SHARDS
from voicelog_sink.calls import Call, call_of
from voicelog_sink.errors import SinkError
from voicelog_sink.rows import DAY_MS, day_of, event_of
from voicelog_sink.stores.base import Store, Values
from voicelog_sink.summary import Summary, names_of, summarise, summary_of
from voicelog_sink.tables import SESSION_SUMMARIES, SESSIONS_BY_DAY, VOICE_INTERACTIONS
from voicelog_sink.tally import SLOW_TURN_MS

LAST = "last"
"""What stands for the newest call where a session id is expected."""

NEWEST_WITHIN_MS = 90 * DAY_MS
PAGE = 32
SHOWN = 5
SAID = ("transcript", "response", "text", "message", "error_message")
"""Columns of an event in which a text is looked for: what was heard, answered, spoken, logged, and what went wrong."""


class NoSuchSession(SinkError):
    """No call, or several, are meant by what was given; `near` are the ids it could have been."""

    def __init__(self, message: str, near: tuple[str, ...] = ()) -> None:
        """Keep the ids beside the sentence."""
        super().__init__(message)
        self.near = near


@attrs.frozen(kw_only=True)
class Wanted:
    """Which calls a list shows: those for which everything that is set holds. Nothing set means every call.

    `slow_ms` wants a turn with at least that user_bot_latency_ms, `failed` an error, `interrupted` a turn in which the
    user spoke into the bot's speech. `text` is looked for in the call's texts, whatever the case, and in its
    summary's: it costs reading every event of each call for which the rest holds.
    """

    service: str | None = None
    provider: str | None = None
    model: str | None = None
    variant: str | None = None
    slow_ms: float | None = None
    failed: bool = False
    interrupted: bool = False
    text: str | None = None

    def fits(self, call: Listed | Summary) -> bool:
        """Say whether all holds but `text`. Pure."""
        return (
            self.service in (None, call.service)
            and self.variant in (None, call.variant)
            and (self.provider is None or self.provider in call.providers)
            and (self.model is None or self.model in call.models)
            and (self.slow_ms is None or _reaches(call.user_bot_latency_max_ms, self.slow_ms))
            and (not self.failed or call.errors > 0)
            and (not self.interrupted or call.interruptions > 0)
        )


@attrs.frozen(kw_only=True)
class Listed:
    """What the list itself says of a call, so that most calls that are not wanted cost no more than that row."""

    service: str | None
    variant: str | None
    providers: tuple[str, ...]
    models: tuple[str, ...]
    user_bot_latency_max_ms: float | None
    errors: int
    interruptions: int


EVERY_CALL = Wanted()


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
        if not (started_at.isascii() and started_at.isdecimal() and len(started_at) < 16 and colon and session_id):
            message = f"{token!r} is no place in the list: expected a `cursor` that `sessions --json` printed"
            raise ValueError(message)
        return cls(int(started_at), session_id)

    @property
    def token(self) -> str:
        """The place as a text, to be given back as it is."""
        return f"{self.started_at}:{self.session_id}"

    def is_before(self, row: Values) -> bool:
        """Say whether a row of the list comes after this place."""
        return (-self.started_at, self.session_id) < (-row["started_at"], row["session_id"])


@attrs.frozen
class Page:
    """Some calls of the list; `after` is the token that the next page begins after, None where there is no more."""

    calls: tuple[Summary, ...]
    after: str | None


def sessions(store: Store, since_ms: int, until_ms: int, limit: int, wanted: Wanted = EVERY_CALL) -> list[Summary]:
    """Return the calls that began from `since_ms` (inclusive) to `until_ms` (exclusive), newest first.

    A row of the list that disagrees with the call's own summary is left out: the call is listed under another start,
    or was erased.
    """
    return list(islice(sessions_between(store, since_ms, until_ms, wanted), limit))


def sessions_page(
    store: Store, since_ms: int, until_ms: int, limit: int, wanted: Wanted = EVERY_CALL, after: str | None = None
) -> Page:
    """Return the first calls that `sessions` would list after the token `after`; raises ValueError for a wrong one.

    Calls that begin meanwhile come before the first page: no other page changes for them.
    """
    found = sessions_between(store, since_ms, until_ms, wanted, Place.read(after) if after else None)
    calls = tuple(islice(found, limit))
    more = next(found, None) if len(calls) == limit else None
    return Page(calls, Place.of(calls[-1]).token if more else None)


def sessions_between(
    store: Store, since_ms: int, until_ms: int, wanted: Wanted = EVERY_CALL, after: Place | None = None
) -> Iterator[Summary]:
    """Yield what `sessions` lists, all of it, from the call after the place `after` on; some are held at a time."""
    if after:
        until_ms = min(until_ms, after.started_at + 1)
    listed = (row for row in _listed(store, since_ms, until_ms) if not after or after.is_before(row))
    if wanted != EVERY_CALL:
        listed = (row for row in listed if wanted.fits(_listed_of(row)))
    for summary in _summaries(store, listed):
        if wanted.fits(summary) and (not wanted.text or _says(store, summary, wanted.text)):
            yield summary


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
    known: list[str] = [row["session_id"] for row in store.partitions(SESSION_SUMMARIES.name)]
    found = sorted(session_id for session_id in known if session_id.startswith(given))
    if len(found) == 1:
        return found[0]
    raise _ambiguous(given, found) if found else _unknown(given, known)


def _summaries(store: Store, listed: Iterator[Values]) -> Iterator[Summary]:
    """Yield the summaries of rows of the list, those left out that disagree with it."""
    while page := list(islice(listed, PAGE)):
        partitions = [{"session_id": row["session_id"]} for row in page]
        found = {row["session_id"]: row for row in store.select(SESSION_SUMMARIES.name, partitions)}
        for row in page:
            summary = found.get(row["session_id"])
            if summary and summary["started_at"] == row["started_at"]:
                yield summary_of(summary)


def _listed_of(row: Values) -> Listed:
    return Listed(
        service=row["service"],
        variant=row["variant"],
        providers=names_of(row["providers"]),
        models=names_of(row["models"]),
        user_bot_latency_max_ms=row["user_bot_latency_max_ms"],
        errors=row["errors"] or 0,
        interruptions=row["interruptions"] or 0,
    )


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least


def _says(store: Store, summary: Summary, text: str) -> bool:
    """Say whether the text is in what the call's summary, or any event of it, says."""
    sought = text.casefold()
    known = (summary.session_id, summary.user_id, summary.disconnect_reason, *_texts_in(summary.attributes))
    if any(sought in each.casefold() for each in known if each):
        return True
    partition = {"session_id": summary.session_id}
    said = store.tuples(VOICE_INTERACTIONS.name, SAID, [partition])
    return any(sought in each.casefold() for row in said for each in row if each)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts_in(each)
    elif value is not None:
        yield str(value)


def _listed(store: Store, since_ms: int, until_ms: int) -> Iterator[Values]:
    day_ms = (until_ms - 1) // DAY_MS * DAY_MS
    while day_ms + DAY_MS > since_ms:
        day = day_of(day_ms * 1000)
        shards = [_shard(store, {"day": day, "shard": shard}, since_ms, until_ms) for shard in range(SHARDS)]
        yield from heapq.merge(*shards, key=lambda row: (-row["started_at"], row["session_id"]))
        day_ms -= DAY_MS


def _shard(store: Store, partition: Values, since_ms: int, until_ms: int) -> Iterator[Values]:
    """Yield a partition's rows, newest first, read a page at a time: most lists end long before a day does."""
    limit, seen = PAGE, set[str]()
    while True:
        rows = store.select(SESSIONS_BY_DAY.name, [partition], since_ms=since_ms, until_ms=until_ms, limit=limit)
        page = list(rows)
        yield from (row for row in page if row["session_id"] not in seen)
        if len(page) < limit:
            return
        until_ms = page[-1]["started_at"] + 1
        seen = {row["session_id"] for row in page if row["started_at"] == until_ms - 1}
        limit *= 2


def _summary(store: Store, session_id: str) -> Summary | None:
    row = next(store.select(SESSION_SUMMARIES.name, [{"session_id": session_id}]), None)
    return summary_of(row) if row else None


def _is_known(store: Store, session_id: str) -> bool:
    sources = (SESSION_SUMMARIES.name, VOICE_INTERACTIONS.name)
    return any(next(store.select(name, [{"session_id": session_id}], limit=1), None) for name in sources)


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
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.75)
    hint = f"did you mean {' or '.join(near)}?" if near else "`voicelog-sink sessions --since 90d` lists the calls"
    return NoSuchSession(f"no call {given!r} is stored: {hint}", tuple(near))
