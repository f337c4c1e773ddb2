"""What verify says of messages, on every store: each is one thing only, and what is not stored is named."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from tests.builders import CallBuilder, health, realistic_call
from tests.contracts.store_kit import unique

from voicelog import wire
from voicelog.events import Event
from voicelog_sink.erasures import Erasure, Erasures
from voicelog_sink.pipeline import Record
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Store
from voicelog_sink.stores.lifetime import Lifetimes
from voicelog_sink.summary import summarise, summary_rows
from voicelog_sink.verify import Gap, Missing, Rules, gaps, verify

TOPIC = "voice-events"
NOW_MS = int(time.time() * 1000)
START_US = (NOW_MS - 600_000) * 1000


def call() -> CallBuilder:
    return realistic_call(f"call-{unique()}", start_us=START_US)


def records(events: Sequence[Event], first: int = 0) -> list[Record]:
    return [
        Record(TOPIC, 0, first + offset, None, wire.encode(event).value, (), NOW_MS)
        for offset, event in enumerate(events)
    ]


def rules(**given: object) -> Rules:
    default = {"lifetimes": Lifetimes.by_default(90), "now_ms": NOW_MS, "until_ms": None, "erasures": Erasures(),
               "dead": frozenset(), "committed": {(TOPIC, 0): 10**6}}  # fmt: skip
    return Rules(**(default | given))  # type: ignore[arg-type]


def test_everything_stored_is_stored_also_what_is_of_no_call(store: Store) -> None:
    made = call()
    events = [*made.events, health(START_US, component=unique())]
    store.write([row for event in events for row in rows_of(event)])
    ledger = verify(store, records(events), rules())
    assert dict(ledger.counts) == {TOPIC: {"stored": len(events)}}
    assert (ledger.missing, ledger.sessions) == ([], {made.session_id})


def test_row_that_is_gone_is_missing_and_named(store: Store) -> None:
    made = call()
    lost = made.events[3]
    store.write([row for event in made.events if event is not lost for row in rows_of(event)])
    ledger = verify(store, records(made.events), rules())
    assert dict(ledger.counts[TOPIC]) == {"stored": len(made.events) - 1, "missing": 1}
    assert ledger.missing == [Missing(TOPIC, 0, 3, made.session_id, lost.event_id)]


def test_garbage_is_missing_unless_it_is_a_dead_letter(store: Store) -> None:
    garbage = [Record(TOPIC, 0, offset, None, b"\xff", (), NOW_MS) for offset in range(2)]
    ledger = verify(store, garbage, rules(dead=frozenset({(TOPIC, 0, 1)})))
    assert dict(ledger.counts[TOPIC]) == {"dead": 1, "missing": 1}
    assert ledger.missing == [Missing(TOPIC, 0, 0, None, None)]


def test_what_the_group_has_not_read_waits(store: Store) -> None:
    made = call()
    ledger = verify(store, records(made.events), rules(committed={(TOPIC, 0): 2}))
    assert dict(ledger.counts[TOPIC]) == {"missing": 2, "waiting": len(made.events) - 2}
    assert dict(verify(store, records(made.events), rules(committed={})).counts[TOPIC]) == {"waiting": len(made.events)}


def test_expired_and_erased_events_need_no_row(store: Store) -> None:
    old = realistic_call(f"old-{unique()}", start_us=START_US - 100 * 86_400_000_000)
    gone = call()
    erasures = Erasures([Erasure("session", gone.session_id, NOW_MS)])
    ledger = verify(store, records([*old.events, *gone.events]), rules(erasures=erasures))
    assert dict(ledger.counts[TOPIC]) == {"expired": len(old.events), "erased": len(gone.events)}


def test_later_than_until_is_not_looked_at(store: Store) -> None:
    assert dict(verify(store, records(call().events), rules(until_ms=NOW_MS)).counts) == {}


def test_only_the_first_missing_are_named_and_all_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicelog_sink.verify.MOST_NAMED", 2)
    made = call()
    ledger = verify(store, records(made.events), rules())
    assert (len(ledger.missing), ledger.total("missing")) == (2, len(made.events))


def test_calls_with_holes_are_the_gaps(store: Store) -> None:
    whole, holed = call(), call()
    del holed.events[4]
    for made in (whole, holed):
        summary = summarise(made.events)
        assert summary is not None
        store.write(summary_rows(summary))
    count = len(holed.events)
    assert list(gaps(store, {whole.session_id, holed.session_id})) == [Gap(holed.session_id, count + 1, count, 1)]
