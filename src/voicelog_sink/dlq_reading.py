"""Where dead letters come from: their topic, read to where it ends at the start, without a trace at the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from voicelog.events import TOPIC_DEAD_LETTERS
from voicelog.settings import Settings
from voicelog_sink.dlq import Filter
from voicelog_sink.errors import SinkError
from voicelog_sink.letters import Letter, letter_of
from voicelog_sink.topic_reader import Span, Spans, TopicReader


class LetterPlace(NamedTuple):
    """Where a letter is in the dead letters' topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class NoSuchLetter(SinkError):
    """The dead letters have no message at that place."""


class DeadLetterReader:
    """Reads the dead letters. Used by one thread; a context manager. What blocks and raises is TopicReader's."""

    def __init__(self, settings: Settings) -> None:
        """Make the client; nothing is connected yet. Raises ConfigError for a setting that it refuses."""
        self.topic = settings.topic_prefix + TOPIC_DEAD_LETTERS
        self._reader = TopicReader(settings)

    def __enter__(self) -> DeadLetterReader:
        return self

    def __exit__(self, *failure: object) -> None:
        self._reader.__exit__(*failure)

    def spans(self, since_ms: int | None = None) -> Spans:
        """Return what there is to read by now; since when, a filter has to look once more."""
        return self._reader.spans([self.topic], since_ms)

    def letters(self, spans: Spans, wanted: Filter, on_read: Callable[[], object] = lambda: None) -> Iterator[Letter]:
        """Yield the wanted letters in the spans one by one; `on_read` is called for each that was read."""
        for record in self._reader.read(spans):
            on_read()
            letter = letter_of(record)
            if wanted.takes(letter):
                yield letter

    def at(self, places: Iterable[LetterPlace]) -> Iterator[Letter]:
        """Yield the letters at these places; raises NoSuchLetter for one that is not there."""
        spans = self.spans()
        for place in places:
            yield self._one(spans, place)

    def _one(self, spans: Spans, place: LetterPlace) -> Letter:
        key = (self.topic, place.partition)
        span = spans.get(key, Span(0, 0))
        if span.start <= place.offset < span.end:
            for record in self._reader.read({key: Span(place.offset, place.offset + 1)}):
                return letter_of(record)
        raise NoSuchLetter(self._missing(spans, place, span))

    def _missing(self, spans: Spans, place: LetterPlace, span: Span) -> str:
        last = max((number for _, number in spans), default=-1)
        what = f"no dead letter {place} in topic {self.topic}: "
        if place.partition > last:
            return f"{what}it has the partitions 0 to {last}; `voicelog-sink dlq list` shows what is there"
        if span.start == span.end:
            return f"{what}partition {place.partition} is empty; `voicelog-sink dlq list` shows what is there"
        if place.offset < span.start:
            return f"{what}its retention has deleted all before {place.partition}:{span.start}"
        return f"{what}the newest in partition {place.partition} is {place.partition}:{span.end - 1}"
