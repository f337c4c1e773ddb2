"""The events: one frozen class per type, and the tables that are made from them.

A class declares its fields once; topics, validation, table columns, documentation and tests read them from here.
Absent is `None` (and not sent), never 0 or -1. Every field's unit is in its name.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Any, ClassVar

import attrs
from msgspec import Meta

SCHEMA_VERSION = 1
"""The major version in the field `v`; another one goes to the dead letters."""

SHARDS = 16
"""Number of shards that a table's partitions are spread over; fixed for ever."""

INT64_MAX = 2**63 - 1
TS_MIN_US = 946_684_800_000_000
TS_MAX_US = 4_102_444_800_000_000
"""A `ts` lies from 2000 to 2100: milliseconds or nanoseconds by mistake are refused, not stored as 1970."""

Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Microseconds = Annotated[int, Meta(ge=TS_MIN_US, lt=TS_MAX_US)]
Name = Annotated[str, Meta(min_length=1, max_length=1024)]
"""A text that is part of a table's key."""

STATUSES = ("ok", "error", "interrupted", "cancelled")
QUALITIES = ("ok", "interrupted", "no_anchor", "clock_suspect", "estimated")
ANCHORS = ("vad", "stt_final", "push_to_talk", "manual", "provider")

TOPIC_STT = "stt-results"
TOPIC_LLM = "llm-requests"
TOPIC_TTS = "tts-results"
TOPIC_EVENTS = "voice-events"
TOPIC_DEAD_LETTERS = "voicelog-dlq"
TOPICS = (TOPIC_STT, TOPIC_LLM, TOPIC_TTS, TOPIC_EVENTS)
"""The topics that carry events; the dead letters are apart."""


def _field(doc: str, *, text: bool = False, choices: tuple[str, ...] = ()) -> Any:
    return attrs.field(default=None, metadata={"doc": doc, "text": text, "choices": choices})


def _required(doc: str) -> Any:
    return attrs.field(metadata={"doc": doc, "text": False, "choices": ()})


@attrs.frozen(kw_only=True)
class ErrorInfo:
    """What went wrong: `type` is the exception's qualified name, `stack` its formatted traceback."""

    type: str
    message: str = ""
    stack: str | None = None


@attrs.frozen(kw_only=True)
class Contribution:
    """One part of a turn's latency: `us` microseconds that belong to `key`, owed to `owner`."""

    key: str
    us: Count
    owner: str
    stage: str | None = None


@attrs.frozen(kw_only=True)
class Figure:
    """One figure of a turn, in milliseconds, with what it was measured from and how far to trust it.

    It has no value where its quality says that it can't be measured: no_anchor, or clock_suspect.
    """

    value_ms: float | None
    quality: str = "ok"
    anchor: str | None = None


@attrs.frozen(kw_only=True)
class Attempt:
    """One try at a provider within a stage: a retry, or a failover to another one."""

    provider: str | None = None
    model: str | None = None
    start_ms: float | None = None
    """From the stage's start, milliseconds."""
    duration_ms: float | None = None
    status: str = "ok"
    error: ErrorInfo | None = None


@attrs.frozen(kw_only=True)
class BargeIn:
    """The user spoke into the bot's speech: when, when the bot fell silent, and what was made but never heard."""

    onset_us: Microseconds
    stop_us: Microseconds | None = None
    stop_ms: float | None = None
    synthesised_characters: Count | None = None
    played_characters: Count | None = None
    synthesised_audio_ms: float | None = None
    played_audio_ms: float | None = None
    wasted_usd: float | None = None


