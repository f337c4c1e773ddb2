"""The client: joins clock, ids, counters and producer, and turns fields into messages. One a process."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry.trace import TracerProvider

from voicelog import cut, redact, tracing
from voicelog.background import Background
from voicelog.clean import clean, shown, text
from voicelog.clock import Anchor, Clock, SystemClock
from voicelog.content import Content, Own
from voicelog.counters import Counters
from voicelog.errors import ConfigError
from voicelog.events import EVENT_TYPES, SCHEMA_VERSION, TOPIC_OF, wire_fields
from voicelog.ids import Ids, RandomIds
from voicelog.kafka import MESSAGE_MAX_BYTES
from voicelog.prices import Prices
from voicelog.producer import Producer
from voicelog.sampling import Sampler
from voicelog.settings import CONTENT_KINDS, Settings
from voicelog.stream import Stream
from voicelog.watch import Watcher
from voicelog.wire import Headers, encode_fields, encode_value

logger = logging.getLogger("voicelog")


class Client:
    """Everything that a configured process needs to emit events; used through the module's `current`."""

    __slots__ = (
        "__dict__", "__weakref__", "closed", "count_produced", "left_out_of", "looks_within", "max_bytes", "now_ns",
        "prices", "producer", "watcher",
    )  # fmt: skip
    # slots for what each stage reads: voicelog._hot reads them in place

    def __init__(
        self,
        settings: Settings,
        producer: Producer,
        counters: Counters,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        strict: bool = False,
        captures: bool = False,
    ) -> None:
        self.settings = settings
        self.producer = producer
        self.counters = counters
        self.clock: Clock = clock or SystemClock()
        self.ids: Ids = ids or RandomIds()
        self.strict = strict
        self.captures = captures
        """Whether it is a test's: configure() leaves it in place, and a fork keeps it."""
        self.closed = False
        named = {"service": text(settings.service), "host": text(settings.host)}
        self.who = {name: value for name, value in named.items() if value}
        self.count_produced = counters.count_produced
        self.now_ns = self.clock.now_ns
        self.left_out = frozenset(CONTENT_KINDS) - settings.capture_content
        self.left_out_of = {kind: self._fields_left_out(kind) for kind in EVENT_TYPES}
        """By event type: the fields that capture_content leaves out whole, but for attributes."""
        self.content = Content.without(settings.capture_content)
        self.redactor = redact.build(settings.redact, counters)
        self.looks_within = self.redactor is not None or (self.content is not None and self.content.deep)
        """Whether what is private may be in other places than fields that are left out whole, and attributes."""
        self.sampler = self._sampler() if settings.sample_rate < 1 else None
        self.prices = Prices.load(settings.prices, counters)
        self.max_bytes: int = cut.limit_bytes(settings.max_message_bytes, MESSAGE_MAX_BYTES)
        self.process = self._process_stream()
        self.watcher: Watcher | None = None
        self.background: Background | None = None
        self.tracer_provider: TracerProvider | None = None
        """In the place of OpenTelemetry's global one, which a process can set only once."""

    def live(self) -> Client:
        """Return this client, or the one that took its place after a reconfiguration or a fork."""
        current = state.current
        return current if self.closed and current is not None else self

    def _fields_left_out(self, kind: str) -> tuple[str, ...]:
        return tuple(self.left_out.intersection(wire_fields(EVENT_TYPES[kind])) - {"attributes"})

    def _sampler(self) -> Sampler:
        given = self.settings
        return Sampler(given.sample_rate, given.sample_hold_max_bytes, given.slow_turn_ms, self.counters, self.deliver)

    def _process_stream(self) -> Stream:
        key = f"~{self.who.get('service', '')}/{self.who.get('host', '')}"
        return Stream(self.ids.stream(), key, self.who, Anchor(self.clock))

    def emit(
        self,
        stream: Stream,
        kind: str,
        start_ns: int,
        fields: dict[str, Any],
        headers: Headers | None = None,
        seq: int | None = None,
    ) -> None:
        """Count, encode and produce one event that began at `start_ns`; takes `fields` over. Never blocks."""
        if seq is None:
            seq = stream.next_seq()
        fields["seq"] = seq
        fields["event_id"] = f"{stream.stream_id}-{seq}"
        anchor = stream.anchor
        fields["ts"] = anchor.wall_us + (start_ns - anchor.mono_ns) // 1000
        if self.closed:
            self.counters.add("dropped", "closed")
            return
        left_out = self.left_out_of[kind]
        if left_out:
            for name in left_out:
                fields.pop(name, None)
        if self.looks_within or "attributes" in fields:
            fields = self._made_private(fields)
        try:
            value = (stream.heads.get(kind) or stream.head(kind)) + encode_fields(fields)[1:]
        except Exception:  # also what a user's object raises while it is read
            self.counters.add("cleaned")
            whole = self._encode_cleaned(stream, kind, fields)
            if whole is None:
                return
            value = whole
        if len(value) > self.max_bytes:
            value = self._cut(value)
        if stream.hold is not None:
            stream.hold.see(fields)
            stream.hold.add(TOPIC_OF[kind], stream.key, value, headers)
            return
        reason = self.producer.produce(TOPIC_OF[kind], stream.key, value, headers)
        if reason is None:
            self.count_produced()
        else:
            self.counters.add("dropped", reason)

    def _made_private(self, fields: dict[str, Any]) -> dict[str, Any]:
        if isinstance(fields, Own):
            return dict(fields)
        if self.content is not None:
            self.content.leave_out_within(fields)
        return fields if self.redactor is None else self.redactor.fields(fields)

    def deliver(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> None:
        """Produce a message that was held, through the client that is live by then."""
        client = self.live()
        reason = "closed" if client.closed else client.producer.produce(topic, key, value, headers)
        if reason is None:
            client.count_produced()
        else:
            client.counters.add("dropped", reason)

    def emit_last(self, stream: Stream, kind: str, start_ns: int, fields: dict[str, Any]) -> None:
        """Emit the event that ends a stream; it carries the stream's total."""
        headers = tracing.stamp(fields)
        seq = stream.next_seq()
        weight = stream.hold.end(fields) if stream.hold is not None else {}
        self.emit(stream, kind, start_ns, {**fields, **weight, "events_total": seq}, headers, seq)

    def _encode_cleaned(self, stream: Stream, kind: str, fields: dict[str, Any]) -> bytes | None:
        """Return the JSON of an event with values that are not JSON's."""
        event = {"v": SCHEMA_VERSION, "type": kind, **stream.base, **fields}
        try:
            return encode_value({name: clean(value) for name, value in event.items()})
        except Exception as exc:
            sentence = self._sentence(f"an event can't be written as JSON: {shown(exc)}")
            self.counters.report("dropped", "encode", sentence)
            return None

    def _cut(self, value: bytes) -> bytes:
        """Return the value cut to what the sink takes; whole where nothing of it can go, for the dead letters."""
        shorter = cut.shorten(value, self.max_bytes)
        if shorter is None:
            return value
        self.counters.add("cut")
        return shorter

    def emit_loose(self, kind: str, fields: dict[str, Any]) -> None:
        """Emit an event that may be outside of any session: on the process's own stream."""
        if self.background is not None:
            self.background.wake()
        stream = self.process
        stream.anchor = Anchor(self.clock)
        headers = tracing.stamp(fields)
        self.emit(stream, kind, stream.anchor.mono_ns, fields, headers)

    def shown(self, kind: str, value: Any) -> str:
        """Return a value for a sentence; of content that is not sent its type alone."""
        return f"<{type(value).__name__}>" if kind in self.left_out else shown(value)

    def _sentence(self, sentence: str) -> str:
        return self.redactor.text(sentence) if self.redactor is not None else sentence

    def invalid(self, what: str, sentence: str) -> None:
        """Count a wrong value or call, and say so once; raises ConfigError under voicelog.testing.capture().

        The sentence may show the value, so it is redacted as a text of an event is.
        """
        sentence = self._sentence(sentence)
        if self.strict:
            raise ConfigError(sentence)
        self.counters.report("invalid", what, sentence)

    def fault(self, where: str, exc: BaseException) -> None:
        """Count an error inside voicelog, and say so once; raises it under voicelog.testing.capture()."""
        if self.strict:
            raise exc
        self.counters.add("faults", where)
        sentence = self._sentence(f"internal error in {where}, your program goes on: {shown(exc)}")
        self.counters.warn_once("faults", where, sentence)

    def no_session(self, what: str) -> None:
        """Count an event that belongs to no session."""
        sentence = f"{what} outside of a session is not recorded: put `with voicelog.session():` around the call"
        if self.strict:
            raise ConfigError(sentence)
        self.counters.report("dropped", "no_session", sentence)


class _State:
    """The process's client; None means off."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: Client | None = None


state = _State()
