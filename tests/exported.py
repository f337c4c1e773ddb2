"""Reading exports back: with pyarrow and with DuckDB, into events."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from voicelog.events import Event
from voicelog_sink.rows import event_of, rows_of
from voicelog_sink.stores.base import Values
from voicelog_sink.tables import VOICE_INTERACTIONS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def values_of_event(event: Event) -> Values:
    """Return the event's row as a store gives it."""
    return {**dict.fromkeys(VOICE_INTERACTIONS.columns), **rows_of(event)[0].values}


def interaction_of(row: dict[str, Any]) -> Values:
    """Return a row of an export as one of voice_interactions; its ts may be microseconds or a datetime."""
    at = row["ts"]
    ts_us = (at - EPOCH) // timedelta(microseconds=1) if isinstance(at, datetime) else at
    return {**row, "ts": ts_us // 1000, "ts_us": ts_us}


def events_in_parquet(path: Path) -> list[Event]:
    """Return a file's events; fails when pyarrow and DuckDB do not read the same."""
    by_pyarrow = [event_of(interaction_of(row)) for row in pq.read_table(path).to_pylist()]
    with duckdb.connect() as db:
        found = db.execute(f"SELECT * REPLACE (epoch_us(ts) AS ts) FROM '{path}'")
        names = [column[0] for column in found.description]
        by_duckdb = [event_of(interaction_of(dict(zip(names, row, strict=True)))) for row in found.fetchall()]
    assert by_duckdb == by_pyarrow
    return by_pyarrow


def objects_in(path: Path) -> list[Any]:
    """Return a JSON Lines file's objects."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
