"""What the rules come to: which lifetime a table and its texts have, whoever said so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import realistic_call
from tests.strategies import events

from voicelog import wire
from voicelog.events import Event
from voicelog_sink.pipeline import Pipeline, Record
from voicelog_sink.retention import (
    DERIVED_DAYS,
    FOLLOWERS,
    KIND,
    KINDS,
    RULED,
    TABLE,
    Retention,
    Rule,
    kept,
    lifetimes,
    most_days,
    scope_of,
)
from voicelog_sink.rows import event_of, rows_of
from voicelog_sink.stores.lifetime import DAY_MS, Lifetimes
from voicelog_sink.tables import RETENTION, TABLES

NAMES = [*KINDS, *RULED]
rules_of = st.fixed_dictionaries(
    {},
    optional={
        name: st.integers(1, most_days(name)).map(lambda days, name=name: Rule(scope_of(name), name, days))
        for name in NAMES
    },
)


def test_without_rules_everything_is_kept_as_it_always_was() -> None:
    assert lifetimes({}, 90) == Lifetimes.by_default(90)
    assert Retention(30).lifetimes == Lifetimes.by_default(30)


@given(rules_of, st.integers(1, 3650))
def test_tables_own_rule_goes_before_its_kinds_and_that_before_the_default(rules: dict[str, Rule], ttl: int) -> None:
    found = {each.table.name: each for each in kept(rules, ttl)}
    defaults = {each.table.name: each.days for each in kept({}, ttl)}
    for kind in KINDS.values():
        for name in kind.tables if kind.name != "text" else ():
            leader, more = FOLLOWERS.get(name, (name, 0))
            rule = rules.get(leader, rules.get(kind.name))
            assert found[name].rule == rule
            assert found[name].days == (rule.days + more if rule else defaults[name])
    assert {name for name, each in found.items() if each.days is None} == {"erasures", "retention", "derived_pending"}


@given(rules_of, st.integers(1, 3650))
def test_text_never_outlives_its_row_and_is_named_only_where_it_goes_before(rules: dict[str, Rule], ttl: int) -> None:
    found = lifetimes(rules, ttl)
    assert set(found.rows_ms) == set(Lifetimes.by_default(1).rows_ms)
    for each in kept(rules, ttl):
        name, days = each.table.name, each.days or 0
        shortest = min(days, rules["text"].days) if "text" in rules else days
        assert found.texts_ms.get(name) == (shortest * DAY_MS if each.table.texts and shortest < days else None)
    assert found.events_ms == max(found.rows_ms[name] for name in KINDS["figures"].tables)


def test_names_of_rules_are_kinds_and_tables_that_expire_by_themselves() -> None:
    assert {scope_of(name) for name in KINDS} == {KIND}
    assert {scope_of(name) for name in RULED} == {TABLE}
    assert set(RULED) | set(FOLLOWERS) == set(Lifetimes.by_default(1).rows_ms)
    assert not set(KINDS) & set(TABLES)
    assert most_days("session_summaries") == DERIVED_DAYS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sessions_by_day", "sessions_by_day is kept as session_summaries is: set that one"),
        ("erasures", "the rows of erasures do not expire: expected a kind"),
        ("poems", r"'poems' is neither a kind nor a table: expected a kind \(text, figures, summaries, rollups\) or a"),
    ],
)
def test_other_names_are_refused_with_the_ones_that_are_expected(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scope_of(name)


def test_a_rule_is_the_row_that_says_so() -> None:
    rule = Rule(KIND, "text", 7, 1_800_000_000_000, "ann@box")
    assert set(rule.row.values) == set(RETENTION.columns)
    assert set(rule.key) == set(RETENTION.key)
    assert Rule(**rule.row.values) == rule


# --- what follows for events


def test_event_is_expired_when_no_table_would_keep_anything_of_it() -> None:
    call = realistic_call("call", user_id="ann")
    call_events = [wire.decode(wire.encode(event).value) for event in call.events]
    records = [Record("t", 0, i, None, wire.encode(event).value, (), None) for i, event in enumerate(call_events)]
    now_ms = call_events[-1].ts // 1000 + 10 * DAY_MS
    pipeline = Pipeline(10**6, 90)
    pipeline.retention.lifetimes = lifetimes({"voice_interactions": Rule(TABLE, "voice_interactions", 7)}, 90)
    batch = pipeline.sort(records, now_ms)
    only_there = [event for event in call_events if {row.table for row in rows_of(event)} == {"voice_interactions"}]
    assert only_there
    assert batch.expired == len(only_there)
    assert len(batch.events) == len(call_events) - len(only_there)
    pipeline.retention.lifetimes = lifetimes({"figures": Rule(KIND, "figures", 7)}, 90)
    assert pipeline.sort(records, now_ms).expired == len(call_events)


@given(events())
def test_event_whose_texts_are_gone_is_still_one(event: Event) -> None:
    row = rows_of(event)[0]
    if row.table != "voice_interactions":
        return
    row.values.update(dict.fromkeys(TABLES["voice_interactions"].texts))
    bare = event_of(row.values)
    assert event_of(rows_of(bare)[0].values) == bare
    assert wire.decode(wire.encode(bare).value) == bare
