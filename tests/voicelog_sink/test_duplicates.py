"""Duplicates: each event counts as one the second time, in whatever order they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicelog.events import Log
from voicelog_sink.duplicates import WINDOW, Duplicates

places = st.tuples(st.sampled_from(["a", "b"]), st.integers(1, WINDOW))


def event(stream_id: str, seq: int) -> Log:
    return Log(session_id="s", stream_id=stream_id, seq=seq, ts=1, level="INFO", message="m")


@given(st.lists(st.lists(places)))
def test_event_is_a_duplicate_when_it_was_there_before(batches: list[list[tuple[str, int]]]) -> None:
    duplicates, seen = Duplicates(), set()
    for batch in batches:
        again = 0
        for place in batch:
            again += place in seen
            seen.add(place)
        assert duplicates.note(event(*place) for place in batch) == again


def test_stream_that_begins_in_the_middle_knows_its_last_counts() -> None:
    duplicates = Duplicates()
    assert duplicates.note(event("a", seq) for seq in range(5_000, 9_000)) == 0
    assert duplicates.note(event("a", seq) for seq in range(8_500, 9_001)) == 500
    assert len(bin(duplicates._streams["a"].mask)) <= WINDOW + 2


def test_no_more_streams_are_remembered_than_it_may() -> None:
    duplicates = Duplicates(max_streams=2)
    for stream_id in "abca":
        assert duplicates.note([event(stream_id, 1)]) == 0
    assert duplicates.note([event("c", 1)]) == 1
    assert len(duplicates._streams) == 2
