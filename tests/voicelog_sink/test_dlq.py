"""Which dead letters, in which order, and what would become of them: decided without a broker."""

from __future__ import annotations

import json
import time
from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import health
from tests.calls import calls

from voicelog.events import Event
from voicelog.wire import encode
from voicelog_sink.dlq import (
    EXPIRED,
    MAX_MESSAGE_CHARS,
    READABLE,
    Counts,
    Filter,
    chunks,
    order_of,
    page,
    refusal,
    row_of,
    verdict,
)
from voicelog_sink.letters import Letter
from voicelog_sink.pipeline import Pipeline
from voicelog_sink.retention import Rule, lifetimes

PIPELINE = Pipeline(max_message_bytes=1_000_000, ttl_days=90)
LETTER = Letter(
    partition=1, offset=4, at_ms=5_000, topic="stt-results", topic_partition=0, topic_offset=9, reason="not_json",
    stage="decode", error="E", message="m", stack=None, sink_version="1", replays=2, key=b"call-1",
    value=b'{"session_id": "call-2"', headers=[],
)  # fmt: skip
letters = st.builds(
    lambda partition, offset, at_ms: attrs.evolve(LETTER, partition=partition, offset=offset, at_ms=at_ms),
    st.integers(0, 3), st.integers(0, 30), st.one_of(st.none(), st.integers(1, 5)),
)  # fmt: skip
many = st.lists(letters, max_size=40, unique_by=lambda letter: letter.place)


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Filter(), True),
        (Filter(reasons=frozenset({"not_json", "too_large"})), True),
        (Filter(reasons=frozenset({"too_large"})), False),
        (Filter(topics=frozenset({"stt-results"})), True),
        (Filter(topics=frozenset({"eu-stt-results"})), False),
        (Filter(since_ms=5_000), True),
        (Filter(since_ms=5_001), False),
        (Filter(max_replays=2), True),
        (Filter(max_replays=1), False),
        (Filter(sessions=frozenset({"call-1"})), True),
        (Filter(sessions=frozenset({"call-2"})), False),
        (Filter(reasons=frozenset({"not_json"}), since_ms=5_001), False),
    ],
)
def test_filter_takes_what_meets_each_of_its_conditions(wanted: Filter, takes: bool) -> None:
    assert wanted.takes(LETTER) is takes


def test_session_is_found_by_the_key_as_well_as_in_the_json() -> None:
    letter = attrs.evolve(LETTER, value=b'{"session_id": "call-2"}')
    assert [Filter(sessions=frozenset({name})).takes(letter) for name in ("call-1", "call-2", "call-3")] == [
        True, True, False,
    ]  # fmt: skip


def test_letter_of_an_unknown_time_is_not_said_to_be_too_old() -> None:
    assert Filter(since_ms=5_000).takes(attrs.evolve(LETTER, at_ms=None))


@given(many, st.integers(1, 7), st.booleans())
def test_pages_one_after_another_are_all_letters_in_order(found: list[Letter], limit: int, oldest_first: bool) -> None:
    by_place = {letter.place: letter for letter in found}
    seen, after = [], None
    while rows := page(found, limit, oldest_first=oldest_first, after=after):
        assert len(rows) <= limit
        seen += rows
        after = order_of(by_place[rows[-1].place])
    assert seen == [row_of(x) for x in sorted(found, key=order_of, reverse=not oldest_first)]


def test_line_keeps_of_a_letter_what_is_bounded() -> None:
    row = row_of(attrs.evolve(LETTER, message="x" * 4_000, value=b"y" * 1_000_000))
    assert len(row.message or "") == MAX_MESSAGE_CHARS
    assert row.size_bytes == 1_000_000
    assert len(repr(row)) < 1_000


def test_counts_are_by_reason_and_by_topic() -> None:
    counts = Counts()
    found = [LETTER, attrs.evolve(LETTER, reason="too_large"), attrs.evolve(LETTER, reason=None, topic=None)]
    assert list(counts.counting([*found, LETTER])) == [*found, LETTER]
    assert (counts.total, counts.reasons, counts.topics) == (
        4, Counter({"not_json": 2, "too_large": 1, None: 1}), Counter({"stt-results": 3, None: 1}),
    )  # fmt: skip


def test_verdict_is_what_the_sink_would_make_of_the_message_now() -> None:
    now_ms = int(time.time() * 1000)
    event = calls(1)[1]
    good = encode(event).value
    readable = attrs.evolve(LETTER, value=good)
    assert verdict(readable, PIPELINE, now_ms).outcome == READABLE
    assert verdict(readable, PIPELINE, now_ms + 91 * 86_400_000).outcome == EXPIRED
    newer = attrs.evolve(LETTER, value=json.dumps({**json.loads(good), "v": 99}).encode())
    assert verdict(newer, PIPELINE, now_ms).outcome == "unsupported_version"
    small = attrs.evolve(PIPELINE, max_message_bytes=10)
    found = verdict(readable, small, now_ms)
    assert (found.outcome, found.is_readable) == ("too_large", False)
    assert "expected at most 10" in (found.message or "")
    assert not verdict(LETTER, PIPELINE, now_ms).is_readable


def test_verdict_names_the_days_of_the_tables_that_the_message_would_be_in() -> None:
    now_ms, sink = time.time_ns() // 1_000_000, Pipeline(1_000_000, 90)
    sink.retention.lifetimes = lifetimes({"system_health": Rule("table", "system_health", 2)}, 90)

    def message(event: Event, age_days: float) -> str:
        old = attrs.evolve(event, ts=round((now_ms - age_days * 86_400_000) * 1000))
        found = verdict(attrs.evolve(LETTER, value=encode(old).value), sink, now_ms)
        return f"{found.outcome} {(found.message or '')[:18]}".rstrip()

    assert [message(health(), days) for days in (1.9, 3, 100)] == [
        "readable", "expired older than 2 days", "expired older than 2 days",
    ]  # fmt: skip
    assert [message(calls(1, 25)[8], days) for days in (3, 91)] == ["readable", "expired older than 90 days"]


def test_only_what_was_in_a_topic_of_events_can_go_back() -> None:
    topics = ["stt-results", "voice-events"]
    assert refusal(LETTER, topics) is None
    assert "no header says" in (refusal(attrs.evolve(LETTER, topic=None), topics) or "")
    assert "'payments'" in (refusal(attrs.evolve(LETTER, topic="payments"), topics) or "")


@given(st.lists(st.integers(0, 50), max_size=30))
def test_chunks_are_bounded_in_letters_and_in_bytes_and_lose_none(sizes: list[int]) -> None:
    found = [attrs.evolve(LETTER, offset=number, value=b"x" * size) for number, size in enumerate(sizes)]
    made = list(chunks(found, 4, 60))
    assert [letter for chunk in made for letter in chunk] == found
    for chunk in made:
        assert len(chunk) <= 4
        assert sum(letter.size_bytes for letter in chunk) <= 60 or len(chunk) == 1
