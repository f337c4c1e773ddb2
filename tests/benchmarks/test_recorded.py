"""The benchmark of reading: its calls are the recorded ones with other lengths, and as consistent as those."""

from __future__ import annotations

from itertools import chain

from benchmarks.recorded import RARE_MODEL, Template, calls, templates

from voicelog.events import Event, Turn
from voicelog_sink.demo import sent_us
from voicelog_sink.summary import Summary, summarise
from voicelog_sink.tally import COMPLETE

BEGIN_US, DAY_US = 1_795_341_600_000_000, 86_400_000_000


def made(events: int = 1_000) -> list[list[Event]]:
    return list(calls(events, BEGIN_US, BEGIN_US + DAY_US))


def summary_of(call: list[Event]) -> Summary:
    summary = summarise(call)
    assert summary is not None
    return summary


def test_contributions_of_every_turn_sum_to_its_latency_and_lie_between_its_marks() -> None:
    turns = [event for event in chain(*made()) if isinstance(event, Turn)]
    assert len(turns) > 100
    for turn in turns:
        assert turn.contributions
        assert turn.marks
        assert turn.figures
        assert turn.user_bot_latency_ms is not None
        total_us = sum(part.us for part in turn.contributions)
        assert total_us == turn.marks["playback_start"] - turn.marks["user_speech_end"]
        assert total_us == round(turn.user_bot_latency_ms * 1000)
        assert turn.figures["user_bot_latency_ms"].value_ms == turn.user_bot_latency_ms


def test_moments_of_a_call_keep_their_order() -> None:
    def order(call: list[Event] | tuple[Event, ...]) -> list[int]:
        return sorted(range(len(call)), key=lambda at: (call[at].ts, at))

    recorded = {tuple(order(list(template.events))) for template in templates()}
    assert {tuple(order(call)) for call in made()} <= recorded
    for call in made(200):
        first = call[0].ts
        assert all(first <= event.ts <= sent_us(event) <= sent_us(call[-1]) + 1 for event in call)


def test_every_call_is_complete_under_its_own_ids_and_of_other_lengths() -> None:
    found = made()
    summaries = [summary_of(call) for call in found]
    assert {summary.completeness for summary in summaries} == {COMPLETE}
    assert len({summary.session_id for summary in summaries}) == len(found)
    assert len({event.event_id for event in chain(*found)}) == sum(map(len, found))
    assert len({summary.user_bot_latency_max_ms for summary in summaries}) == len(found)
    assert {summary.variant for summary in summaries} == {"a", "b"}


def test_calls_are_spread_over_the_time_and_are_the_same_each_time() -> None:
    starts = [call[0].ts for call in made()]
    assert BEGIN_US <= min(starts) < BEGIN_US + DAY_US // 20
    assert BEGIN_US + DAY_US * 19 // 20 < max(starts) <= BEGIN_US + DAY_US
    assert made(100) == made(100)


def test_one_call_in_a_thousand_has_a_model_that_the_others_have_not() -> None:
    found = made(20_000)
    rare = [number for number, call in enumerate(found) if RARE_MODEL in summary_of(call).models]
    assert rare == list(range(500, len(found), 1_000))


def test_call_that_is_stretched_by_nothing_is_the_recorded_one() -> None:
    class Same:
        def lognormvariate(self, _mean: float, _spread: float) -> float:
            return 1.0

    template = templates()[0]
    knots = list(Template(template.events)._knots(Same(), 1.0))  # type: ignore[arg-type]
    assert [factor for _, factor in knots] == [1.0] * len(knots)
    assert [at for at, _ in knots] == sorted(at for at, _ in knots)
