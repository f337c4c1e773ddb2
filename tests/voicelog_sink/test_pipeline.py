"""The pipeline: every record comes out as rows, as a dead letter or as expired, and as one of them only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicelog import wire
from voicelog.errors import REASONS
from voicelog.events import Event, SttResult
from voicelog_sink import pipeline
from voicelog_sink.pipeline import DeadLetter, Pipeline, Record
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Rejected

NOW_MS = 1_795_341_600_000
DAY_MS = 86_400_000
RULES = Pipeline(max_message_bytes=10_000, ttl_days=90)


def stt(**fields: Any) -> SttResult:
    known = {"stream_id": "s", "seq": 1, "ts": NOW_MS * 1000, "session_id": "call", "stage": "stt", "transcript": "hi"}
    return SttResult(**{**known, **fields})


def record(value: bytes | None, offset: int = 0) -> Record:
    return Record("stt-results", 3, offset, b"call", value, (), NOW_MS)


def good(offset: int = 0, **fields: Any) -> Record:
    return record(wire.encode(stt(**fields)).value, offset)


def ids(events: Sequence[Event]) -> list[tuple[str, int]]:
    return [(event.stream_id, event.seq) for event in events]


def test_event_becomes_its_rows_in_the_order_of_the_records() -> None:
    batch = RULES.sort([good(0, seq=1), good(1, seq=2)], NOW_MS)
    assert ids(batch.events) == [("s", 1), ("s", 2)]
    assert batch.rows == [*rows_of(stt(seq=1)), *rows_of(stt(seq=2))]
    per_event = len(rows_of(stt()))
    assert batch.origin == [0] * per_event + [1] * per_event
    assert (batch.dead, batch.expired) == ([], 0)


def test_wrong_key_is_ignored() -> None:
    moved = good()._replace(key=b"another call")
    assert RULES.sort([moved], NOW_MS).rows == rows_of(stt())


@pytest.mark.parametrize(
    ("value", "reason", "says"),
    [
        (None, "not_json", "not JSON"),
        (b"\x00\xff garbage", "not_json", "not JSON"),
        (b"[1, 2]", "not_an_event", "got a list"),
        (b'{"hello": "world"}', "not_an_event", "an object with hello"),
        (b'{"v": 99, "type": "stt_result"}', "unsupported_version", "schema version 99"),
        (b'{"v": 1, "type": "dance"}', "unknown_type", "'dance'"),
        (b'{"v": 1, "type": "stt_result", "stream_id": "s", "seq": 1, "ts": 1}', "missing_field", "without session_id"),
        (
            b'{"v": 1, "type": "stt_result", "session_id": "c", "stream_id": "s", "seq": 1, "ts": 1}',
            "invalid_field",
            "ts",
        ),
        (b'"' + b"x" * 10_000 + b'"', "too_large", "10002 bytes: expected at most 10000"),
    ],
)
def test_bad_record_is_a_dead_letter_with_its_reason(value: bytes | None, reason: str, says: str) -> None:
    bad = record(value, 7)
    batch = RULES.sort([bad], NOW_MS)
    assert batch.dead == [DeadLetter(bad, reason, "decode", "voicelog.errors.DecodeError", batch.dead[0].message)]
    assert says in batch.dead[0].message
    assert (batch.events, batch.rows, batch.expired) == ([], [], 0)


def test_message_of_exactly_the_limit_is_taken() -> None:
    value = wire.encode(stt()).value
    assert ids(Pipeline(len(value), 90).sort([record(value)], NOW_MS).events) == [("s", 1)]
    assert Pipeline(len(value) - 1, 90).sort([record(value)], NOW_MS).dead[0].reason == "too_large"


def test_event_older_than_its_time_to_live_is_expired_and_not_a_dead_letter() -> None:
    old = good(ts=(NOW_MS - 91 * DAY_MS) * 1000)
    batch = RULES.sort([old, good(1)], NOW_MS)
    assert (batch.expired, batch.rows, batch.dead) == (1, rows_of(stt()), [])


def test_record_that_trips_a_bug_is_a_dead_letter_with_the_stack_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tripping(event: SttResult) -> list[Any]:
        if event.seq == 1:
            message = "a bug"
            raise RuntimeError(message)
        return rows_of(event)

    monkeypatch.setattr(pipeline, "rows_of", tripping)
    batch = RULES.sort([good(0, seq=1), good(1, seq=2)], NOW_MS)
    assert ids(batch.events) == [("s", 2)]
    (letter,) = batch.dead
    assert letter[1:5] == ("sink_failed", "decode", "builtins.RuntimeError", "a bug")
    assert "in tripping" in (letter.stack or "")


def test_refused_rows_make_one_dead_letter_a_record_with_the_first_refusal() -> None:
    records = [good(0, seq=1), good(1, seq=2), good(2, seq=3)]
    batch = RULES.sort(records, NOW_MS)
    second = [i for i, origin in enumerate(batch.origin) if origin == 1]
    rejected = [Rejected(i, "InvalidRequest", f"row {i}") for i in second]
    assert batch.refused(rejected) == [
        DeadLetter(records[1], "store_rejected", "store", "InvalidRequest", f"row {second[0]}")
    ]


def test_refused_row_that_belongs_to_no_record_makes_no_dead_letter() -> None:
    batch = RULES.sort([good()], NOW_MS)
    assert batch.refused([Rejected(len(batch.rows), "E", "a row of derived_pending")]) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
mutations = st.dictionaries(
    st.sampled_from(["v", "type", "session_id", "seq", "ts", "usage", "stage", "x"]), json_values
)


def mutated(change: dict[str, Any]) -> bytes:
    return json.dumps({**json.loads(wire.encode(stt()).value), **change}).encode()


@given(st.lists(st.binary() | mutations.map(mutated) | st.just(wire.encode(stt()).value), max_size=20))
def test_every_record_comes_out_exactly_once_and_nothing_raises(values: list[bytes]) -> None:
    records = [record(value, offset) for offset, value in enumerate(values)]
    batch = RULES.sort(records, NOW_MS)
    assert len(batch.events) + len(batch.dead) + batch.expired == len(records)
    assert {letter.reason for letter in batch.dead} <= REASONS.keys() - {"store_rejected", "sink_failed"}
    kept = set(batch.origin)
    assert kept.isdisjoint(letter.record.offset for letter in batch.dead)
    assert len(kept) == len(batch.events)
