"""What every store gives back: order, bounds, partitions, the view and the index."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contracts.store_kit import (
    NOW_MS,
    error,
    interaction,
    read,
    summary,
    unique,
    whole,
)
from tests.running import wait_until

from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.tables import INTERACTIONS_BY_STAGE

# --- order and bounds


def test_rows_come_in_clustering_order_whatever_the_order_of_writing(store: Store) -> None:
    session = unique()
    order = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (5, "a", 3), (9, "0", 1)]
    values = [interaction(session, at, stream_id=stream, seq=seq) for at, stream, seq in order]
    assert store.write([Row("voice_interactions", v) for v in reversed(values)]) == []
    assert read(store, "voice_interactions", values[0]) == [whole("voice_interactions", **v) for v in values]


def test_descending_tables_give_the_newest_first(store: Store) -> None:
    service, day = unique(), unique()
    errors = [error(service, at, stream_id=stream) for at, stream in [(9, "a"), (9, "b"), (5, "a"), (0, "z")]]
    calls = [
        {"day": day, "shard": 1, "started_at": NOW_MS + at, "session_id": s, "rows_read": 1}
        for at, s in [(7, "x"), (3, "a"), (3, "b")]
    ]
    rows = [Row("error_logs", v) for v in errors] + [Row("sessions_by_day", v) for v in calls]
    assert store.write(rows[::-1]) == []
    assert read(store, "error_logs", errors[0]) == [whole("error_logs", **v) for v in errors]
    assert read(store, "sessions_by_day", calls[0]) == [whole("sessions_by_day", **v) for v in calls]


def test_partitions_come_in_the_order_asked_for(store: Store) -> None:
    mark = unique()
    values = [interaction(f"{mark}{number:02d}", at, seq=at) for number in range(40) for at in (1, 2)]
    assert store.write([Row("voice_interactions", v) for v in values]) == []
    asked = [{"session_id": f"{mark}{number:02d}"} for number in reversed(range(41))]
    found = [(row["session_id"], row["seq"]) for row in store.select("voice_interactions", asked)]
    assert found == [(f"{mark}{number:02d}", seq) for number in reversed(range(40)) for seq in (1, 2)]


def test_partitions_of_one_row_come_in_the_order_asked_for_too(store: Store) -> None:
    mark, numbers = unique(), [*range(600, -1, -1), 7, 3, 3]
    rows = [summary(f"{mark}{n}", 1, errors=n, ended_at=NOW_MS + n) for n in range(0, 600, 2)]
    assert store.write([Row("session_summaries", v) for v in rows]) == []
    asked = [{"session_id": f"{mark}{n}"} for n in numbers]
    found = store.select("session_summaries", asked, names=("ended_at", "errors"), where=[("errors", ">=", 3)])
    even = [n for n in numbers if n % 2 == 0 and n < 600]
    assert list(found) == [{"ended_at": NOW_MS + n, "errors": n} for n in even if n >= 3]
    whole_rows = store.select("session_summaries", asked[300:])
    assert list(whole_rows) == [whole("session_summaries", **rows[n // 2]) for n in numbers[300:] if n % 2 == 0]
    assert list(store.tuples("session_summaries", ("errors",), asked)) == [(n,) for n in even]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"since_ms": NOW_MS + 2}, [2, 3, 4]),
        ({"until_ms": NOW_MS + 2}, [0, 1]),
        ({"since_ms": NOW_MS + 1, "until_ms": NOW_MS + 3}, [1, 2]),
        ({"limit": 2}, [0, 1]),
        ({"since_ms": NOW_MS + 1, "limit": 2}, [1, 2]),
        ({"since_ms": NOW_MS + 9}, []),
    ],
)
def test_since_until_and_limit_bound_each_partition(store: Store, bounds: Any, expected: list[int]) -> None:
    mark = unique()
    values = [interaction(mark + s, at, seq=at) for s in "ab" for at in range(5)]
    assert store.write([Row("voice_interactions", v) for v in values]) == []
    asked = [{"session_id": mark + s} for s in "ab"]
    found = [(row["session_id"], row["seq"]) for row in store.select("voice_interactions", asked, **bounds)]
    assert found == [(mark + s, at) for s in "ab" for at in expected]


def test_tuples_are_the_same_rows_of_some_columns(store: Store) -> None:
    mark = unique()
    values = [interaction(mark + s, at, seq=at, duration_ms=at / 2) for s in "ab" for at in range(1, 5)]
    values[1]["model"] = "m"
    assert store.write([Row("voice_interactions", v) for v in values]) == []
    asked = [{"session_id": mark + s} for s in "ba"]
    names, bounds = ("seq", "model", "duration_ms"), {"since_ms": NOW_MS + 2, "until_ms": NOW_MS + 4}
    found = list(store.tuples("voice_interactions", names, asked, **bounds))
    assert found == [(2, None, 1.0), (3, None, 1.5), (2, "m", 1.0), (3, None, 1.5)]
    assert list(store.tuples("voice_interactions", names, [])) == []


@pytest.mark.parametrize("name", ["ts", "is_final", "mood"])
def test_column_that_stores_do_not_give_alike_is_no_tuples(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no column whose values are the same"):
        list(store.tuples("voice_interactions", [name], [{"session_id": unique()}]))


def test_limit_of_a_descending_table_takes_the_newest(store: Store) -> None:
    service = unique()
    assert store.write([Row("error_logs", error(service, at)) for at in range(4)]) == []
    found = read(store, "error_logs", error(service, 0), until_ms=NOW_MS + 3, limit=2)
    assert [row["ts"] - NOW_MS for row in found] == [2, 1]


def day_of_calls(store: Store, *calls: Values) -> Values:
    """Store rows of the list, the newest first, and return their partition."""
    partition = {"day": unique(), "shard": 3}
    rows = [{**partition, "started_at": NOW_MS - n, "session_id": str(n), **call} for n, call in enumerate(calls)]
    assert store.write([Row("sessions_by_day", {"rows_read": 1, **row}) for row in rows]) == []
    return partition


CALLS: tuple[Values, ...] = (
    {"service": "a", "errors": 2, "models": '["gpt-4","nova"]', "user_bot_latency_max_ms": 2000.0},
    {"service": "a", "errors": 0, "models": '["nova"]', "user_bot_latency_max_ms": 1999.5},
    {"service": "A", "errors": 1, "models": '["gpt-4o"]'},
    {"models": ""},
    {"service": "a", "errors": 1, "models": '["Gpt-4"]', "user_bot_latency_max_ms": 2000.5},
    {"service": "", "errors": 1, "models": '["gpt-4"]'},
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([("service", "=", "a")], [0, 1, 4]),
        ([("service", "=", "")], [5]),
        ([("errors", ">=", 1)], [0, 2, 4, 5]),
        ([("errors", ">=", 0)], [0, 1, 2, 4, 5]),
        ([("user_bot_latency_max_ms", ">=", 2000.0)], [0, 4]),
        ([("models", "has", '"gpt-4"')], [0, 5]),
        ([("models", "has", "gpt-4"), ("models", "has", "nova")], [0]),
        ([("models", "has", "")], [0, 1, 2, 3, 4, 5]),
        ([("service", "has", "")], [0, 1, 2, 4, 5]),
        ([("errors", ">=", 1), ("models", "has", "4"), ("service", "=", "a")], [0, 4]),
        ([("service", "=", "none")], []),
    ],
)
def test_conditions_leave_out_rows_that_do_not_fit(store: Store, where: Any, expected: list[int]) -> None:
    partition = day_of_calls(store, *CALLS)
    found = [row["session_id"] for row in store.select("sessions_by_day", [partition], where=where)]
    assert found == [str(n) for n in expected]


@pytest.mark.parametrize("where", [[("errors", ">=", 1)], [("models", "has", "e")], []])
def test_limit_and_bounds_are_of_the_rows_that_fit(store: Store, where: Any) -> None:
    mark: Values = {"errors": 1, "models": '["e"]'}
    other: Values = {"errors": 0, "models": "[]"} if where else mark
    partitions = [day_of_calls(store, mark, other, mark, other, mark, mark, other) for _ in range(3)]
    within = {"since_ms": NOW_MS - 5, "until_ms": NOW_MS, "where": where}
    found = [row["started_at"] - NOW_MS for row in store.select("sessions_by_day", partitions, **within)]
    assert found == ([-2, -4, -5] if where else [-1, -2, -3, -4, -5]) * 3
    found = [row["started_at"] - NOW_MS for row in store.select("sessions_by_day", partitions, limit=2, **within)]
    assert found == ([-2, -4] if where else [-1, -2]) * 3


@pytest.mark.parametrize("where", [[], [("models", "has", "nova")]])
def test_rows_hold_the_columns_that_were_asked_for(store: Store, where: Any) -> None:
    partition = day_of_calls(store, *CALLS[:2])
    for names in (("session_id", "started_at"), ("models", "ended_at")):
        whole_rows = store.select("sessions_by_day", [partition], where=where)
        expected = [{name: row[name] for name in names} for row in whole_rows]
        assert list(store.select("sessions_by_day", [partition], names=names, where=where)) == expected != []


def test_conditions_hold_of_rows_that_an_index_finds_too(store: Store) -> None:
    user, mark = unique(), unique()
    values = [summary(f"{mark}-{number}", 1, user_id=user, errors=number) for number in range(4)]
    assert store.write([Row("session_summaries", v) for v in values]) == []
    found = store.select("session_summaries", [{"user_id": user}], where=[("errors", ">=", 2)], names=["session_id"])
    assert sorted(row["session_id"] for row in found) == [f"{mark}-2", f"{mark}-3"]


def test_texts_are_all_that_a_partition_says_in_these_columns(store: Store) -> None:
    mark = unique()
    said = {"a": ["Hello", None, "Grüße\n"], "b": [None], "c": ["", "x"], "e": ["e" * 30_000]}
    rows = [
        interaction(mark + name, at, seq=at, transcript=text, response=text and text.upper(), prompt="secret")
        for name, texts in said.items()
        for at, text in enumerate(texts)
    ]
    assert store.write([Row("voice_interactions", v) for v in rows]) == []
    asked = [*"eb", *"da" * 300, "c"]
    partitions = [{"session_id": mark + name} for name in asked]
    found = store.texts("voice_interactions", ("response", "transcript"), partitions)
    expected = {name: sorted(t for text in texts if text for t in (text, text.upper())) for name, texts in said.items()}
    assert [sorted(filter(None, text.split("\0"))) for text in found] == [expected.get(name, []) for name in asked]


@pytest.mark.parametrize(
    ("source", "names", "message"),
    [
        ("voice_interactions", ["transcript", "seq"], "'seq' is no column of texts"),
        ("voice_interactions", ["mood"], "'mood' is no column of texts"),
        ("error_logs", ["message"], "its partition key is of several columns"),
    ],
)
def test_what_has_no_texts_is_said(store: Store, source: str, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(store.texts(source, names, [{"session_id": unique()}]))


@pytest.mark.parametrize(
    ("source", "partition", "bounds", "message"),
    [
        ("calls", {"session_id": "a"}, {}, "'calls' is no table or view"),
        ("voice_interactions", {"user_id": "u"}, {}, r"given by \(session_id\), not by \(user_id\)"),
        ("sessions_by_day", {"day": "2026-11-22"}, {}, r"given by \(day, shard\), not by \(day\)"),
        ("session_summaries", {"session_id": "a"}, {"since_ms": 1}, "not ordered by time"),
        ("session_summaries", {"session_id": "a"}, {"names": ["mood"]}, "has no column 'mood'"),
        ("session_summaries", {"session_id": "a"}, {"where": [("mood", "=", 1)]}, "'mood' = is no condition"),
        ("session_summaries", {"session_id": "a"}, {"where": [("turns", "<", 1)]}, "'turns' < is no condition"),
        ("session_summaries", {"session_id": "a"}, {"where": [("turns", "has", "1")]}, "'turns' has is no condition"),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    store: Store, source: str, partition: Values, bounds: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list(store.select(source, [partition], **bounds))


# --- the view and the index


def test_view_shows_the_events_of_a_stage_and_hour_without_texts(store: Store) -> None:
    session, hour = unique(), f"llm#2026-11-22T10#{unique()}"
    shown = [interaction(session, at, seq=at, stage="llm", stage_hour=hour, model="m") for at in (2, 1)]
    hidden = interaction(session, 3, seq=3, type="session_started")
    rows = [{**values, "response": "text"} for values in shown] + [hidden]
    assert store.write([Row("voice_interactions", v) for v in rows]) == []

    def found() -> list[Values]:
        return list(store.select("interactions_by_stage", [{"stage_hour": hour}], since_ms=NOW_MS))

    wait_until(lambda: len(found()) == 2, "the view follows its table")
    assert found() == [{**dict.fromkeys(INTERACTIONS_BY_STAGE.columns), **values} for values in reversed(shown)]


def test_index_finds_a_persons_calls(store: Store) -> None:
    user, mark = unique(), unique()
    values = [summary(f"{mark}-{number}", 1, user_id=user) for number in range(3)]
    others = [summary(unique(), 1, user_id=unique()), summary(unique(), 1)]
    assert store.write([Row("session_summaries", v) for v in values + others]) == []
    found = sorted(store.select("session_summaries", [{"user_id": user}]), key=lambda row: row["session_id"])
    assert found == [whole("session_summaries", **v) for v in values]


def test_partitions_names_each_partition_once(store: Store) -> None:
    mark = unique()
    values = [interaction(f"{mark}{number}", at) for number in range(700) for at in (1, 2)]
    assert store.write([Row("voice_interactions", v) for v in values]) == []
    found = [p["session_id"] for p in store.partitions("voice_interactions") if p["session_id"].startswith(mark)]
    assert sorted(found) == sorted(f"{mark}{number}" for number in range(700))


def test_partitions_gives_every_column_of_the_key(store: Store) -> None:
    service = unique()
    assert store.write([Row("error_logs", error(service, 1))]) == []
    found = [p for p in store.partitions("error_logs") if p["service"] == service]
    assert found == [{"service": service, "hour": "2026-11-22T10", "shard": 3}]
