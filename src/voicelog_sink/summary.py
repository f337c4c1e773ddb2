"""What is to be known of a call in one row, computed from all its events, whatever their order. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import msgspec

from voicelog.events import Event, shard_of
from voicelog_sink.rows import day_of, to_json
from voicelog_sink.stores.base import Row, Values
from voicelog_sink.tables import SESSION_SUMMARIES, SESSIONS_BY_DAY
from voicelog_sink.tally import SLOW_TURN_MS, StreamCount, Tally


@attrs.frozen(kw_only=True)
class Summary:
    """One call. Moments are epoch milliseconds; `duration_ms` reaches to the last thing known of it.

    `ended_at` is None while a stream has no end. Latency figures and `slow_turns` are of turns with quality ok alone;
    `excluded_turns` counts the others. `audio_ms` is the audio that was recognised. `cost_usd` is the sum of the known
    costs, and `unpriced` the number of stages that reported usage and have none.
    """

    session_id: str
    started_at: int
    ended_at: int | None
    duration_ms: float
    service: str | None
    host: str | None
    user_id: str | None
    variant: str | None
    providers: tuple[str, ...]
    models: tuple[str, ...]
    turns: int
    errors: int
    interruptions: int
    slow_turns: int
    user_bot_latency_p50_ms: float | None
    user_bot_latency_max_ms: float | None
    excluded_turns: int
    input_tokens: int | None
    output_tokens: int | None
    characters: int | None
    audio_ms: float | None
    cost_usd: float | None
    unpriced: int
    expected: int
    received: int
    missing: int
    completeness: str
    disconnect_reason: str | None
    attributes: dict[str, Any] | None
    streams: tuple[StreamCount, ...]
    rows_read: int

    @property
    def day(self) -> str:
        """The UTC day on which the call began: where sessions_by_day lists it."""
        return day_of(self.started_at * 1000)


def summarise(events: Iterable[Event], slow_turn_ms: float = SLOW_TURN_MS) -> Summary | None:
    """Return the summary of one call's events, each given once, in any order; None without events.

    A turn of `slow_turn_ms` or more counts as slow.
    """
    tally = Tally(slow_turn_ms)
    for event in events:
        tally.add(event)
    return Summary(**tally.fields()) if tally.rows_read else None


def summary_rows(summary: Summary) -> list[Row]:
    """Return the rows of session_summaries and sessions_by_day; every column is there, absent as None."""
    values = attrs.asdict(summary, recurse=False)
    values |= {"providers": to_json(summary.providers), "models": to_json(summary.models)}
    values["streams"] = to_json(summary.streams)
    values["attributes"] = to_json(summary.attributes) if summary.attributes is not None else None
    listed = {**values, "day": summary.day, "shard": shard_of(summary.session_id)}
    return [
        Row(SESSION_SUMMARIES.name, {name: values[name] for name in SESSION_SUMMARIES.columns}),
        Row(SESSIONS_BY_DAY.name, {name: listed[name] for name in SESSIONS_BY_DAY.columns}),
    ]


def summary_of(values: Values) -> Summary:
    """Return the summary that a row of session_summaries holds."""
    attributes = values.get("attributes")
    parsed = {
        "providers": names_of(values.get("providers")),
        "models": names_of(values.get("models")),
        "streams": msgspec.json.decode(values.get("streams") or "[]", type=tuple[StreamCount, ...]),
        "attributes": msgspec.json.decode(attributes) if attributes is not None else None,
        "unpriced": values.get("unpriced") or 0,  # a row of before there was the column
    }
    return Summary(**{name: values.get(name) for name in SESSION_SUMMARIES.columns} | parsed)


def names_of(text: str | None) -> tuple[str, ...]:
    """Return the names in a column of providers or models."""
    return msgspec.json.decode(text or "[]", type=tuple[str, ...])
