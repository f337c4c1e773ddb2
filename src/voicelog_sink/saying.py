"""In which calls something was said: searching through their texts, many calls at a time.

There is no index of texts: every event of a call is read, but only what is said in it comes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec

from voicelog_sink.stores.base import Store, Values
from voicelog_sink.tables import SESSION_SUMMARIES, VOICE_INTERACTIONS

SAID = ("transcript", "response", "text", "message", "error_message")
"""Columns of an event in which a text is looked for: what was heard, answered, spoken, logged, and what went wrong."""
KNOWN = ("session_id", "user_id", "disconnect_reason", "attributes")
"""Columns of a summary in which it is looked for."""
FIRST, MOST = 32, 256
"""Calls that are searched at once: few at first, since the next may be what is looked for."""

GoOn = Callable[[Values], bool]
"""Told of the last row that was searched, where there may be more; says whether to search on."""


def saying(store: Store, listed: Iterator[Values], text: str, go_on: GoOn) -> Iterator[list[Values]]:
    """Yield those of the rows, some at a time, whose call or its summary says the text, whatever the case.

    Ends where `go_on` says no. Blocks while it reads; raises StoreError as the store does.
    """
    sought, size = text.casefold(), FIRST
    while some := list(islice(listed, size)):
        yield _saying(store, some, sought)
        if len(some) < size or not go_on(some[-1]):
            return
        size = min(size * 2, MOST)


def _saying(store: Store, rows: list[Values], sought: str) -> list[Values]:
    partitions = [{"session_id": row["session_id"]} for row in rows]
    known = {row[0] for row in store.tuples(SESSION_SUMMARIES.name, KNOWN, partitions) if _knows(row, sought)}
    others = [partition for partition in partitions if partition["session_id"] not in known]
    texts = store.texts(VOICE_INTERACTIONS.name, SAID, others)
    said = {each["session_id"] for each, text in zip(others, texts, strict=True) if sought in text.casefold()}
    return [row for row in rows if row["session_id"] in known or row["session_id"] in said]


def _knows(row: tuple[Any, ...], sought: str) -> bool:
    *names, attributes = row
    texts = (*names, *_texts_in(msgspec.json.decode(attributes))) if attributes else names
    return any(sought in text.casefold() for text in texts if text)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts_in(each)
    elif value is not None:
        yield str(value)