@attrs.frozen(kw_only=True)
class Event:
    """The fields that every event has."""

    TYPE: ClassVar[str] = ""
    TOPIC: ClassVar[str] = TOPIC_EVENTS
    SESSION_OPTIONAL: ClassVar[bool] = False

    stream_id: Name = _required("one per entered session() block; one per process for events without a session")
    seq: Count = _required("the event's count in its stream, from 1, taken before anything can be dropped")
    ts: Microseconds = _required("start, epoch microseconds, UTC")
    session_id: Name | None = _field("the call; absent only for health, metric, log and error events")
    turn_id: str | None = _field("the turn within the call")
    stage: Name | None = _field("the part of the pipeline: stt, llm, tts, vad, tool, or a name of one's own")
    duration_ms: float | None = _field("wall span from start to end, by the monotonic clock, milliseconds")
    first_item_ms: float | None = _field("start to the first item (token, audio chunk, mark_first()), milliseconds")
    items: Count | None = _field("number of items that a streaming stage yielded")
    producer_ms: float | None = _field(
        "time a streaming stage was waited for, without the consumer's own between items, milliseconds"
    )
    longest_gap_ms: float | None = _field("longest wait for a next item after the first, milliseconds")
    status: str | None = _field("how it ended", choices=STATUSES)
    service: Name | None = _field("the program that measured")
    host: Name | None = _field("the machine it ran on")
    user_id: str | None = _field("the person who called; `forget` finds their calls by it")
    provider: str | None = _field("who answered: deepgram, openai, ...")
    model: str | None = _field("the provider's model")
    variant: str | None = _field("the A/B variant of the call")
    trace_id: str | None = _field("OpenTelemetry's trace id, 32 hex digits, when a span was current")
    span_id: str | None = _field("the stage's own id, 16 hex digits; OpenTelemetry's span id when a span was current")
    parent_id: str | None = _field("span_id of the stage around it")
    attributes: dict[str, Any] | None = _field("whatever else was given", text=True)
    usage: dict[str, float] | None = _field(
        "input_tokens, output_tokens, cache_read_input_tokens, reasoning_tokens, input_audio_tokens, "
        "output_audio_tokens, characters_count, audio_seconds, and the rest of voicelog.usage.USAGE; a whole includes "
        "its parts"
    )
    cost_usd: float | None = _field("US dollars by the user's price table; absent where a price is missing")
    price_version: str | None = _field("version of the price table that cost_usd was computed with")
    attempts: list[Attempt] | None = _field(
        "the tries at providers, in order, when there was more than one; provider and model name who answered",
        text=True,
    )
    cut: dict[str, Count] | None = _field(
        "texts that were longer than the broker takes: field to the characters it had before it was cut", text=True
    )
    error: ErrorInfo | None = _field("exception type, message and stack trace", text=True)
    extra: dict[str, Any] | None = attrs.field(
        default=None,
        metadata={"doc": "fields of a newer version that this one does not know", "text": True, "wire": False},
    )

    @property
    def event_id(self) -> str:
        """The event's identity, `stream_id-seq`: the same however often it is delivered."""
        return f"{self.stream_id}-{self.seq}"

    @property
    def key(self) -> str:
        """Key of the message: the session id, or `~service/host` without one."""
        return self.session_id or f"~{self.service or ''}/{self.host or ''}"

    @property
    def shard(self) -> int:
        """crc32(key) % 16."""
        return shard_of(self.key)


@attrs.frozen(kw_only=True)
class SttResult(Event):
    """One run of speech recognition."""

    TYPE = "stt_result"
    TOPIC = TOPIC_STT
    transcript: str | None = _field("what was heard", text=True)
    confidence: float | None = _field("0 to 1, as the provider gave it")
    language: str | None = _field("BCP 47 tag")
    is_final: bool | None = _field("false for an interim result")
    audio_ms: float | None = _field("length of the audio, milliseconds")


@attrs.frozen(kw_only=True)
class LlmRequest(Event):
    """One request to a language model."""

    TYPE = "llm_request"
    TOPIC = TOPIC_LLM
    prompt: str | None = _field(
        "what was asked: a text, or the list of messages as JSON; sent only when capture_content names it", text=True
    )
    response: str | None = _field("what was answered", text=True)
    parameters: dict[str, Any] | None = _field("temperature, max_tokens, ...", text=True)
    finish_reason: str | None = _field("stop, length, tool_calls, ...")


@attrs.frozen(kw_only=True)
class TtsResult(Event):
    """One run of speech synthesis."""

    TYPE = "tts_result"
    TOPIC = TOPIC_TTS
    text: str | None = _field("what was spoken", text=True)
    voice: str | None = _field("the provider's voice")
    audio_ms: float | None = _field("length of the audio, milliseconds")
    sample_rate_hz: Count | None = _field("of the audio, hertz")
    characters: Count | None = _field("characters that were synthesised")
    bytes: Count | None = _field("bytes of audio")


@attrs.frozen(kw_only=True)
class StageEvent(Event):
    """Any other part of the pipeline: vad, tool, retrieval, a name of one's own."""

    TYPE = "stage"


@attrs.frozen(kw_only=True)
class StageStarted(Event):
    """A stage is still open after stage_started_after_ms: a provider that hangs is seen while it hangs."""

    TYPE = "stage_started"


@attrs.frozen(kw_only=True)
class SessionStarted(Event):
    """A session() block was entered."""

    TYPE = "session_started"


