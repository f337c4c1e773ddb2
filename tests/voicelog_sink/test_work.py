"""When a call is recomputed, and how long its row in derived_pending stays."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CallBuilder

from voicelog.events import Event, shard_of
from voicelog_sink.pending import ADOPT_AFTER_MS, REFRESH_AFTER_MS, key_of
from voicelog_sink.stores.base import Values
from voicelog_sink.summary import summarise
from voicelog_sink.work import AFTER_END_MS, AFTER_EVENT_MS, IDLE_MS, Job, Work

NOW = 1_000_000


def read(job: Job, events: list[Event]) -> Job:
    """Do what a recompute does with the events it finds."""
    job.summary = summarise(job.reading(events))
    return job


def one_event(session_id: str = "call-1") -> list[Event]:
    call = CallBuilder(session_id)
    call.started()
    return call.events


def whole_call() -> list[Event]:
    call = CallBuilder()
    call.started(), call.ended(10)
    return call.events


def test_call_is_announced_once() -> None:
    work = Work("sink-1", 10)
    row = {"bucket": shard_of("call-1"), "key": "call-1", "sink_id": "sink-1.1", "added_at": NOW}
    assert work.note(whole_call(), NOW) == [row]
    assert work.note(one_event(), NOW + REFRESH_AFTER_MS - 1) == []


def test_row_of_a_long_call_is_refreshed_in_place_before_anyone_may_adopt_it() -> None:
    work = Work("sink-1", 10)
    (row,) = work.note(one_event(), NOW)
    assert work.note(one_event(), NOW + REFRESH_AFTER_MS) == [{**row, "added_at": NOW + REFRESH_AFTER_MS}]
    assert work.note(one_event(), NOW + REFRESH_AFTER_MS + 1) == []


def test_row_that_another_sink_may_have_adopted_is_not_refreshed_but_replaced() -> None:
    work = Work("sink-1", 10)
    (row,) = work.note(one_event(), NOW)
    (newer,) = work.note(one_event(), NOW + ADOPT_AFTER_MS)
    assert key_of(newer) == {**key_of(row), "sink_id": "sink-1.2"}


def test_event_is_due_within_a_minute_and_an_end_within_seconds() -> None:
    work = Work("sink-1", 10)
    work.note(one_event(), NOW)
    work.note(one_event(), NOW + 40_000)
    assert work.take(NOW + AFTER_EVENT_MS - 1, 9, 999) == []
    work.note(whole_call(), NOW + 41_000)
    assert work.take(NOW + 41_000 + AFTER_END_MS - 1, 9, 999) == []
    assert [job.session_id for job in work.take(NOW + 41_000 + AFTER_END_MS, 9, 999)] == ["call-1"]


def test_row_goes_when_an_ended_call_was_read_to_its_end() -> None:
    work, events = Work("sink-1", 10), whole_call()
    (row,) = work.note(events, NOW)
    jobs = work.take(NOW + AFTER_END_MS, 9, 999)
    assert work.settle([read(job, events) for job in jobs], NOW + AFTER_END_MS) == [key_of(row)]
    assert len(work) == 0


def test_row_of_a_call_without_an_end_goes_after_it_was_idle() -> None:
    work, events = Work("sink-1", 10), one_event()
    (row,) = work.note(events, NOW)
    (job,) = work.take(NOW + AFTER_EVENT_MS, 9, 999)
    assert work.settle([read(job, events)], NOW + AFTER_EVENT_MS) == []
    assert work.take(NOW + IDLE_MS - 1, 9, 999) == []
    (job,) = work.take(NOW + IDLE_MS, 9, 999)
    assert not job.changed
    assert work.settle([job], NOW + IDLE_MS) == [key_of(row)]


def test_event_that_arrives_while_its_call_is_recomputed_leaves_it_pending() -> None:
    work, events = Work("sink-1", 10), whole_call()
    work.note(events, NOW)
    (job,) = work.take(NOW + AFTER_END_MS, 9, 999)
    read(job, events)
    work.note(one_event(), NOW + AFTER_END_MS)
    assert work.settle([job], NOW + AFTER_END_MS) == []
    assert [job.session_id for job in work.take(NOW + AFTER_END_MS + AFTER_EVENT_MS, 9, 999)] == ["call-1"]


def test_call_whose_announced_events_can_not_be_read_yet_stays_pending_for_a_while() -> None:
    work, events, now = Work("sink-1", 10), whole_call(), NOW + AFTER_END_MS
    (row,) = work.note(events, NOW)
    for wait_ms in (5_000, 20_000, 60_000):
        (job,) = work.take(now, 9, 999)
        assert work.settle([read(job, events[:1])], now) == []
        now += wait_ms
    (job,) = work.take(now, 9, 999)
    assert work.settle([read(job, events[:1])], now + IDLE_MS) == [key_of(row)]


def test_work_that_failed_with_the_store_is_due_again() -> None:
    work, events = Work("sink-1", 10), whole_call()
    work.note(events, NOW)
    work.put_back(work.take(NOW + AFTER_END_MS, 9, 999), NOW + AFTER_END_MS)
    assert work.take(NOW + AFTER_END_MS + 999, 9, 999) == []
    (job,) = work.take(NOW + AFTER_END_MS + 1000, 9, 999)
    assert job.changed
    assert job.expected == {events[0].stream_id: 2}


def test_call_above_the_limit_is_announced_but_not_remembered() -> None:
    work = Work("sink-1", 2)
    rows = work.note([e for i in range(3) for e in one_event(f"call-{i}")], NOW)
    assert [row["key"] for row in rows] == ["call-0", "call-1", "call-2"]
    assert len(work) == 2
    assert not work.adopt(rows[2], NOW)


def test_calls_are_taken_together_up_to_a_number_of_rows() -> None:
    work = Work("sink-1", 10)
    work.note([event for name in "abcd" for event in one_event(name) * 4], NOW)
    assert [len(work.take(NOW + AFTER_EVENT_MS, 9, max_rows)) for max_rows in (5, 1, 999)] == [2, 1, 1]


def test_call_that_is_dear_to_recompute_is_recomputed_more_rarely() -> None:
    work, events = Work("sink-1", 10), one_event()
    work.note(events, NOW)
    (job,) = work.take(NOW + AFTER_EVENT_MS, 9, 999)
    job.cost_ms = 1800.0
    work.settle([read(job, events)], NOW + AFTER_EVENT_MS)
    work.note(events, NOW + AFTER_EVENT_MS)
    assert work.take(NOW + AFTER_EVENT_MS + 179_999, 9, 999) == []
    assert len(work.take(NOW + AFTER_EVENT_MS + 180_000, 9, 999)) == 1


class Simulation:
    """A sink and its tables, in which everything may happen late: writes, reads, deletions."""

    def __init__(self) -> None:
        self.work = Work("sink-1", 3)
        self.now = NOW
        self.calls = {name: CallBuilder(name) for name in ("a", "b", "c", "d")}
        self.stored: dict[str, list[Event]] = {name: [] for name in self.calls}
        self.summarised: dict[str, int] = dict.fromkeys(self.calls, 0)
        self.rows: dict[tuple[Any, ...], Values] = {}
        self.jobs: list[Job] = []
        self.deletions: list[Values] = []

    def event(self, name: str, ends: bool) -> None:
        call = self.calls[name]
        event = call.ended(len(call.events)) if ends else call.stage("vad", len(call.events), 1)
        for row in self.work.note([event], self.now):
            self.rows[tuple(key_of(row).values())] = row
        self.stored[name].append(event)

    def begin(self) -> None:
        if not self.jobs:
            self.jobs = [read(job, self.stored[job.session_id]) for job in self.work.take(self.now, 2, 999)]

    def finish(self) -> None:
        for job in self.jobs:
            self.summarised[job.session_id] = max(
                self.summarised[job.session_id], job.summary.rows_read if job.summary else 0
            )
        self.deletions += self.work.settle(self.jobs, self.now)
        self.jobs = []

    def fail(self) -> None:
        self.work.put_back(self.jobs, self.now)
        self.jobs = []

    def delete(self) -> None:
        for key in self.deletions:
            self.rows.pop(tuple(key.values()), None)
        self.deletions = []

    def adopt(self) -> None:
        for row in list(self.rows.values()):
            self.work.adopt(row, self.now)

    def check(self) -> None:
        rows = {row["key"] for key, row in self.rows.items() if key not in {tuple(k.values()) for k in self.deletions}}
        stale = {name for name, events in self.stored.items() if len(events) > self.summarised[name]}
        assert stale <= rows


steps = st.one_of(
    st.tuples(st.just("event"), st.sampled_from("abcd"), st.booleans()),
    st.tuples(st.sampled_from(["begin", "finish", "fail", "delete", "adopt"])),
    st.tuples(st.just("wait"), st.sampled_from([1, AFTER_END_MS, AFTER_EVENT_MS, IDLE_MS, ADOPT_AFTER_MS])),
)


@settings(max_examples=300)
@given(st.lists(steps, max_size=60))
def test_call_with_anything_unsummarised_always_has_a_row(script: list[tuple[Any, ...]]) -> None:
    simulation = Simulation()
    for name, *arguments in script:
        if name == "wait":
            simulation.now += arguments[0]
        else:
            getattr(simulation, name)(*arguments)
        simulation.check()
