"""Live events from the broker: the wanted ones of what comes, a moment's in order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from voicelog.errors import DecodeError
from voicelog.events import Event
from voicelog.settings import Settings
from voicelog.wire import decode, read
from voicelog_sink.consumer import topic_names
from voicelog_sink.pipeline import Record
from voicelog_sink.tail import Moment, TailFilter
from voicelog_sink.topic_reader import TopicReader


class Tail:
    """Follows the topics of events, without being a member of any group. `unreadable` counts, by reason, what is none.

    Used by one thread; a context manager. What blocks and raises is TopicReader's.
    """

    def __init__(self, settings: Settings, wanted: TailFilter, since_ms: int | None = None) -> None:
        """Make the client; nothing is connected yet. Without `since_ms`, it begins with what is yet to come."""
        self.unreadable: Counter[str] = Counter()
        self._topics = topic_names(settings.topic_prefix)
        self._wanted = wanted
        self._since_ms = since_ms
        self._reader = TopicReader(settings)

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *failure: object) -> None:
        self._reader.__exit__(*failure)

    def starts(self) -> dict[tuple[str, int], int]:
        """Return the offsets that it would begin with now, by partition."""
        spans = self._reader.spans(self._topics, self._since_ms)
        return {place: span.end if self._since_ms is None else span.start for place, span in spans.items()}

    def events(self, starts: dict[tuple[str, int], int], stopped: Callable[[], bool]) -> Iterator[Event]:
        """Yield the wanted events from these offsets on, until it is stopped, which it asks several times a second."""
        moment = Moment()
        for record in self._reader.follow(starts):
            if stopped():
                break
            now_s = time.monotonic()
            if record is not None and (event := self._wanted_event(record)) is not None:
                moment.add(event, len(record.value or b""), now_s)
            if record is None or moment.is_over(now_s):
                yield from moment.take()
        yield from moment.take()

    def _wanted_event(self, record: Record) -> Event | None:
        if self._since_ms is not None and record.timestamp_ms is not None and record.timestamp_ms < self._since_ms:
            return None
        try:
            return decode(record.value) if self._wanted.takes(read(record.value)) else None
        except DecodeError as exc:
            self.unreadable[exc.reason] += 1
            return None
