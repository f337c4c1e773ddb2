"""Cutting: makes an event fit that is larger than the broker takes. The longest texts go first, the event never."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import msgspec

from voicelog.events import EVENT_TYPES, Event, required_fields

ROOM_BYTES = 8192
"""Kept free for what is sent beside the value: key, headers and the record's own frame."""
FLOOR_BYTES = 2048
"""No limit is below it: an event without any text is about as large."""
KEPT_BYTES = 160
"""A text is cut no shorter than this, its mark included."""
MAX_NAMED = 50
"""Most texts that `cut` names one by one; further ones are counted together, under the field they are in."""
MAX_DEPTH = 32
MAX_NAME_CHARS = 200

_ENVELOPE = frozenset({"v", "type", "event_id", "cut"})
_MESSAGE = "message"
"""A log's text, which every log event must have."""
_TEXT_SHARE = 2 / 3
"""How much of what is kept of a text is its beginning; the rest is its end."""

Place = tuple[Any, Any]
"""A dict or list, and the key or index of a value in it."""
Found = tuple[str, Place, str]


def _texts_of(cls: type[Event]) -> frozenset[str]:
    return frozenset(a.name for a in attrs.fields(cls) if a.metadata.get("text")) | {_MESSAGE}


_KNOWN = {name: frozenset(a.name for a in attrs.fields(cls)) | _ENVELOPE for name, cls in EVENT_TYPES.items()}
_FIXED = {name: _KNOWN[name] - _texts_of(cls) | _ENVELOPE for name, cls in EVENT_TYPES.items()}
"""By event type: the fields that hold no text of a user's, and are not cut."""
_WHOLE = {name: _KNOWN[name] - {"attributes", "parameters"} for name in EVENT_TYPES}
"""By event type: the fields that can't do without a part of theirs."""
_NEEDED = {name: frozenset(required_fields(cls)) | _ENVELOPE for name, cls in EVENT_TYPES.items()}


