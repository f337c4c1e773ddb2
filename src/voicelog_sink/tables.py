"""The tables: their columns, keys and lifetimes, once for both stores.

SQLite makes its tables from here. cql/NNN_*.cql says the same in CQL; `init --check` and a test compare the live
schema with this module, so that neither can drift.
"""

from __future__ import annotations

from enum import Enum

import attrs

TEXT = "text"
INT = "bigint"
SMALL = "int"
REAL = "double"
BOOL = "boolean"
TIME = "timestamp"
BLOB = "blob"
"""Column types by CQL's names. A TIME is milliseconds since the epoch wherever Python sees it."""


class Life(Enum):
    """How a table's rows come and go."""

    APPENDED = "appended"
    """Written once, with a TTL counted from the row's ts."""
    REWRITTEN = "rewritten"
    """Replaced as a whole; where `version` names a column, a row with a lower one never replaces a higher one."""


@attrs.frozen
class Table:
    """One table; `columns` maps each column to its type, keys first, in the order of the CQL."""

    name: str
    partition_key: tuple[str, ...]
    clustering: tuple[str, ...]
    columns: dict[str, str]
    life: Life
    descending: tuple[str, ...] = ()
    version: str | None = None
    lifetime_days: int | None = None
    indexes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """Columns with what was said or written by people or programs: they may go before the row does."""

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row."""
        return self.partition_key + self.clustering


@attrs.frozen
class View:
    """A view of `table`: its rows under another key, without the text columns, where `partition_key` is set."""

    name: str
    table: str
    partition_key: tuple[str, ...]
    clustering: tuple[str, ...]
    columns: tuple[str, ...]


_WHO = {"service": TEXT, "host": TEXT, "provider": TEXT, "model": TEXT, "variant": TEXT}
_SPAN = {"trace_id": TEXT, "span_id": TEXT, "parent_id": TEXT}

VOICE_INTERACTIONS = Table(
    "voice_interactions",
    ("session_id",),
    ("ts", "stream_id", "seq"),
    {
        "session_id": TEXT, "ts": TIME, "stream_id": TEXT, "seq": INT,
        "ts_us": INT, "v": SMALL, "type": TEXT, "turn_id": TEXT, "stage": TEXT, "stage_hour": TEXT,
        "duration_ms": REAL, "first_item_ms": REAL, "items": INT, "producer_ms": REAL, "longest_gap_ms": REAL,
        "status": TEXT, **_WHO, "user_id": TEXT, **_SPAN, "usage": TEXT, "cost_usd": REAL, "price_version": TEXT,
        "confidence": REAL, "language": TEXT, "is_final": BOOL, "audio_ms": REAL,
        "finish_reason": TEXT, "voice": TEXT, "sample_rate_hz": INT, "characters": INT, "bytes": INT,
        "events_total": INT, "disconnect_reason": TEXT, "sample_rate": REAL, "sample_reason": TEXT,
        "turn_number": INT, "user_bot_latency_ms": REAL, "unattributed_ms": REAL, "anchor": TEXT, "quality": TEXT,
        "was_interrupted": BOOL, "end_reason": TEXT,
        "name": TEXT, "value": REAL, "unit": TEXT, "level": TEXT, "logger": TEXT, "component": TEXT, "state": TEXT,
        "error_type": TEXT,
        "transcript": TEXT, "prompt": TEXT, "response": TEXT, "text": TEXT, "parameters": TEXT, "attributes": TEXT,
        "error_message": TEXT, "error_stack": TEXT, "message": TEXT,
        "marks": TEXT, "contributions": TEXT, "figures": TEXT, "barge_in": TEXT, "attempts": TEXT, "cut": TEXT,
        "extra": TEXT,
    },
    Life.APPENDED,
    texts=(
        "transcript", "prompt", "response", "text", "parameters", "attributes", "error_message", "error_stack",
        "message", "attempts", "extra",
    ),
)  # fmt: skip

TEXT_COLUMNS = (
    "transcript", "prompt", "response", "text", "parameters", "attributes", "error_message", "error_stack", "message",
    "marks", "contributions", "figures", "barge_in", "attempts", "cut", "extra",
)  # fmt: skip
"""Columns of voice_interactions that the view leaves out."""

INTERACTIONS_BY_STAGE = View(
    "interactions_by_stage",
    "voice_interactions",
    ("stage_hour",),
    ("ts", "session_id", "stream_id", "seq"),
    tuple(name for name in VOICE_INTERACTIONS.columns if name not in TEXT_COLUMNS),
)

SESSION_SUMMARIES = Table(
    "session_summaries",
    ("session_id",),
    (),
    {
        "session_id": TEXT, "started_at": TIME, "ended_at": TIME, "duration_ms": REAL,
        "service": TEXT, "host": TEXT, "user_id": TEXT, "variant": TEXT, "providers": TEXT, "models": TEXT,
        "turns": INT, "errors": INT, "interruptions": INT, "slow_turns": INT,
        "user_bot_latency_p50_ms": REAL, "user_bot_latency_max_ms": REAL, "excluded_turns": INT,
        "input_tokens": INT, "output_tokens": INT, "characters": INT, "audio_ms": REAL, "cost_usd": REAL,
        "unpriced": INT, "expected": INT, "received": INT, "missing": INT, "completeness": TEXT,
        "disconnect_reason": TEXT, "attributes": TEXT, "streams": TEXT, "rows_read": INT,
    },
    Life.REWRITTEN,
    version="rows_read",
    lifetime_days=400,
    indexes=("user_id",),
    texts=("attributes",),
)  # fmt: skip

SESSIONS_BY_DAY = Table(
    "sessions_by_day",
    ("day", "shard"),
    ("started_at", "session_id"),
    {
        "day": TEXT, "shard": SMALL, "started_at": TIME, "session_id": TEXT,
        "ended_at": TIME, "duration_ms": REAL, "service": TEXT, "user_id": TEXT, "variant": TEXT,
        "providers": TEXT, "models": TEXT, "turns": INT, "errors": INT, "interruptions": INT, "slow_turns": INT,
        "user_bot_latency_p50_ms": REAL, "user_bot_latency_max_ms": REAL, "cost_usd": REAL,
        "missing": INT, "completeness": TEXT, "rows_read": INT,
    },
    Life.REWRITTEN,
    descending=("started_at",),
    version="rows_read",
    lifetime_days=400,
)  # fmt: skip

PERFORMANCE_METRICS = Table(
    "performance_metrics",
    ("name", "hour", "shard"),
    ("ts", "stream_id", "seq"),
    {
        "name": TEXT, "hour": TEXT, "shard": SMALL, "ts": TIME, "stream_id": TEXT, "seq": INT,
        "ts_us": INT, "session_id": TEXT, "turn_id": TEXT, "type": TEXT,
        "duration_ms": REAL, "first_item_ms": REAL, "value": REAL, "unit": TEXT,
        "status": TEXT, "quality": TEXT, "anchor": TEXT, "cost_usd": REAL, **_WHO,
    },
    Life.APPENDED,
)  # fmt: skip

METRIC_PARTS = Table(
    "metric_parts",
    ("minute", "shard"),
    ("start", "part"),
    {"minute": TEXT, "shard": SMALL, "start": TIME, "part": TEXT, "data": BLOB},
    Life.APPENDED,
)

METRIC_ROLLUPS = Table(
    "metric_rollups",
    ("name", "tier", "period"),
    ("start", "service", "provider", "model", "variant"),
    {
        "name": TEXT, "tier": TEXT, "period": TEXT, "start": TIME,
        "service": TEXT, "provider": TEXT, "model": TEXT, "variant": TEXT,
        "sketch": BLOB, "count": INT, "errors": INT, "excluded": INT, "cost_usd": REAL, "rows_read": INT,
    },
    Life.REWRITTEN,
    version="rows_read",
    lifetime_days=400,
)  # fmt: skip

METRIC_NAMES = Table(
    "metric_names",
    ("month",),
    ("name", "unit"),
    {"month": TEXT, "name": TEXT, "unit": TEXT, "start": TIME, "kind": TEXT, "source": TEXT},
    Life.REWRITTEN,
    lifetime_days=431,
)

ERROR_LOGS = Table(
    "error_logs",
    ("service", "hour", "shard"),
    ("ts", "stream_id", "seq"),
    {
        "service": TEXT, "hour": TEXT, "shard": SMALL, "ts": TIME, "stream_id": TEXT, "seq": INT,
        "ts_us": INT, "type": TEXT, "level": TEXT, "session_id": TEXT, "turn_id": TEXT, "stage": TEXT,
        "provider": TEXT, "model": TEXT, "variant": TEXT, "host": TEXT, "user_id": TEXT,
        "trace_id": TEXT, "span_id": TEXT,
        "error_type": TEXT, "error_message": TEXT, "error_stack": TEXT, "logger": TEXT, "message": TEXT,
        "attributes": TEXT,
    },
    Life.APPENDED,
    descending=("ts",),
    texts=("error_message", "error_stack", "message", "attributes"),
)  # fmt: skip

SYSTEM_HEALTH = Table(
    "system_health",
    ("component", "host", "day"),
    ("ts", "stream_id", "seq"),
    {
        "component": TEXT, "host": TEXT, "day": TEXT, "ts": TIME, "stream_id": TEXT, "seq": INT,
        "ts_us": INT, "service": TEXT, "state": TEXT, "details": TEXT,
    },
    Life.APPENDED,
    descending=("ts",),
    texts=("details",),
)  # fmt: skip

ERASURES = Table(
    "erasures",
    ("subject",),
    (),
    {"subject": TEXT, "kind": TEXT, "erased_at": TIME, "reason": TEXT},
    Life.REWRITTEN,
)

RETENTION = Table(
    "retention",
    ("scope",),
    ("name",),
    {"scope": TEXT, "name": TEXT, "days": INT, "changed_at": TIME, "changed_by": TEXT},
    Life.REWRITTEN,
)

DERIVED_PENDING = Table(
    "derived_pending",
    ("bucket",),
    ("key", "sink_id"),
    {"bucket": SMALL, "key": TEXT, "sink_id": TEXT, "added_at": TIME},
    Life.REWRITTEN,
)

TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        VOICE_INTERACTIONS, SESSION_SUMMARIES, SESSIONS_BY_DAY, PERFORMANCE_METRICS, METRIC_PARTS, METRIC_ROLLUPS,
        METRIC_NAMES, ERROR_LOGS, SYSTEM_HEALTH, ERASURES, RETENTION, DERIVED_PENDING,
    )
}  # fmt: skip
VIEWS: dict[str, View] = {v.name: v for v in (INTERACTIONS_BY_STAGE,)}
