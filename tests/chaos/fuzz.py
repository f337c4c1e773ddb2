"""Messages that are no events, nearly events, or events in odd clothes, each with what must become of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from tests.chaos.load import EITHER, EXPIRED, STORED, Sent, fleet
from tests.running import Raw, message_of

from voicelog.errors import DecodeError
from voicelog.events import TOPICS, Event
from voicelog.wire import decode

TTL_DAYS = 90
SESSIONS = 200
"""The fuzz shares so many calls, each message with a stream of its own."""
WRONG_TYPES: tuple[tuple[str, Any], ...] = (
    ("seq", "7"), ("seq", -1), ("seq", 2**63), ("seq", 1.5), ("ts", "now"), ("ts", 0), ("ts", 10**18), ("ts", True),
    ("session_id", 7), ("session_id", ["x"]), ("session_id", "x" * 1025), ("stream_id", {}), ("stage", ""),
    ("duration_ms", "12"), ("duration_ms", []), ("items", -3), ("attributes", "none"), ("attributes", [1]),
    ("usage", {"input_tokens": "many"}), ("usage", 5), ("error", "boom"), ("error", {"message": "no type"}),
    ("turn_id", 4), ("provider", {"name": "acme"}), ("host", "h" * 1025), ("attempts", {}), ("cut", {"text": -1}),
)  # fmt: skip
"""Fields with a value that they can't have."""
NO_JSON = (
    b"", b"\xef\xbb\xbf{}", b"{", b"nul", b"NaN", b'{"v": 1, "type": NaN}', b"{'v': 1}", b'{"v": 1,}', b"\x00",
    b'{"v": 1, "type": "log", "message": "\\ud800"}', b'{"v": 1, "type": "log", "message": "\xed\xa0\x80"}',
    b'"\xc3\x28"', b"\xff\xfe{\x00}\x00", b"{}{}", b"[" * 100_000, b'{"a":' * 5_000, b"0x1f", b"01", b'"a\nb"',
    b"\x1f\x8b\x08\x00garbage",
)  # fmt: skip
NO_EVENT = (
    b"{}", b"[]", b"null", b"true", b"0", b'""', b"[[[[]]]]", b'{"v": 1}', b'{"type": "log"}', b"1e300", b"-0.0",
    b'{"order": 7, "lines": [{"sku": "a"}]}', b'[{"v": 1, "type": "log"}]', b'"{\\"v\\": 1, \\"type\\": \\"log\\"}"',
)  # fmt: skip
VERSIONS = (0, 2, 99, -1, "2", "2.1", "", "x", None, True, False, 1.5, [1], {"major": 1}, 10**30)
KINDS = ("", "STT_RESULT", "stt-result", "dance", 7, None, ["log"], {"type": "log"}, "log ", "x" * 10_000)


