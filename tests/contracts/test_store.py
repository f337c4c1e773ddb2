"""What every store does: one suite for all that SCHEMES names. A new store adds a fixture `<scheme>_url` here."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.running import wait_until
from tests.servers.cql import cql_session, drop_keyspace, with_keyspace

from voicelog.settings import load
from voicelog_sink.stores import SCHEMES, make_store
from voicelog_sink.stores.base import Rejected, Row, Store, StoreMisconfigured, StoreUnavailable, Values
from voicelog_sink.stores.lifetime import DAY_MS, born_column
from voicelog_sink.tables import (
    BLOB,
    BOOL,
    INT,
    INTERACTIONS_BY_STAGE,
    REAL,
    SMALL,
    TABLES,
    TEXT,
    TIME,
    Table,
)

NOW_MS = time.time_ns() // 1_000_000
TTL_DAYS = 90
ONE_SCHEME_A_CLASS = sorted({target: scheme for scheme, target in sorted(SCHEMES.items(), reverse=True)}.values())
EACH = [pytest.param(s, marks=[] if s == "sqlite" else [pytest.mark.real]) for s in ONE_SCHEME_A_CLASS]


# --- stores to test


@pytest.fixture(scope="module", params=EACH)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url_of(scheme: str, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes URLs of fresh stores."""
    return request.getfixturevalue(f"{scheme}_url")


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('store')}/calls.db"


@pytest.fixture(scope="module")
def cassandra_url(cql_base_url: str, cql_admin: Any) -> Iterator[Callable[[], str]]:
    made: list[str] = []

    def fresh() -> str:
        made.append(f"t{secrets.token_hex(4)}")
        return with_keyspace(cql_base_url, made[-1])

    yield fresh
    for keyspace in made:
        drop_keyspace(cql_admin, keyspace)


@pytest.fixture(scope="module")
def scylla_url(cassandra_url: Callable[[], str]) -> Callable[[], str]:
    return cassandra_url


def opened(url: str) -> Store:
    store = make_store(load({"store": url, "ttl_days": TTL_DAYS}, {})[0])
    store.open(10_000)
    return store


@pytest.fixture(scope="module")
def store(url_of: Callable[[], str]) -> Iterator[Store]:
    """An initialised store that the module's tests share; each writes keys of its own."""
    store = opened(url_of())
    store.init()
    yield store
    store.close()


@pytest.fixture
def bare_url(url_of: Callable[[], str]) -> str:
    return url_of()


@pytest.fixture
def bare(bare_url: str) -> Iterator[Store]:
    """An open store without a schema, for one test."""
    store = opened(bare_url)
    yield store
    store.close()


def by_hand(url: str, statement: str) -> None:
    """Do something to the store that voicelog does not do."""
    if url.startswith("sqlite"):
        db = sqlite3.connect(Path(url.removeprefix("sqlite:///")))
        db.execute(statement)
        db.commit()
        db.close()
        return
    with cql_session(url) as session:
        session.execute(statement)


# --- rows to write


def unique() -> str:
    return secrets.token_hex(8)


def whole(table: str, **values: Any) -> Values:
    """Return the row as a store gives it back."""
    return {**dict.fromkeys(TABLES[table].columns), **values}


def read(store: Store, table: str, *partitions: Values, **bounds: Any) -> list[Values]:
    key = TABLES[table].partition_key
    return list(store.select(table, [{name: p[name] for name in key} for p in partitions], **bounds))


def interaction(session: str, at_ms: int = 0, **values: Any) -> Values:
    given = {"session_id": session, "ts": NOW_MS + at_ms, "stream_id": "s1", "seq": 1, "type": "llm_request", "v": 1}
    return {**given, **values}


def summary(session: str, rows_read: int, **values: Any) -> Values:
    return {"session_id": session, "started_at": NOW_MS, "rows_read": rows_read, **values}


def error(service: str, at_ms: int, **values: Any) -> Values:
    key = {"service": service, "hour": "2026-11-22T10", "shard": 3, "ts": NOW_MS + at_ms, "stream_id": "s1", "seq": 1}
    return {**key, **values}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    TEXT: texts,
    INT: st.integers(-(2**63), 2**63 - 1),
    SMALL: st.integers(-(2**31), 2**31 - 1),
    REAL: st.floats(allow_nan=False),
    BOOL: st.booleans(),
    TIME: st.integers(0, 4_102_444_800_000),
    BLOB: st.binary(max_size=30),
}


def values_of(table: Table) -> st.SearchStrategy[Values]:
    """Return rows of a table: any value of each column's type, absent and null ones too; alive, of any version."""
    fixed = {born_column(table): st.integers(NOW_MS - 89 * DAY_MS, NOW_MS + DAY_MS)}
    if table.version:
        fixed[table.version] = st.integers(0, 2**50)
    if len(table.partition_key) == 1 and table.columns[table.partition_key[0]] == TEXT:
        fixed[table.partition_key[0]] = texts.filter(bool)
    needed = {name: fixed.get(name, OF_TYPE[table.columns[name]]) for name in {*table.key, *fixed}}
    others = {name: st.none() | OF_TYPE[kind] for name, kind in table.columns.items() if name not in needed}
    return st.fixed_dictionaries(needed, optional=others)


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


