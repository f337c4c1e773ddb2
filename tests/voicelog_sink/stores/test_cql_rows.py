"""Rows as CQL bytes and batches, compared with the driver's own encoding."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from cassandra.cqltypes import lookup_casstype
from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.stores.cql_rows import MAX_BYTES, MAX_ROWS, PACKERS, SHAPES, Encoded, RowError, TableEncoder, batches
from voicelog_sink.stores.lifetime import DAY_MS, lifetime_ms
from voicelog_sink.tables import BLOB, BOOL, INT, REAL, SMALL, TABLES, TEXT, TIME

NOW_MS = 1_800_000_000_000
UNSET = object()
DRIVER = {
    TEXT: "UTF8Type",
    INT: "LongType",
    SMALL: "Int32Type",
    REAL: "DoubleType",
    BOOL: "BooleanType",
    TIME: "TimestampType",
    BLOB: "BytesType",
}
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    TEXT: st.text(st.characters(exclude_categories=["Cs"])),
    INT: st.integers(-(2**63), 2**63 - 1),
    SMALL: st.integers(-(2**31), 2**31 - 1),
    REAL: st.floats() | st.integers(-(2**53), 2**53),
    BOOL: st.booleans(),
    TIME: st.integers(-(2**53), 2**53),
    BLOB: st.binary(),
}


@pytest.mark.parametrize("kind", PACKERS)
@given(data=st.data())
def test_every_value_is_encoded_as_the_driver_does_it(kind: str, data: st.DataObject) -> None:
    value = data.draw(OF_TYPE[kind])
    assert PACKERS[kind](value) == lookup_casstype(DRIVER[kind]).serialize(value, 4)


def encoder(table: str) -> TableEncoder:
    return TableEncoder(TABLES[table], lifetime_ms(TABLES[table], 90), UNSET)


def test_appended_row_names_the_columns_that_it_has_and_ends_with_its_ttl() -> None:
    values = {"session_id": "c", "ts": NOW_MS - 1500, "stream_id": "s", "seq": 1, "stage": None, "items": 4}
    row = encoder("voice_interactions").encode(7, values, NOW_MS)
    assert row is not None
    assert row.names == ("session_id", "ts", "stream_id", "seq", "items")
    moment, one, four = (struct.pack(">q", number) for number in (NOW_MS - 1500, 1, 4))
    assert row.params == [b"c", moment, b"s", one, four, struct.pack(">i", 90 * 86_400 - 1)]
    assert (row.number, row.routing_key) == (7, b"c")


def test_row_of_one_set_of_columns_too_many_names_every_column_and_leaves_the_others_unset() -> None:
    strict = encoder("voice_interactions")
    key = {"session_id": "c", "ts": NOW_MS, "stream_id": "s", "seq": 1}
    others = [name for name, kind in TABLES["voice_interactions"].columns.items() if kind == TEXT and name not in key]
    shapes = [{**key, one: "x", other: "y"} for one in others[:10] for other in others[10:20]]
    found = [strict.encode(0, values, NOW_MS) for values in shapes]
    own = [row for row in found if row and row.names != strict.columns]
    assert len(own) == SHAPES
    for values, row in zip(shapes, found, strict=True):
        assert row is not None
        sent = dict(zip(row.names, row.params, strict=False))
        assert {name for name, value in sent.items() if value is not UNSET} == set(values)
        assert row.params[len(row.names) :] == [struct.pack(">i", 90 * 86_400)]
        assert row.routing_key == b"c"


def test_row_with_a_version_writes_nulls_and_its_version_as_timestamp() -> None:
    values = {"session_id": "c", "started_at": NOW_MS, "rows_read": 12}
    row = encoder("session_summaries").encode(0, values, NOW_MS)
    assert row is not None
    columns = dict(zip(TABLES["session_summaries"].columns, row.params, strict=False))
    assert {name for name, value in columns.items() if value is not None} == set(values)
    assert row.params[len(columns) :] == [struct.pack(">q", 12), struct.pack(">i", 400 * 86_400)]


def test_row_whose_time_is_over_becomes_nothing() -> None:
    values = {"session_id": "c", "ts": NOW_MS - 90 * DAY_MS, "stream_id": "s", "seq": 1}
    assert encoder("voice_interactions").encode(0, values, NOW_MS) is None
    assert encoder("voice_interactions").encode(0, values, NOW_MS - 1) is not None


def test_table_without_a_lifetime_has_no_ttl() -> None:
    row = encoder("erasures").encode(0, {"subject": "call-1"}, NOW_MS)
    assert row is not None
    assert (row.params, row.names) == ([b"call-1"], ("subject",))


def test_routing_key_of_several_columns_is_the_servers_own_form() -> None:
    key = {"service": "a", "hour": "2026", "shard": 3, "ts": NOW_MS, "stream_id": "s", "seq": 1}
    row = encoder("error_logs").encode(0, key, NOW_MS)
    assert row is not None
    assert row.routing_key == b"\0\1a\0" + b"\0\4" + b"2026\0" + b"\0\4" + struct.pack(">i", 3) + b"\0"


def test_key_alone_is_encoded_for_a_delete() -> None:
    values = {"bucket": 2, "key": "k", "sink_id": "a", "added_at": "not looked at"}
    assert encoder("derived_pending").encode_key(3, values) == Encoded(
        3, struct.pack(">i", 2), [struct.pack(">i", 2), b"k", b"a"], 0, ("bucket", "key", "sink_id")
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"subject": "a", "erased_at": "today"}, "table erasures: column erased_at: "),
        ({"subject": "a", "kind": 5}, "table erasures: column kind: int is no text"),
        ({"subject": "a", "mood": 5}, "table erasures has no column 'mood'"),
        ({"subject": None}, "table erasures: key column subject is absent"),
        ({}, "table erasures: key column subject is absent"),
        ({"subject": "\udc00"}, "column subject: 'utf-8' codec can't encode"),
    ],
)
def test_row_that_cannot_be_encoded_says_which_column(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError) as caught:
        encoder("erasures").encode(0, values, NOW_MS)
    assert message in str(caught.value)


@pytest.mark.parametrize("version", [None, -1, 1.5, "3"])
def test_version_that_is_no_count_is_refused(version: Any) -> None:
    with pytest.raises(RowError, match="rows_read"):
        encoder("session_summaries").encode(0, {"session_id": "c", "rows_read": version}, NOW_MS)


def test_partition_key_beyond_the_servers_limit_is_refused() -> None:
    key = {"service": "a" * 65_536, "hour": "2026", "shard": 3, "ts": NOW_MS, "stream_id": "s", "seq": 1}
    with pytest.raises(RowError, match="partition key is longer than 65535 bytes"):
        encoder("error_logs").encode(0, key, NOW_MS)


rows = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 2 * MAX_BYTES)), max_size=150)


@given(rows)
def test_batches_hold_every_row_once_each_of_one_partition_and_within_the_limits(given_rows: Any) -> None:
    encoded = [Encoded(number, key, [], size) for number, (key, size) in enumerate(given_rows)]
    found = list(batches(encoded))
    assert sorted(row.number for batch in found for row in batch) == list(range(len(encoded)))
    for batch in found:
        assert len({row.routing_key for row in batch}) == 1
        assert len(batch) <= MAX_ROWS
        assert len(batch) == 1 or sum(row.size_bytes for row in batch) <= MAX_BYTES
        assert [row.number for row in batch] == sorted(row.number for row in batch)


def test_small_rows_of_one_partition_fill_batches() -> None:
    encoded = [Encoded(number, b"a", [], 10) for number in range(100)]
    assert [len(batch) for batch in batches(encoded)] == [32, 32, 32, 4]