def limit_bytes(max_message_bytes: int, largest_bytes: int) -> int:
    """Return how long a value may be so that its message stays within both limits, with room for key and headers."""
    most = min(max_message_bytes, largest_bytes)
    return max(FLOOR_BYTES, most - min(ROOM_BYTES, most // 4))


def shorten(value: bytes, limit_bytes: int) -> bytes | None:
    """Return an event's value cut to at most `limit_bytes`; None when even its ids and names are longer.

    The longest texts lose their middle, where a mark says how much, and `cut` maps each field (a dotted path inside
    attributes) to the characters it had. When that is not enough, attributes are left out, and then any other field
    that the event can do without, the largest first; `cut` names them too. Ids, names and figures stay. A value that
    is no event is None.
    """
    try:
        fields = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("type") not in _FIXED:
        return None
    return _Cutting(fields, limit_bytes).run() if len(value) > limit_bytes else value


class _Cutting:
    """One event that is cut: its fields, and what is known of the lengths they had."""

    def __init__(self, fields: dict[str, Any], limit: int) -> None:
        self._fields = fields
        self._kind = fields["type"]
        self._limit = limit
        self._names_left_bytes = limit // 8
        self._had: dict[str, int] = {}
        earlier = fields.get("cut")
        for path, chars in earlier.items() if isinstance(earlier, dict) else ():
            self._note(path, chars)

    def run(self) -> bytes | None:
        return self._cut_texts() or self._leave_out_entries() or self._leave_out_fields()

    def _fitting(self) -> bytes | None:
        """Return the value, with what `cut` has to say, if it fits."""
        if self._had:
            self._fields["cut"] = self._had
        value = msgspec.json.encode(self._fields)
        return value if len(value) <= self._limit else None

    def _note(self, path: str, chars: int) -> int:
        """Remember how many characters a field had, and return it; what an earlier cut remembered stays."""
        if path not in self._had:
            size = _size(path) + 12
            if len(self._had) >= MAX_NAMED or size > self._names_left_bytes:
                whole = path.partition(".")[0][:MAX_NAME_CHARS]
                self._had[whole] = self._had.get(whole, 0) + chars
                return chars
            self._names_left_bytes -= size
            self._had[path] = chars
        return max(self._had[path], chars)

    def _cut_texts(self) -> bytes | None:
        texts = [_Text(*found) for found in self._texts()]
        level = max(KEPT_BYTES, _level([text.size for text in texts], _size(self._fields) - self._limit))
        while True:
            for text in texts:
                if text.size > level:
                    text.had = text.had or self._note(text.path, len(text.text))
                    text.clip(level)
            fitting = self._fitting()
            if fitting is not None or level <= KEPT_BYTES:
                return fitting
            over = (_size(self._fields) - self._limit) // max(1, sum(text.size > level for text in texts))
            level = max(KEPT_BYTES, level - max(over + 8, level // 64))

    def _texts(self) -> Iterator[Found]:
        """Yield every text that may be cut: its path, where it is, and itself."""
        for name, value in self._fields.items():
            if name not in _FIXED[self._kind]:
                yield from _texts_in(name[:MAX_NAME_CHARS], (self._fields, name), value, 0)

    def _leave_out_entries(self) -> bytes | None:
        for name in self._by_size(_WHOLE[self._kind]):
            entries = self._fields[name]
            if isinstance(entries, dict):
                self._keep_what_fits(name, entries)
                if (fitting := self._fitting()) is not None:
                    return fitting
        return None

    def _keep_what_fits(self, name: str, entries: dict[str, Any]) -> None:
        """Keep the entries for which there is room, in their order, beside the names of those that go."""
        kept: dict[str, Any] = {}
        self._fields[name] = kept
        room = self._limit - _size(self._fields) - self._names_left_bytes - MAX_NAME_CHARS
        for key, value in entries.items():
            size = _size({key: value})
            if size <= room:
                kept[key] = value
                room -= size
            else:
                self._note(_path(name, key), size)

    def _leave_out_fields(self) -> bytes | None:
        for name in self._by_size(_NEEDED[self._kind]):
            self._note(name[:MAX_NAME_CHARS], _size(self._fields.pop(name)))
            if (fitting := self._fitting()) is not None:
                return fitting
        self._had = {}
        self._fields.pop("cut", None)
        return self._fitting()

    def _by_size(self, without: frozenset[str]) -> list[str]:
        names = [name for name in self._fields if name not in without]
        return sorted(names, key=lambda name: _size(self._fields[name]), reverse=True)


class _Text:
    """One text that may be cut, and where it is."""

    def __init__(self, path: str, place: Place, text: str) -> None:
        self.path = path
        self.text = text
        self.size = _size(text)
        self.had = 0
        self._holder, self._key = place

    def clip(self, level: int) -> None:
        """Put about `level` bytes of it in its place: beginning and end, with the mark between."""
        keep = max(0, int(len(self.text) * level / self.size) - len(_mark(self.had)) - 6)
        head = int(keep * _TEXT_SHARE)
        tail = self.text[len(self.text) - (keep - head) :]
        self._holder[self._key] = self.text[:head] + _mark(self.had - keep) + tail


def _mark(chars: int) -> str:
    return f"… [{chars} characters cut] …"


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))


def _path(around: str, name: Any) -> str:
    return f"{around}.{name}"[:MAX_NAME_CHARS]


def _texts_in(path: str, place: Place, value: Any, depth: int) -> Iterator[Found]:
    if isinstance(value, str):
        yield path, place, value
    elif depth < MAX_DEPTH and isinstance(value, (dict, list)):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts_in(_path(path, name), (value, name), one, depth + 1)


def _level(sizes: list[int], excess: int) -> int:
    """Return the size down to which all texts must be cut, as water finds its level, to save `excess` bytes."""
    longest = sorted(sizes, reverse=True)
    above = 0
    for count, size in enumerate(longest, 1):
        above += size
        below = longest[count] if count < len(longest) else 0
        if above - count * below >= excess:
            return (above - excess) // count
    return 0
