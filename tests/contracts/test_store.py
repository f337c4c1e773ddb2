"""What every store does with rows: they come back whole, once, for as long as they should; bad ones are named."""

from __future__ import annotations

import time
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.store_kit import (
    NOW_MS,
    TTL_DAYS,
    error,
    interaction,
    read,
    summary,
    unique,
    values_of,
    whole,
)

from voicelog_sink.rank import erased, rank_of
from voicelog_sink.stores.base import Rejected, Row, Store, Values
from voicelog_sink.stores.lifetime import DAY_MS
from voicelog_sink.tables import TABLES, TEXT, Table

# --- rows in, rows out


@pytest.mark.parametrize("table", list(TABLES.values()), ids=list(TABLES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_row_comes_back_whole(store: Store, table: Table, data: st.DataObject) -> None:
    values = data.draw(values_of(table))
    values.update({n: values[n] + unique() for n in table.partition_key[:1] if table.columns[n] == TEXT})
    assert store.write([Row(table.name, values)]) == []
    found = read(store, table.name, values)
    key = {name: values[name] for name in table.key}
    assert [row for row in found if row.items() >= key.items()] == [whole(table.name, **values)]


def test_texts_of_any_kind_and_size_come_back(store: Store) -> None:
    session = unique()
    values = interaction(
        session,
        turn_id="",
        transcript="Grüße, 你好, 👩‍👩‍👧 \u0000 \n",
        prompt="x" * 1_000_000,
        is_final=False,
        seq=2**63 - 1,
    )
    assert store.write([Row("voice_interactions", values)]) == []
    assert read(store, "voice_interactions", values) == [whole("voice_interactions", **values)]


def test_empty_text_is_a_key_like_any_other(store: Store) -> None:
    name = unique()
    key = {"name": name, "tier": "", "period": "", "start": NOW_MS, "service": "", "provider": "", "model": ""}
    values = {**key, "variant": "", "rows_read": 1, "sketch": b""}
    assert store.write([Row("metric_rollups", values)]) == []
    assert read(store, "metric_rollups", values) == [whole("metric_rollups", **values)]


def test_same_row_twice_is_one_row(store: Store) -> None:
    session = unique()
    row = Row("voice_interactions", interaction(session, transcript="hello"))
    assert store.write([row, row]) == []
    assert store.write([row]) == []
    assert read(store, "voice_interactions", row.values) == [whole("voice_interactions", **row.values)]


def test_thousands_of_rows_of_many_tables_and_partitions_are_all_stored(store: Store) -> None:
    mark = unique()
    sessions = [f"{mark}-{number}" for number in range(150)]
    rows = [interaction(s, at, seq=at, response="r" * 900) for s in sessions for at in range(20)]
    errors = [error(s, 0, error_stack="e" * 9000) for s in sessions]
    long = [interaction(mark, at, seq=at) for at in range(1500)]
    written = [Row("voice_interactions", v) for v in rows + long] + [Row("error_logs", v) for v in errors]
    assert store.write(written) == []
    asked = [{"session_id": s} for s in [*sessions, mark]]
    assert read(store, "voice_interactions", *asked) == [whole("voice_interactions", **v) for v in rows + long]
    assert read(store, "error_logs", *errors) == [whole("error_logs", **v) for v in errors]


def test_clock_of_the_store_is_a_time_of_today(store: Store) -> None:
    assert abs(store.clock_ms() - time.time() * 1000) < 86_400_000


def test_nothing_written_is_nothing_stored(store: Store) -> None:
    assert store.write([]) == []
    assert read(store, "voice_interactions", {"session_id": unique()}) == []
    assert list(store.select("voice_interactions", [])) == []


# --- versions, lifetimes, deletion


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])), ids=str)
def test_highest_version_wins_as_a_whole_in_any_order(store: Store, order: tuple[int, ...]) -> None:
    session = unique()
    versions = {
        1: summary(session, 1, turns=1, completeness="unknown", disconnect_reason="error"),
        2: summary(session, 2, turns=2, completeness="unknown", errors=None),
        3: summary(session, 3, turns=3, errors=4),
    }
    for version in order:
        assert store.write([Row("session_summaries", versions[version])]) == []
    assert read(store, "session_summaries", versions[3]) == [whole("session_summaries", **versions[3])]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)], ids=str)
