"""The sink's benchmark: its traffic is that of calls, its figures are computed as they say, and it runs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from benchmarks.places import ROWS_PER_EVENT, Place
from benchmarks.rounds import Round, backlog
from benchmarks.sink import arguments, verdicts
from benchmarks.sink_process import quantile_ms
from benchmarks.traffic import call, events, sent

from voicelog.events import EVENT_TYPES
from voicelog.wire import decode
from voicelog_sink.rows import rows_of

START_US = 1_795_341_600_000_000


def test_messages_are_those_of_the_events() -> None:
    for event, message in sent(200, 10, START_US, "t"):
        assert decode(message.value) == event
        assert message.key.decode() == event.key


def test_each_call_sends_its_events_in_order_and_all_of_them() -> None:
    by_call: dict[str | None, list[int]] = {}
    for event in islice(events(3, START_US, "t"), 600):
        by_call.setdefault(event.session_id, []).append(event.seq)
    for seqs in by_call.values():
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    whole = [e.session_id for e in call("t-000001", START_US)]
    assert len(whole) == call("t-000001", START_US)[-1].seq


def test_as_many_calls_as_asked_for_take_turns() -> None:
    first = [event.session_id for event in islice(events(50, START_US, "t"), 50)]
    assert len(set(first)) == 50


def test_traffic_has_what_calls_have() -> None:
    kinds = {event.TYPE for event in islice(events(20, START_US, "t"), 1_500)}
    assert set(EVENT_TYPES) - kinds == {"error", "stage_started"}


def test_bare_driver_groups_over_as_many_rows_as_the_sink_has_at_once() -> None:
    all_sent = sent(3_000, 50, START_US, "t")
    rows = sum(len(rows_of(event)) for event, _ in all_sent)
    assert rows / len(all_sent) == pytest.approx(ROWS_PER_EVENT, abs=0.4)


def test_same_run_is_the_same_traffic_and_another_run_shares_no_call() -> None:
    assert sent(50, 5, START_US, "t") == sent(50, 5, START_US, "t")
    one, other = ({s.event.session_id for s in sent(50, 5, START_US, run)} for run in "ab")
    assert not one & other


@pytest.mark.parametrize(
    ("share", "expected_ms"),
    [(0.5, 10.0), (0.25, 7.5), (0.75, 15.0), (1.0, 20.0)],
)
def test_quantile_is_interpolated_between_the_bounds_of_what_was_added(share: float, expected_ms: float) -> None:
    before = {0.005: 3.0, 0.01: 3.0, 0.02: 4.0, float("inf"): 4.0}
    after = {0.005: 3.0, 0.01: 13.0, 0.02: 24.0, float("inf"): 24.0}
    assert quantile_ms(before, after, share) == pytest.approx(expected_ms)


def test_quantile_of_nothing_is_nothing() -> None:
    assert quantile_ms({}, {0.005: 0.0, float("inf"): 0.0}, 0.5) == 0.0


def test_verdicts_say_which_limit_is_not_held() -> None:
    figures = Round(9_000, 30_000, 10_000, 0.59, 60.0, 5.0, 9.0)
    assert [line.rpartition(": ")[2] for line in verdicts("cql", figures, 151.0)] == ["NOT held", "held", "NOT held"]
    assert verdicts("sqlite", figures, 90.0)[0] == "9,000.00 events/s, 40,000 wanted: NOT held"


def test_backlog_is_stored_by_the_daemon_and_by_the_bare_driver(brokers: str, tmp_path: Path) -> None:
    assert arguments([]).n == 60_000
    with Place.made("sqlite", brokers, "", tmp_path) as place, place.raw() as raw, place.sink() as process:
        all_sent = sent(300, 20, START_US, "t")
        found = backlog(place, process, raw, all_sent)
        written = [row for event, _ in all_sent for row in rows_of(event)]
        assert found.events_per_s > 0
        assert process.look().stored == 300
        assert process.peak_rss_mb() > 10
        assert all(figure > 0 for figure in (found.raw_events_per_s, found.ratio, found.rows_per_s))
        with place.reader() as store:
            keys = {(e.session_id, e.seq) for e, _ in all_sent if e.session_id}
            stored = {
                (row["session_id"], row["seq"])
                for session_id, _ in keys
                for row in store.select("voice_interactions", [{"session_id": session_id}])
            }
        assert stored == keys
        assert len(written) > len(all_sent)
