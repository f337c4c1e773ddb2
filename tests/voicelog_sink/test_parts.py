"""The measurements of a batch in a few rows: those of performance_metrics, each once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder, realistic_call
from tests.strategies import events

from voicelog import wire
from voicelog.events import ErrorInfo, Event, Figure, Metric, Turn
from voicelog.wire import encode
from voicelog_sink.parts import EXCLUDED, FAILED, Parts, Place, measurements, part_row
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Values

MINUTE = START_US // 60_000_000


def stored(events: list[Event], part: str = "sink-1.1") -> list[Values]:
    return [part_row(place, part, grouped).values for place, grouped in measurements(events).items()]


def read(rows: list[Values]) -> dict[str, Any]:
    parts = Parts(row["data"] for row in rows)
    assert parts.unreadable is None
    return {source: dict(parts.of(source)) for source in parts.sources}


@settings(max_examples=40)
@given(st.lists(events(), max_size=4))
def test_every_row_of_performance_metrics_is_in_a_part(events: list[Event]) -> None:
    expected = set()
    for values in (row.values for e in events for row in rows_of(e) if row.table == "performance_metrics"):
        who = [values.get(name) or "" for name in ("service", "provider", "model", "variant")]
        value = values.get("duration_ms" if values["type"] not in ("turn", "metric") else "value")
        more = (value, values.get("first_item_ms"), values.get("cost_usd") if values["type"] != "turn" else None)
        place = (values["ts_us"] // 60_000_000, values["shard"])
        expected.add((place, values["name"], *who, values["stream_id"], values["seq"], *more))
    found = {
        (tuple(place), source, *who, stream_id, seq, *more)
        for place, grouped in measurements(events).items()
        for (source, _, *who, _), rows in grouped.items()
        for stream_id, seq, _, *more in rows
    }
    assert found == expected


@settings(max_examples=40)
@given(st.lists(events(session_id=st.just("call-1"), ts=st.just(START_US)), max_size=4))
def test_what_is_stored_comes_back_and_a_second_delivery_adds_nothing(events: list[Event]) -> None:
    expected: dict[str, Any] = {}
    for grouped in measurements(events).values():
        for group, rows in grouped.items():
            expected.setdefault(group[0], {})[group] = set(rows)
    assert read(stored(events)) == expected
    assert read([*stored(events[1:], "sink-2.1"), *stored(events), *stored(events[:3], "sink-2.2")]) == expected


@settings(max_examples=40)
@given(st.lists(events(), max_size=4))
def test_events_as_the_sink_reads_them_measure_the_same(events: list[Event]) -> None:
    values = [encode(event).value for event in events]
    assert measurements([wire.read(value) for value in values]) == measurements([wire.decode(v) for v in values])


def test_measurement_says_whether_it_counts_and_whether_it_failed() -> None:
    call = CallBuilder()
    for status in ("ok", "error", "interrupted"):
        call.stage("llm", 0, 7, status=status, error=ErrorInfo(type="E") if status == "error" else None)
    call.add(Turn, 0, figures={"a": Figure(value_ms=None, quality="no_anchor"), "b": Figure(value_ms=3.0)})
    call.add(Metric, 0, name="depth", value=2.0)
    (grouped,) = measurements(call.events).values()
    who = ("front-desk", "", "", "")
    s = call.stream_id
    assert grouped == {
        ("llm", "stage", *who, "ms"): [
            (s, 1, 0, 7.0, None, None), (s, 2, EXCLUDED | FAILED, 7.0, None, None), (s, 3, EXCLUDED, 7.0, None, None),
        ],
        ("turn.a", "turn", *who, "ms"): [(s, 4, EXCLUDED, None, None, None)],
        ("turn.b", "turn", *who, "ms"): [(s, 4, 0, 3.0, None, None)],
        ("depth", "metric", *who, ""): [(s, 5, 0, 2.0, None, None)],
    }  # fmt: skip


def test_batch_has_a_row_a_minute_and_shard() -> None:
    call = realistic_call("call-1", turns=2)
    rows = stored(call.events)
    assert {(row["minute"], row["shard"], row["start"], row["part"]) for row in rows} == {
        ("2026-11-22T10:00", call.events[0].shard, START_US // 1000, "sink-1.1")
    }
    assert list(measurements(call.events)) == [Place(MINUTE, call.events[0].shard)]


def test_events_without_measurements_have_no_part() -> None:
    call = CallBuilder()
    call.started(), call.add(Turn, 5), call.ended(10)
    assert measurements(call.events) == {}