class Fuzz:
    """A source of messages; all that it gives differ. Nothing of it shares a call with anything else."""

    def __init__(self, random: Random, tag: str = "fuzz") -> None:
        self._random = random
        self._tag = tag
        self._number = 0
        self._oldest_us = (time.time() - TTL_DAYS * 86_400) * 1e6
        self._good = [event for event in fleet(random, 30, f"{tag}-seed") if event.session_id]
        self._kinds: tuple[tuple[int, Callable[[], Sent]], ...] = (
            (4, self._bytes), (4, self._not_json), (4, self._not_an_event), (2, self._truncated), (2, self._tombstone),
            (8, self._wrong_type), (5, self._dropped), (3, self._emptied), (3, self._version), (3, self._kind),
            (3, self._too_large_a_number), (4, self._flipped), (2, self._expired), (1, self._deep),
            (6, self._newer), (4, self._dressed), (3, self._foreign_key), (3, self._odd_text), (2, self._headers),
        )  # fmt: skip

    def messages(self, count: int) -> list[Sent]:
        """Return so many messages."""
        weights = [weight for weight, _ in self._kinds]
        makers = [maker for _, maker in self._kinds]
        return [maker() for maker in self._random.choices(makers, weights, k=count)]

    # --- what is no event

    def _bytes(self) -> Sent:
        value = b"\x80" + self._random.randbytes(self._random.randrange(300))  # no UTF-8 begins so
        return self._dead("not_json", value)

    def _not_json(self) -> Sent:
        return self._dead("not_json", self._random.choice(NO_JSON))

    def _not_an_event(self) -> Sent:
        return self._dead("not_an_event", self._random.choice(NO_EVENT))

    def _truncated(self) -> Sent:
        value = message_of(self._event()).value or b""
        return self._dead("not_json", value[: self._random.randrange(1, len(value) - 1)])

    def _tombstone(self) -> Sent:
        return self._dead("not_json", None)

    # --- nearly-right events

    def _wrong_type(self) -> Sent:
        name, value = self._random.choice(WRONG_TYPES)
        return self._changed("invalid_field", {name: value})

    def _dropped(self) -> Sent:
        return self._changed("missing_field", {}, self._random.choice(("session_id", "stream_id", "seq", "ts")))

    def _emptied(self) -> Sent:
        name, value = self._random.choice((("session_id", ""), ("session_id", None), ("stream_id", ""), ("seq", None)))
        return self._changed("missing_field", {name: value})

    def _version(self) -> Sent:
        return self._changed("unsupported_version", {"v": self._random.choice(VERSIONS)})

    def _kind(self) -> Sent:
        return self._changed("unknown_type", {"type": self._random.choice(KINDS)})

    def _too_large_a_number(self) -> Sent:
        name = self._random.choice(("seq", "ts", "items"))
        return self._changed("invalid_field", {name: self._random.choice((2**64, 2**70, 10**40, -(2**63)))})

    def _flipped(self) -> Sent:
        """One byte of a good event is another: what it is now, only the wire's rules can tell."""
        good = self._event()
        while True:
            value = bytearray(message_of(good).value or b"")
            value[self._random.randrange(len(value))] = self._random.randrange(256)
            sent = self._judged(bytes(value))
            if sent.event is None or not self._is_taken(sent.event.stream_id, good.stream_id):
                return sent

    def _is_taken(self, stream_id: str, own: str) -> bool:
        """Say whether it could be another message's stream: two events of one number are no sum that can be checked."""
        return (
            stream_id != own
            and stream_id.startswith(f"{self._tag}-")
            and stream_id.removeprefix(f"{self._tag}-").isdigit()
        )

    def _expired(self) -> Sent:
        event = attrs.evolve(self._event(), ts=1_000_000_000_000_000 + self._number)
        return Sent(message_of(event), EXPIRED)

    def _deep(self) -> Sent:
        levels = self._random.choice((50, 100, 200, 900, 5_000))
        fields = self._fields(self._event())
        fields["attributes"] = 1
        value = json.dumps(fields).encode().replace(b'"attributes": 1', b'"attributes": %s' % _nested(levels))
        return Sent(self._raw(value), STORED, decode(value)) if levels <= 200 else self._judged(value)

    # --- events in odd clothes

    def _newer(self) -> Sent:
        """A later minor version of the library knows more."""
        more = {"mood": self._random.choice(["calm", None, 7]), "latency": {"p50": 3.5, "of": [1, 2]}, "v": "1.7"}
        return self._good_with(more)

    def _dressed(self) -> Sent:
        """The same event, written by another JSON library."""
        fields = self._fields(self._event())
        pairs = list(fields.items())
        self._random.shuffle(pairs)
        text = json.dumps(dict(pairs), indent=self._random.choice([None, 2]), ensure_ascii=self._random.random() < 0.5)
        value = f' \r\n\t{text[:-1]}, "seq": {fields["seq"]}}}\n'.encode()  # a name twice: the last one counts
        return Sent(self._raw(value), STORED, decode(value))

    def _foreign_key(self) -> Sent:
        message = message_of(event := self._event())
        key = self._random.choice([None, b"", b"\xff\x00", b"another-call", b"k" * 3_000])
        return Sent(message._replace(key=key), STORED, event)

    def _odd_text(self) -> Sent:
        text = self._random.choice(
            ["\x00", "a\x00b", "\u202e\ufeff", "😀" * 50, "'; DROP TABLE calls; --", "\\u0000", "\ufffe"]
        )
        return self._good_with({"turn_id": text, "attributes": {text: [text, {"": text}]}})

    def _headers(self) -> Sent:
        headers = [("traceparent", b"garbage"), ("voicelog", b"\xff"), ("", b""), ("twice", b"1"), ("twice", b"2")]
        if self._random.random() < 0.5:
            return Sent(message_of(event := self._event())._replace(headers=headers), STORED, event)
        return Sent(self._dead("not_json", b"garbage").message._replace(headers=headers), "not_json")

    # --- inside

    def _event(self) -> Event:
        self._number += 1
        of, stream_id = f"{self._tag}-{self._number % SESSIONS}", f"{self._tag}-{self._number}"
        return attrs.evolve(self._random.choice(self._good), session_id=of, stream_id=stream_id, seq=1)

    def _fields(self, event: Event) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(message_of(event).value or b"")
        return fields

    def _changed(self, fate: str, changes: dict[str, Any], without: str = "") -> Sent:
        event = next(e for e in iter(self._event, None) if not e.SESSION_OPTIONAL)
        fields = {n: v for n, v in {**self._fields(event), **changes}.items() if n != without}
        return Sent(self._raw(json.dumps(fields).encode(), event.TOPIC), fate)

    def _good_with(self, changes: dict[str, Any]) -> Sent:
        value = json.dumps({**self._fields(self._event()), **changes}).encode()
        return Sent(self._raw(value), STORED, decode(value))

    def _judged(self, value: bytes) -> Sent:
        try:
            event = decode(value)
        except DecodeError as exc:
            return Sent(self._raw(value), exc.reason)
        if event.ts < self._oldest_us:
            return Sent(self._raw(value), EXPIRED)
        return Sent(self._raw(value), EITHER, event)

    def _dead(self, reason: str, value: bytes | None) -> Sent:
        return Sent(self._raw(value), reason)

    def _raw(self, value: bytes | None, topic: str = "") -> Raw:
        key = self._random.choice([None, b"", b"\x00\xff", f"{self._tag}-{self._random.randrange(SESSIONS)}".encode()])
        return Raw(topic or self._random.choice(TOPICS), value, key)


def _nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels
