"""What every store does about its schema and its life."""

from __future__ import annotations

import pytest
from tests.contracts.store_kit import (
    NOW_MS,
    by_hand,
    error,
    interaction,
    opened,
    read,
    unique,
    whole,
)

from voicelog_sink.stores.base import Row, Store, StoreMisconfigured, StoreUnavailable

# --- the schema


def test_without_schema_reading_and_writing_say_what_to_run(bare: Store) -> None:
    row = Row("voice_interactions", interaction(unique()))
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init --only store"):
        bare.write([row])
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init --only store"):
        list(bare.select("voice_interactions", [{"session_id": "a"}]))
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init --only store"):
        list(bare.partitions("voice_interactions"))
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init --only store"):
        bare.delete("voice_interactions", [row.values])


def test_check_names_what_is_missing_and_init_makes_it_once(bare: Store) -> None:
    before = bare.check()
    assert before
    assert all("is missing" in d.what and d.remedy.startswith("voicelog-sink init --only store") for d in before)
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
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init --only store"):
        bare.write([row])
    with pytest.raises(StoreMisconfigured, match="voicelog-sink init --only store"):
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
