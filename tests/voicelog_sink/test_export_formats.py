"""JSON Lines, CSV and Parquet: whatever an event says comes back from each."""

from __future__ import annotations

import csv
import gc
import io
import json
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import realistic_call
from tests.exported import events_in_parquet, interaction_of, values_of_event
from tests.strategies import events, names

from voicelog import wire
from voicelog_sink import export_parquet
from voicelog_sink.export import EXPORTS
from voicelog_sink.export_columns import columns_of, moment_us, reader
from voicelog_sink.export_formats import Csv, JsonLines, Writer
from voicelog_sink.export_parquet import Parquet, ParquetMissing
from voicelog_sink.rows import event_of
from voicelog_sink.stores.base import Values
from voicelog_sink.tables import BOOL, INT, REAL, SMALL, TEXT, TIME

EVENTS = EXPORTS["events"]
many_events = st.lists(events(session_id=names), max_size=4)


def written(make: Callable[[Any, Any], Writer], rows: Iterable[Values]) -> bytes:
    file = io.BytesIO()
    writer = make(EVENTS, file)
    for row in rows:
        writer.write(row)
    writer.finish()
    return file.getvalue()


@settings(max_examples=40)
@given(many_events)
def test_line_of_json_is_the_event_as_on_the_wire(given: list[Any]) -> None:
    lines = written(JsonLines, map(values_of_event, given)).split(b"\n")
    assert lines.pop() == b""
    assert [wire.decode(line) for line in lines] == given
    assert [json.loads(line) for line in lines] == [json.loads(wire.encode(event).value) for event in given]


@settings(max_examples=40)
@given(many_events)
def test_parquet_holds_every_field_of_every_event(given: list[Any]) -> None:
    table = pq.read_table(io.BytesIO(written(Parquet, map(values_of_event, given))))
    assert [event_of(interaction_of(row)) for row in table.to_pylist()] == given


CSV_TYPES: dict[str, Callable[[str], Any]] = {
    TEXT: str,
    INT: int,
    SMALL: int,
    REAL: float,
    BOOL: {"true": True, "false": False}.__getitem__,
    TIME: datetime.fromisoformat,
}


PARQUET_TYPES = {
    TEXT: pa.string(), INT: pa.int64(), SMALL: pa.int32(), REAL: pa.float64(), BOOL: pa.bool_(),
    TIME: pa.timestamp("us", tz="UTC"),
}  # fmt: skip


@settings(max_examples=40)
@given(many_events)
def test_csv_holds_every_field_of_every_event(given: list[Any]) -> None:
    """Read by Python's module, which takes what is absent for empty; the next test tells these apart."""
    columns = columns_of(EVENTS.table)
    text = written(Csv, map(values_of_event, given)).decode()
    heading, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert heading == [column.name for column in columns]
    expected = [list(reader(columns)(values_of_event(event))) for event in given]
    found = [
        [CSV_TYPES[c.kind](cell) if cell else None for c, cell in zip(columns, line, strict=True)] for line in lines
    ]
    for line in expected:
        line[1] = datetime.fromisoformat(moment_us(line[1]))
    assert found == [[None if value == "" else value for value in line] for line in expected]


def test_csv_tells_absent_from_empty_and_other_programs_read_it(tmp_path: Path) -> None:
    call = realistic_call()
    call.add(type(call.events[1]), 900, transcript='a "quoted",\r\nbroken line ', language="", stage="stt")
    (tmp_path / "events.csv").write_bytes(written(Csv, map(values_of_event, call.events)))
    source = f"read_csv('{tmp_path}/events.csv', all_varchar = true, allow_quoted_nulls = false, new_line = '\\r\\n')"
    with duckdb.connect() as db:
        found = db.execute(f"SELECT seq, transcript, language FROM {source} ORDER BY seq::int").fetchall()
    expected = [(str(e.seq), getattr(e, "transcript", None), getattr(e, "language", None)) for e in call.events]
    assert found == expected


def test_moment_is_written_to_the_microsecond() -> None:
    assert moment_us(1_795_341_600_000_001) == "2026-11-22T10:00:00.000001Z"