def test_what_an_erasure_leaves_wins_over_rows_that_were_made_of_more(store: Store, order: tuple[int, ...]) -> None:
    session = unique()
    ranks = (rank_of(5), erased(rank_of(5), 1), rank_of(900))
    summaries = [summary(session, rank, turns=rank % 7, user_id=None if number == 1 else "u")
                 for number, rank in enumerate(ranks)]  # fmt: skip
    key = {"name": session, "tier": "day", "period": "2026-11", "start": NOW_MS, "service": "", "provider": ""}
    rollups = [{**key, "model": "", "variant": "", "rows_read": rank, "sketch": bytes([rank % 7])} for rank in ranks]
    for number in order:
        rows = [Row("session_summaries", summaries[number]), Row("metric_rollups", rollups[number])]
        assert store.write(rows) == []
    assert read(store, "session_summaries", summaries[1]) == [whole("session_summaries", **summaries[1])]
    assert read(store, "metric_rollups", rollups[1]) == [whole("metric_rollups", **rollups[1])]


def test_row_whose_time_is_over_is_left_out_without_a_word(store: Store) -> None:
    session = unique()
    over = interaction(session, -TTL_DAYS * DAY_MS - 1000, seq=1)
    alive = interaction(session, -TTL_DAYS * DAY_MS + 3_600_000, seq=2)
    assert store.write([Row("voice_interactions", over), Row("voice_interactions", alive)]) == []
    assert read(store, "voice_interactions", alive) == [whole("voice_interactions", **alive)]


def test_row_from_far_in_the_future_is_stored(store: Store) -> None:
    values = interaction(unique(), 40 * 365 * DAY_MS)
    assert store.write([Row("voice_interactions", values)]) == []
    assert read(store, "voice_interactions", values) == [whole("voice_interactions", **values)]


def test_delete_takes_the_rows_of_these_keys_alone(store: Store) -> None:
    session = unique()
    values = [interaction(session, at, seq=at) for at in range(100)]
    assert store.write([Row("voice_interactions", v) for v in values]) == []
    key = TABLES["voice_interactions"].key
    gone = [{name: v[name] for name in key} for v in values[10:90]]
    store.delete("voice_interactions", [*gone, {**gone[0], "seq": 12345}])
    found = [row["seq"] for row in read(store, "voice_interactions", values[0])]
    assert found == [*range(10), *range(90, 100)]


def test_deleted_row_can_be_written_anew(store: Store) -> None:
    row = Row("derived_pending", {"bucket": 5, "key": unique(), "sink_id": "a", "added_at": NOW_MS})
    for _ in range(3):
        assert store.write([row]) == []
        store.delete("derived_pending", [row.values])
    assert row.values not in read(store, "derived_pending", row.values)
    assert store.write([row]) == []
    assert row.values in read(store, "derived_pending", row.values)


def test_deleted_row_of_a_table_with_versions_is_gone(store: Store) -> None:
    values = summary(unique(), 7)
    assert store.write([Row("session_summaries", values)]) == []
    store.delete("session_summaries", [values])
    assert read(store, "session_summaries", values) == []


# --- refusals


BAD: dict[str, tuple[Values, str]] = {
    "text for a number": ({"duration_ms": "long"}, "duration_ms"),
    "bytes for a text": ({"transcript": b"x"}, "transcript"),
    "number beyond 64 bits": ({"items": 2**63}, ""),
    "half a character": ({"transcript": "\ud800"}, "surrogates"),
    "a value of no column type": ({"attributes": {"a": 1}}, ""),
    "an unknown column": ({"mood": "good"}, "no column 'mood'"),
    "a key column that is null": ({"stream_id": None}, "stream_id"),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_refused_row_is_named_and_the_others_are_stored(store: Store, bad: Values, message: str) -> None:
    session = unique()
    good = [interaction(session, at, seq=at) for at in range(4)]
    rows = [Row("voice_interactions", v) for v in good]
    rows.insert(2, Row("voice_interactions", {**interaction(session, 99, seq=99), **bad}))
    [rejected] = store.write(rows)
    assert isinstance(rejected, Rejected)
    assert rejected[0] == 2
    assert "voice_interactions" in rejected.message
    assert message in rejected.message
    assert read(store, "voice_interactions", good[0]) == [whole("voice_interactions", **v) for v in good]


def test_rejections_come_in_the_order_of_the_rows(store: Store) -> None:
    session = unique()
    rows = [
        Row("erasures", {"subject": None}),
        Row("voice_interactions", interaction(session)),
        Row("voice_interactions", interaction(session, items="x")),
        Row("session_summaries", {"session_id": session, "rows_read": None}),
        Row("erasures", {"subject": None}),
    ]
    assert [rejected[0] for rejected in store.write(rows)] == [0, 2, 3, 4]


def test_row_that_lacks_a_key_column_is_refused_alone(store: Store) -> None:
    values = interaction(unique())
    del values["seq"]
    [rejected] = store.write([Row("voice_interactions", values)])
    assert "seq" in rejected.message