def test_nothing_written_is_nothing_stored(store: Store) -> None:
    assert store.write([]) == []
    assert read(store, "voice_interactions", {"session_id": unique()}) == []
    assert list(store.select("voice_interactions", [])) == []


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


def test_limit_of_a_descending_table_takes_the_newest(store: Store) -> None:
    service = unique()
    assert store.write([Row("error_logs", error(service, at)) for at in range(4)]) == []
    found = read(store, "error_logs", error(service, 0), until_ms=NOW_MS + 3, limit=2)
    assert [row["ts"] - NOW_MS for row in found] == [2, 1]


@pytest.mark.parametrize(
    ("source", "partition", "bounds", "message"),
    [
        ("calls", {"session_id": "a"}, {}, "'calls' is no table or view"),
        ("voice_interactions", {"user_id": "u"}, {}, r"given by \(session_id\), not by \(user_id\)"),
        ("sessions_by_day", {"day": "2026-11-22"}, {}, r"given by \(day, shard\), not by \(day\)"),
        ("session_summaries", {"session_id": "a"}, {"since_ms": 1}, "not ordered by time"),
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
    ]
    assert [rejected[0] for rejected in store.write(rows)] == [0, 2, 3]


def test_row_that_lacks_a_key_column_is_refused_alone(store: Store) -> None:
    values = interaction(unique())
    del values["seq"]
    [rejected] = store.write([Row("voice_interactions", values)])
    assert "seq" in rejected.message


# --- the schema


def test_without_schema_reading_and_writing_say_what_to_run(bare: Store) -> None:
    row = Row("voice_interactions", interaction(unique()))
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init"):
        bare.write([row])
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init"):
        list(bare.select("voice_interactions", [{"session_id": "a"}]))
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init"):
        list(bare.partitions("voice_interactions"))
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init"):
        bare.delete("voice_interactions", [row.values])


def test_check_names_what_is_missing_and_init_makes_it_once(bare: Store) -> None:
    before = bare.check()
    assert before
    assert all("is missing" in d.what and d.remedy == "voicelog-sink init" for d in before)
    assert bare.init()
    assert bare.check() == []
    assert bare.init() == []
    assert bare.check() == []


def test_dropped_column_is_named_and_put_back(bare: Store, bare_url: str) -> None:
    bare.init()
    row = Row("error_logs", error(unique(), 0, error_stack="Traceback", message="m"))
    assert bare.write([row]) == []
    by_hand(bare_url, "ALTER TABLE error_logs DROP error_stack")
    assert [d.what.replace("TEXT", "text") for d in bare.check()] == [
        "table error_logs: column error_stack (text) is missing"
    ]
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init"):
        bare.write([row])
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init"):
        read(bare, "error_logs", row.values)
    assert bare.init() == ["added column error_stack to table error_logs"]
    assert bare.check() == []
    assert bare.write([row]) == []
    assert read(bare, "error_logs", row.values) == [whole("error_logs", **row.values)]


def test_dropped_table_and_index_are_named_and_put_back(bare: Store, bare_url: str) -> None:
    bare.init()
    by_hand(bare_url, "DROP TABLE system_health")
    by_hand(bare_url, "DROP INDEX session_summaries_user_id")
    assert {d.what for d in bare.check()} == {
        "table system_health is missing",
        "table session_summaries: index session_summaries_user_id on user_id is missing",
    }
    health = {"component": "sink", "host": "h", "day": "2026-11-22", "ts": NOW_MS, "stream_id": "s", "seq": 1}
    with pytest.raises(StoreMisconfigured, match="system_health"):
        bare.write([Row("system_health", health)])
    assert bare.init()
    assert bare.check() == []
    assert bare.write([Row("system_health", health)]) == []


# --- life


def test_closed_store_can_be_closed_again_and_opened_again(bare: Store) -> None:
    bare.init()
    bare.ping()
    bare.close()
    bare.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        bare.write([Row("voice_interactions", interaction(unique()))])
    with pytest.raises(StoreUnavailable, match="not open"):
        bare.ping()
    bare.open(10_000)
    bare.ping()
    assert bare.check() == []


def test_reader_sees_what_another_store_of_the_same_place_wrote(bare: Store, bare_url: str) -> None:
    bare.init()
    reader = opened(bare_url)
    for at in range(3):
        row = Row("voice_interactions", interaction("call", at))
        assert bare.write([row]) == []
        assert read(reader, "voice_interactions", row.values, since_ms=NOW_MS + at) == [
            whole("voice_interactions", **row.values)
        ]
    reader.close()


def test_abandoned_reading_leaves_the_store_usable(store: Store) -> None:
    mark = unique()
    values = [interaction(f"{mark}{s}", at, seq=at) for s in range(20) for at in range(30)]
    assert store.write([Row("voice_interactions", v) for v in values]) == []
    rows = store.select("voice_interactions", [{"session_id": f"{mark}{s}"} for s in range(20)])
    next(rows)
    assert store.write([Row("voice_interactions", interaction(f"{mark}0", 31, seq=31))]) == []
    rows.close()
    assert len(read(store, "voice_interactions", {"session_id": f"{mark}0"})) == 31
