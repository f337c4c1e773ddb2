"""Reading the dead letters: which ones, in which order, how many of which reason, and what would become of them now.

Pure: takes letters one after another, in any order, and keeps no more of them than it gives back.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

import attrs

from voicelog.wire import read
from voicelog_sink.letters import Letter, original_of, session_of, text_of
from voicelog_sink.pipeline import Pipeline
from voicelog_sink.rows import DAY_MS, rows_of
from voicelog_sink.stores.lifetime import Lifetimes

MAX_MESSAGE_CHARS = 500
"""What a line of the list keeps of the error's message; `show` has it whole."""

READABLE = "readable"
EXPIRED = "expired"
ERASED = "erased"

Order = tuple[int, int, int]
"""When a letter's message came in, then its place: no two letters have the same."""


@attrs.frozen
class Filter:
    """Which letters; what is empty or None takes any. `topics` are names with the prefix."""

    reasons: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    since_ms: int | None = None
    max_replays: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Say whether the letter is one of these."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.topics or letter.topic in self.topics)
            and (self.since_ms is None or letter.at_ms is None or letter.at_ms >= self.since_ms)
            and (self.max_replays is None or letter.replays <= self.max_replays)
            and (not self.sessions or self._of_sessions(letter))
        )

    def _of_sessions(self, letter: Letter) -> bool:
        return text_of(letter.key) in self.sessions or session_of(letter) in self.sessions


@attrs.frozen
class LetterRow:
    """A line of the list: a letter without its payload; `at` is epoch milliseconds."""

    partition: int
    offset: int
    at: int | None
    reason: str | None
    topic: str | None
    topic_partition: int | None
    topic_offset: int | None
    session_id: str | None
    size_bytes: int
    replays: int
    error: str | None
    message: str | None

    @property
    def place(self) -> str:
        """Its name on the command line, PARTITION:OFFSET."""
        return f"{self.partition}:{self.offset}"


@attrs.frozen
class Counts:
    """How many letters there are, by reason and by the topic that they were in."""

    reasons: Counter[str | None] = attrs.field(factory=Counter)
    topics: Counter[str | None] = attrs.field(factory=Counter)

    @property
    def total(self) -> int:
        """Return how many letters there are."""
        return self.reasons.total()

    def add(self, letter: Letter) -> None:
        """Count a letter."""
        self.reasons[letter.reason] += 1
        self.topics[letter.topic] += 1

    def counting(self, letters: Iterable[Letter]) -> Iterator[Letter]:
        """Yield the letters, each counted."""
        for letter in letters:
            self.add(letter)
            yield letter


@attrs.frozen
class Verdict:
    """What the sink would make of a message now: `outcome` is readable, expired, erased, or a key of REASONS."""

    outcome: str
    message: str | None = None

    @property
    def is_readable(self) -> bool:
        """Say whether it would become rows."""
        return self.outcome == READABLE


def order_of(letter: Letter) -> Order:
    """Return what letters are sorted by."""
    return (letter.at_ms or 0, letter.partition, letter.offset)


def page(
    letters: Iterable[Letter], limit: int, *, oldest_first: bool = False, after: Order | None = None
) -> list[LetterRow]:
    """Return the first `limit` letters in their order, newest first unless told otherwise, of those behind `after`."""
    take = heapq.nsmallest if oldest_first else heapq.nlargest
    ranked = ((order_of(letter), letter) for letter in letters)
    # Rows and not letters wait in the heap, since a letter's value may have megabytes.
    rows = ((order, row_of(letter)) for order, letter in ranked if _is_behind(order, after, oldest_first))
    return [row for _, row in take(limit, rows, key=lambda ranked_row: ranked_row[0])]


def row_of(letter: Letter) -> LetterRow:
    """Return the letter's line."""
    return LetterRow(
        letter.partition, letter.offset, letter.at_ms, letter.reason, letter.topic, letter.topic_partition,
        letter.topic_offset, session_of(letter), letter.size_bytes, letter.replays, letter.error,
        letter.message and letter.message[:MAX_MESSAGE_CHARS],
    )  # fmt: skip


def verdict(letter: Letter, pipeline: Pipeline, now_ms: int) -> Verdict:
    """Return what the sink makes of the message at the time `now_ms`, by its rules and what `pipeline` has loaded."""
    batch = pipeline.sort([original_of(letter)], now_ms)
    if batch.dead:
        return Verdict(batch.dead[0].reason, batch.dead[0].message)
    if batch.expired:
        days = _kept_days(letter, pipeline.retention.lifetimes)
        return Verdict(EXPIRED, f"older than {days} days (voicelog-sink retention): counted, and not stored")
    if batch.erased:
        return Verdict(ERASED, "of a call or person that was erased (voicelog-sink forget): counted, and not stored")
    return Verdict(READABLE)


def _kept_days(letter: Letter, lifetimes: Lifetimes) -> int:
    """Return for how long anything is kept of what the letter's message says, which can be read."""
    tables = {row.table for row in rows_of(read(letter.value))}
    return max((lifetimes.rows_ms[name] for name in tables), default=lifetimes.events_ms) // DAY_MS


def refusal(letter: Letter, topics: Iterable[str]) -> str | None:
    """Return why a letter can't be sent back to where it was; None where it can."""
    if letter.topic is None:
        return "no header says which topic it was in: voicelog-sink did not write it"
    if letter.topic not in topics:
        return f"it was in {letter.topic!r}, which is none of the topics of events: {', '.join(topics)}"
    return None


def chunks(letters: Iterable[Letter], most: int, most_bytes: int) -> Iterator[list[Letter]]:
    """Yield the letters in lists that end at `most` letters or `most_bytes` of values; a bigger letter is alone."""
    chunk: list[Letter] = []
    size_bytes = 0
    for letter in letters:
        if chunk and (len(chunk) >= most or size_bytes + letter.size_bytes > most_bytes):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(letter)
        size_bytes += letter.size_bytes
    if chunk:
        yield chunk


def _is_behind(order: Order, after: Order | None, oldest_first: bool) -> bool:
    if after is None:
        return True
    return order > after if oldest_first else order < after