def test_parquet_has_typed_columns_with_their_units_and_zstd() -> None:
    file = pq.ParquetFile(io.BytesIO(written(Parquet, map(values_of_event, realistic_call().events))))
    schema = file.schema_arrow
    types = {"ts": pa.timestamp("us", tz="UTC"), "seq": pa.int64(), "v": pa.int32(), "duration_ms": pa.float64(),
             "is_final": pa.bool_(), "transcript": pa.string(), "attributes": pa.string()}  # fmt: skip
    assert {name: schema.field(name).type for name in types} == types
    assert set(EVENTS.table.columns) - set(schema.names) == {"ts_us", "stage_hour"}
    group = file.metadata.row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}


def test_duckdb_and_pyarrow_read_the_same_events(tmp_path: Path) -> None:
    call = realistic_call()
    (tmp_path / "events.parquet").write_bytes(written(Parquet, map(values_of_event, call.events)))
    assert events_in_parquet(tmp_path / "events.parquet") == call.events


def test_pandas_reads_numbers_as_numbers_and_moments_as_moments(tmp_path: Path) -> None:
    call = realistic_call()
    (tmp_path / "events.parquet").write_bytes(written(Parquet, map(values_of_event, call.events)))
    frame = pandas.read_parquet(tmp_path / "events.parquet")
    assert (str(frame["ts"].dtype), str(frame["duration_ms"].dtype)) == ("datetime64[us, UTC]", "float64")
    assert list(frame["ts"].astype("int64")) == [event.ts for event in call.events]
    assert list(frame["seq"]) == [event.seq for event in call.events]
    took = [event.duration_ms for event in call.events if getattr(event, "duration_ms", None) is not None]
    assert list(frame["duration_ms"].dropna()) == took


@pytest.mark.parametrize("name", list(EXPORTS))
def test_pandas_keeps_the_type_of_every_column_where_it_is_asked_to(tmp_path: Path, name: str) -> None:
    export = EXPORTS[name]
    file = io.BytesIO()
    writer = Parquet(export, file)
    writer.write(dict.fromkeys(export.table.columns) | dict.fromkeys(export.table.columns.keys() & {"ts_us"}, 1))
    writer.finish()
    frame = pandas.read_parquet(file, dtype_backend="pyarrow")
    assert {column: frame[column].dtype.pyarrow_dtype for column in frame} == {
        column.name: PARQUET_TYPES[column.kind] for column in columns_of(export.table)
    }


def test_no_more_rows_are_held_than_a_row_group_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_parquet, "CHUNK_ROWS", 50)
    monkeypatch.setattr(export_parquet, "GROUP_ROWS", 200)
    values = values_of_event(realistic_call().events[1])
    file = io.BytesIO()
    writer = Parquet(EVENTS, file)
    most_held = 0
    for number in range(1_010):
        writer.write({**values, "transcript": f"{number}"})
        most_held = max(most_held, len(writer._rows) + sum(map(len, writer._batches)))
    writer.finish()
    metadata = pq.ParquetFile(io.BytesIO(file.getvalue())).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [200] * 5 + [10]
    assert most_held < 200


def test_long_texts_make_small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_parquet, "CHUNK_CHARACTERS", 10_000)
    monkeypatch.setattr(export_parquet, "GROUP_BYTES", 30_000)
    values = values_of_event(realistic_call().events[1]) | {"transcript": "x" * 4_000}
    metadata = pq.ParquetFile(io.BytesIO(written(Parquet, [values] * 40))).metadata
    assert max(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)) <= 9
    assert metadata.num_rows == 40


def test_export_of_nothing_is_a_whole_file_with_columns() -> None:
    assert pq.read_table(io.BytesIO(written(Parquet, []))).num_rows == 0
    assert written(Csv, []).startswith(b"session_id,ts,stream_id,seq,")
    assert written(JsonLines, []) == b""


def test_abandoned_parquet_is_taken_for_whole_by_nobody() -> None:
    file = io.BytesIO()
    writer = Parquet(EVENTS, file)
    writer.write(values_of_event(realistic_call().events[1]))
    writer.abandon()
    del writer
    gc.collect()
    with pytest.raises(pa.ArrowInvalid):
        pq.ParquetFile(io.BytesIO(file.getvalue()))


def test_without_pyarrow_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ParquetMissing, match=r"expected the extra `parquet`; pip install 'voicelog\[sink,parquet\]'"):
        Parquet(EVENTS, io.BytesIO())
