"""The watermark: it never passes a record that is not seen through, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from voicelog_sink.pipeline import Record
from voicelog_sink.watermark import Offsets, Place, Ticket, Watermark, next_offsets

PLACES: list[Place] = [("a", 0), ("a", 1), ("b", 0)]


def record(place: Place, offset: int) -> Record:
    return Record(place[0], place[1], offset, None, None, (), None)


def records_of(place: Place, offsets: Iterable[int]) -> list[Record]:
    return [record(place, offset) for offset in offsets]


places = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.integers(0, 1000))


@given(st.lists(places))
def test_next_offset_is_one_after_the_last_of_each_partition(given: list[tuple[str, int, int]]) -> None:
    offsets = next_offsets(Record(t, p, o, None, None, (), None) for t, p, o in given)
    assert offsets == {(t, p): 1 + max(o for t2, p2, o in given if (t2, p2) == (t, p)) for t, p, _ in given}


def test_batch_that_ends_first_releases_nothing_before_the_one_ahead_of_it() -> None:
    mark, place = Watermark(), ("a", 0)
    mark.assign([place])
    first, second = (mark.track(records_of(place, range(n, n + 5))) for n in (0, 5))
    assert mark.finish(second) == {}
    assert mark.is_waiting()
    assert mark.finish(first) == {place: 10}
    assert not mark.is_waiting()


def test_batch_that_ends_after_its_partition_went_and_came_back_releases_nothing() -> None:
    mark, place = Watermark(), ("a", 0)
    mark.assign([place])
    late = mark.track(records_of(place, range(5)))
    mark.forget([place])
    assert (mark.finish(late), mark.is_waiting()) == ({}, False)
    mark.assign([place])
    again = mark.track(records_of(place, range(3)))
    assert mark.finish(late) == {}
    assert mark.finish(again) == {place: 3}


def test_partition_that_is_assigned_anew_without_having_gone_begins_anew() -> None:
    mark, place = Watermark(), ("a", 0)
    mark.assign([place])
    mark.track(records_of(place, range(5)))
    mark.assign([place])
    assert mark.finish(mark.track(records_of(place, range(2)))) == {place: 2}


def test_only_the_partitions_that_are_asked_for_are_waited_for() -> None:
    mark, mine, other = Watermark(), ("a", 0), ("a", 1)
    mark.assign([mine, other])
    mark.track(records_of(mine, [1]))
    assert mark.is_waiting([mine])
    assert not mark.is_waiting([other])


@attrs.define(eq=False)
class Flight:
    """A batch on its way, and the records that are in it."""

    ticket: Ticket
    records: list[Record]


class Group(RuleBasedStateMachine):
    """A consumer group seen from the broker: logs with gaps, one member that takes, ends, loses and gets back."""

    @initialize()
    def begin(self) -> None:
        self.mark = Watermark()
        self.log: dict[Place, list[int]] = {place: [] for place in PLACES}
        self.committed: Offsets = dict.fromkeys(PLACES, 0)
        self.position: Offsets = {}
        self.stored: set[tuple[Place, int]] = set()
        self.flights: list[Flight] = []

    @rule(place=st.sampled_from(PLACES), steps=st.lists(st.integers(1, 3), min_size=1, max_size=5))
    def produce(self, place: Place, steps: list[int]) -> None:
        for step in steps:  # more than 1: what compaction or a transaction's markers leave out
            last = self.log[place][-1] if self.log[place] else -1
            self.log[place].append(last + step)

    @rule(place=st.sampled_from(PLACES))
    def assign(self, place: Place) -> None:
        if place not in self.position:
            self.mark.assign([place])
            self.position[place] = self.committed[place]

    @rule(place=st.sampled_from(PLACES))
    def revoke_or_lose(self, place: Place) -> None:
        self.mark.forget([place])
        self.position.pop(place, None)

    @rule(count=st.integers(1, 4))
    def poll(self, count: int) -> None:
        records = []
        for place, position in self.position.items():
            offsets = [offset for offset in self.log[place] if offset >= position][:count]
            if offsets:
                records += records_of(place, offsets)
                self.position[place] = offsets[-1] + 1
        if records:
            self.flights.append(Flight(self.mark.track(records), records))

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def see_through(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from(self.flights))
        self.flights.remove(flight)
        self.stored |= {((r.topic, r.partition), r.offset) for r in flight.records}
        for place, offset in self.mark.finish(flight.ticket).items():
            assert place in self.position, "released what another member owns"
            assert offset > self.committed[place], "moved backwards"
            self.committed[place] = offset

    @rule()
    def die(self) -> None:
        self.mark, self.position, self.flights = Watermark(), {}, []

    @invariant()
    def no_hole_is_passed(self) -> None:
        for place, offset in self.committed.items():
            passed = {(place, o) for o in self.log[place] if o < offset}
            assert passed <= self.stored, "committed what is not stored"

    @invariant()
    def all_that_is_seen_through_in_order_is_released(self) -> None:
        waiting = {(r.topic, r.partition) for f in self.flights for r in f.records}
        for place in self.position.keys() - waiting:
            assert self.committed[place] == self.position[place] or not self.mark.is_waiting([place])


Group.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWatermarkNeverPassesAHole = Group.TestCase
