"""Lifetimes on every store: texts go before their rows, rules are read from the store, what is stored goes by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contracts.store_kit import NOW_MS, TTL_DAYS, error, interaction, read, summary, unique, values_of, whole

from voicelog_sink.erasures import Erasure
from voicelog_sink.retention import KINDS, RULED, Retention, Rule, lifetimes, read_rules
from voicelog_sink.retention_apply import Application, Applied
from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.stores.lifetime import DAY_MS, Lifetimes, born_column, wall_ms
from voicelog_sink.tables import TABLES

BY_DEFAULT = Lifetimes.by_default(TTL_DAYS)
WEEK = lifetimes({"text": Rule("kind", "text", 7)}, TTL_DAYS)
WORDS = {"transcript": "my card", "attempts": "[]", "error_message": "no such card"}
FIGURES = {"duration_ms": 12.5, "marks": "{}", "error_type": "E", "user_id": "ann"}


@pytest.fixture
def kept_for(store: Store) -> Iterator[Callable[[Lifetimes], None]]:
    """Sets the lifetimes that the shared store goes by, for one test."""
    yield store.keep_for
    store.keep_for(BY_DEFAULT)


def spoken(session: str, days: float, seq: int = 1) -> Values:
    return interaction(session, -round(days * DAY_MS), seq=seq, **WORDS, **FIGURES)


def without_texts(table: str, values: Values) -> Values:
    return whole(table, **{name: value for name, value in values.items() if name not in TABLES[table].texts})


def put(store: Store, table: str, *rows: Values) -> None:
    assert store.write([Row(table, values) for values in rows]) == []


def test_text_whose_time_is_over_is_not_stored_and_its_figures_are(
    store: Store, kept_for: Callable[[Lifetimes], None]
) -> None:
    kept_for(WEEK)
    session = unique()
    old, young = spoken(session, 8, 1), spoken(session, 6, 2)
    put(store, "voice_interactions", old, young)
    assert read(store, "voice_interactions", old) == [
        without_texts("voice_interactions", old),
        whole("voice_interactions", **young),
    ]


@pytest.mark.parametrize("name", KINDS["text"].tables)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_row_comes_back_with_the_texts_that_are_not_over(
    store: Store, kept_for: Callable[[Lifetimes], None], name: str, data: st.DataObject
) -> None:
    kept_for(WEEK)
    table = TABLES[name]
    values = data.draw(values_of(table))
    values[table.partition_key[0]] += unique()
    put(store, name, values)
    is_old = values[born_column(table)] + 7 * DAY_MS <= wall_ms()
    assert read(store, name, values) == [without_texts(name, values) if is_old else whole(name, **values)]


def test_text_of_a_summary_goes_with_the_texts_and_a_newer_one_replaces_it(
    store: Store, kept_for: Callable[[Lifetimes], None]
) -> None:
    kept_for(WEEK)
    old, young = unique(), unique()
    put(store, "session_summaries", summary(old, 1, started_at=NOW_MS - 8 * DAY_MS, attributes="{}", turns=1))
    put(store, "session_summaries", summary(young, 1, attributes='{"a":1}', turns=1))
    put(store, "session_summaries", summary(young, 2, attributes=None, turns=2))
    assert read(store, "session_summaries", {"session_id": old}) == [
        whole("session_summaries", **summary(old, 1, started_at=NOW_MS - 8 * DAY_MS, turns=1))
    ]
    assert read(store, "session_summaries", {"session_id": young}) == [
        whole("session_summaries", **summary(young, 2, turns=2))
    ]


def test_row_that_is_refused_is_named_once_when_its_texts_are_written_apart(
    store: Store, kept_for: Callable[[Lifetimes], None]
) -> None:
    kept_for(WEEK)
    session = unique()
    good = spoken(session, 1)
    rows = [Row("voice_interactions", values) for values in (
        {**good, "transcript": b"x"}, {**good, "stream_id": None}, good, {**good, "duration_ms": "long", "text": b"x"},
    )]  # fmt: skip
    rejected = store.write(rows)
    assert [each.index for each in rejected] == [0, 1, 3]
    assert read(store, "voice_interactions", good) == [whole("voice_interactions", **good)]


def test_delete_of_columns_leaves_the_row_and_its_neighbours(store: Store) -> None:
    session = unique()
    rows = [spoken(session, 0, number) for number in range(3)]
    put(store, "voice_interactions", *rows)
    store.delete("voice_interactions", [rows[1], {**rows[1], "seq": 99}], ("transcript", "attempts", "error_message"))
    assert read(store, "voice_interactions", rows[0]) == [
        whole("voice_interactions", **rows[0]),
        without_texts("voice_interactions", rows[1]),
        whole("voice_interactions", **rows[2]),
    ]


def test_rules_are_read_from_the_store_and_one_that_is_gone_leaves_the_default(
    store: Store, kept_for: Callable[[Lifetimes], None]
) -> None:
    retention = Retention(TTL_DAYS)
    rules = [Rule("kind", "text", 7, NOW_MS, "ann@box"), Rule("table", "error_logs", 30, NOW_MS, "ann@box")]
    assert store.write([rule.row for rule in rules]) == []
    assert read_rules(store) == {rule.name: rule for rule in rules}
    retention.load(store)
    assert retention.lifetimes == lifetimes({rule.name: rule for rule in rules}, TTL_DAYS)
    session = unique()
    put(store, "voice_interactions", spoken(session, 8))
    assert read(store, "voice_interactions", {"session_id": session})[0]["transcript"] is None
    store.delete("retention", [rule.key for rule in rules])
    retention.load(store)
    assert (read_rules(store), retention.lifetimes) == ({}, BY_DEFAULT)


@pytest.mark.parametrize(
    "odd",
    [{"name": "poems"}, {"scope": "table", "name": "erasures"}, {"name": "error_logs"}, {"days": 0}, {"days": 4000},
     {"days": None}],
    ids=str,
)  # fmt: skip
def test_rule_that_makes_no_sense_has_no_effect(store: Store, odd: Values, caplog: pytest.LogCaptureFixture) -> None:
    row = Rule("kind", "text", 7, NOW_MS, "x").row
    row.values.update(odd)
    assert store.write([row]) == []
    assert read_rules(store) == {}
    assert "is not known and has no effect" in caplog.text
    store.delete("retention", [row.values])


# --- what is stored already


def applied(store: Store, to: Lifetimes, *tables: str, **how: Any) -> Applied:
    return Application(store, to, wall_ms(), **how).run(tables)


def test_what_is_stored_already_goes_by_the_rules_once_they_are_applied(
    bare: Store,
) -> None:
    bare.init()
    session = unique()
    old, young = spoken(session, 8, 1), spoken(session, 6, 2)
    failed = error("desk", -8 * DAY_MS, error_message="no such card", message="m", error_type="E")
    put(bare, "voice_interactions", old, young)
    put(bare, "error_logs", failed)
    put(bare, "session_summaries", summary(session, 1, started_at=NOW_MS - 8 * DAY_MS, attributes="{}"))
    tables = KINDS["text"].tables
    would = applied(bare, WEEK, *tables, texts_alone=True, dry_run=True)
    assert read(bare, "voice_interactions", old)[0]["transcript"] == "my card"
    assert applied(bare, WEEK, *tables, texts_alone=True) == would
    assert dict(would.texts) == {"voice_interactions": 1, "error_logs": 1, "session_summaries": 1}
    assert dict(would.rows) == {}
    assert dict(would.written) == ({"voice_interactions": 1} if bare.writes_expiry else {})
    assert read(bare, "voice_interactions", old) == [
        without_texts("voice_interactions", old),
        whole("voice_interactions", **young),
    ]
    assert read(bare, "error_logs", failed) == [without_texts("error_logs", failed)]
    assert read(bare, "session_summaries", {"session_id": session})[0]["attributes"] is None
    assert applied(bare, WEEK, *tables, texts_alone=True).texts == {}


def test_rows_that_are_over_by_a_tables_own_rule_are_deleted_and_no_others(bare: Store) -> None:
    bare.init()
    short = lifetimes({"voice_interactions": Rule("table", "voice_interactions", 7)}, TTL_DAYS)
    session = unique()
    old, young = spoken(session, 8, 1), spoken(session, 6, 2)
    put(bare, "voice_interactions", old, young)
    put(bare, "error_logs", error("desk", -8 * DAY_MS))
    found = applied(bare, short, *RULED)
    assert dict(found.rows) == {"voice_interactions": 1}
    assert read(bare, "voice_interactions", old) == [whole("voice_interactions", **young)]
    assert len(read(bare, "error_logs", error("desk", 0))) == 1


def test_what_is_written_anew_does_not_bring_back_what_was_erased_meanwhile(bare: Store) -> None:
    bare.init()
    gone, stays = spoken(unique(), 1), spoken(unique(), 1)
    put(bare, "voice_interactions", gone, stays)
    application = Application(bare, WEEK, wall_ms(), texts_alone=True)
    rows = application._rows(TABLES["voice_interactions"])
    read_before = list(rows)
    assert bare.write([Erasure("session", gone["session_id"], NOW_MS).row]) == []
    bare.delete("voice_interactions", [gone])
    chunk = application._sorted(TABLES["voice_interactions"], read_before)
    application._do(TABLES["voice_interactions"], chunk)
    assert read(bare, "voice_interactions", gone) == []
    assert read(bare, "voice_interactions", stays) == [whole("voice_interactions", **stays)]