@attrs.frozen(kw_only=True)
class SessionEnded(Event):
    """A session() block was left."""

    TYPE = "session_ended"
    events_total: Count | None = _field("events of this stream up to and with this one: proves gaps")
    disconnect_reason: str | None = _field("user_hangup, agent_hangup, error, timeout, unknown, or a word of one's own")
    sample_rate: float | None = _field(
        "share of such calls that is kept, above 0 to 1: each stands for 1/sample_rate calls; absent without sampling"
    )
    sample_reason: str | None = _field("why a sampled call was kept: chance, error, slow, or early (its hold was full)")


@attrs.frozen(kw_only=True)
class Turn(Event):
    """One turn: from the user's speech to the bot's."""

    TYPE = "turn"
    turn_number: Count | None = _field("1 for the first turn of the stream")
    marks: dict[str, Microseconds] | None = _field(
        "name to epoch microseconds: user_speech_end, stt_final, playback_start, ..."
    )
    contributions: list[Contribution] | None = _field("contiguous parts that sum exactly to user_bot_latency_ms")
    figures: dict[str, Figure] | None = _field("every measured figure by its name, with anchor and quality")
    user_bot_latency_ms: float | None = _field("playback_start - user_speech_end, measured, milliseconds")
    unattributed_ms: float | None = _field("the part of it that no stage and no mark covers, milliseconds")
    anchor: str | None = _field("what user_speech_end was taken from", choices=ANCHORS)
    quality: str | None = _field("how far user_bot_latency_ms can be trusted", choices=QUALITIES)
    was_interrupted: bool | None = _field("the user spoke into the bot's speech")
    barge_in: BargeIn | None = _field("how the user cut the bot off, and what was synthesised and what was played")
    end_reason: str | None = _field("completed, interrupted, error (an exception left it), session_closed")


@attrs.frozen(kw_only=True)
class Metric(Event):
    """A figure of the user's own."""

    TYPE = "metric"
    SESSION_OPTIONAL = True
    name: Name = _required("the metric's name")
    value: float = _required("its value, in `unit`")
    unit: str | None = _field("UCUM code: ms, By, {token}, 1, ...")


@attrs.frozen(kw_only=True)
class Log(Event):
    """A log record."""

    TYPE = "log"
    SESSION_OPTIONAL = True
    level: str = _required("DEBUG, INFO, WARNING, ERROR, CRITICAL")
    message: str = _required("the formatted message")
    logger: str | None = _field("the logger's name")


@attrs.frozen(kw_only=True)
class Error(Event):
    """An error outside of a stage; a stage's failure is in the stage's own event."""

    TYPE = "error"
    SESSION_OPTIONAL = True


@attrs.frozen(kw_only=True)
class Health(Event):
    """State of a component: library process, sink, broker, store, or the user's own."""

    TYPE = "health"
    SESSION_OPTIONAL = True
    component: Name = _required("whose state it is")
    state: str = _required("ok, degraded, down, or a word of one's own")


EVENT_TYPES: dict[str, type[Event]] = {
    c.TYPE: c
    for c in (
        SttResult, LlmRequest, TtsResult, StageEvent, StageStarted, SessionStarted, SessionEnded, Turn,
        Metric, Log, Error, Health,
    )
}  # fmt: skip
"""Every event class by its `type`."""

STAGE_TYPES: dict[str, type[Event]] = {"stt": SttResult, "llm": LlmRequest, "tts": TtsResult}
"""The event class of a finished stage by the stage's name; any other name is a `StageEvent`."""

FINISHED_STAGES = frozenset({"stt_result", "llm_request", "tts_result", "stage"})
"""The types that stand for a finished stage."""

TOPIC_OF: dict[str, str] = {name: c.TOPIC for name, c in EVENT_TYPES.items()}
"""An event type's topic, without the prefix."""


def wire_fields(cls: type[Event]) -> tuple[str, ...]:
    """The names of the fields that go over the wire, in the class's order, without `v`, `type` and `event_id`."""
    return tuple(a.name for a in attrs.fields(cls) if a.metadata.get("wire", True))


def required_fields(cls: type[Event]) -> tuple[str, ...]:
    """The names of the fields that an event of this class must have."""
    names = tuple(a.name for a in attrs.fields(cls) if a.default is attrs.NOTHING)
    return names if cls.SESSION_OPTIONAL else ("session_id", *names)


def shard_of(key: str) -> int:
    """Return the shard of a message's key: crc32 of its UTF-8 bytes, modulo 16."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % SHARDS
