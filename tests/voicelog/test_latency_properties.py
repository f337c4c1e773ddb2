"""What holds for any stages and any marks: overlapping, repeated, failed, missing, foreign, in whatever order."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from voicelog.barge_in import Speech, ledger
from voicelog.events import QUALITIES, STATUSES
from voicelog.figures import FIGURES
from voicelog.latency import MARKS, PARTS, Latency, measure
from voicelog.marks import END, START, Interval

MOMENT = st.integers(0, 120)
NAMES = ("stt", "llm", "tts", "tool", "vad")
OWNERS = {**{row.key: row.owner for row in PARTS}, "tool": "bot", "unattributed": "unknown"}
STAGES = {**{row.key: row.stage for row in PARTS}, "tool": "tool", "unattributed": None}


@st.composite
def a_stage(draw: st.DrawFn, since: int = 0, until: int = 120) -> Interval:
    """Return a stage that lies between two moments; open or closed, with a first item or none."""
    start, first, end = sorted(draw(st.tuples(*[st.integers(since, until)] * 3)))
    return Interval(
        draw(st.sampled_from(NAMES)),
        draw(st.sampled_from([start, start, start, None])),
        draw(st.sampled_from([end, end, end, None])),
        draw(st.sampled_from([first, None])),
        draw(st.sampled_from([*STATUSES, "ok"])),
        draw(st.booleans()),
    )


class Case(NamedTuple):
    """What a turn may have been told."""

    marks: dict[str, int]
    stages: list[Interval]
    foreign: set[str]
    interrupted: bool

    def measured(self) -> Latency:
        return measure(self.marks, self.stages, "vad", foreign=self.foreign, is_interrupted=self.interrupted)


ANY_MARKS = st.dictionaries(st.sampled_from([*MARKS, "own"]), MOMENT, max_size=12)
ANY = st.builds(
    Case, ANY_MARKS, st.lists(a_stage(), max_size=8), st.sets(st.sampled_from(MARKS), max_size=3), st.booleans()
)
WHOLE = st.builds(
    lambda case, start, length: case._replace(marks={**case.marks, START: start, END: start + length}),
    ANY, MOMENT, st.integers(0, 120),
)  # fmt: skip
OWN_WINDOW = WHOLE.map(lambda case: case._replace(foreign=case.foreign - {START, END}))


@given(WHOLE)
def test_the_parts_sum_exactly_to_the_latency_and_none_is_empty(case: Case) -> None:
    latency = case.measured()
    assert latency.contributions is not None
    us = [part.us for part in latency.contributions]
    assert all(type(n) is int and n > 0 for n in us)
    assert sum(us) == case.marks[END] - case.marks[START]
    assert latency.user_bot_latency_ms == sum(us) / 1000


@given(ANY)
def test_there_are_parts_exactly_where_there_is_a_latency(case: Case) -> None:
    latency = case.measured()
    is_whole = START in case.marks and END in case.marks and case.marks[START] <= case.marks[END]
    assert (latency.contributions is not None) == (latency.user_bot_latency_ms is not None) == is_whole


@given(WHOLE)
def test_every_part_is_one_of_the_table_with_its_owner_and_stage(case: Case) -> None:
    parts = case.measured().contributions or []
    assert [(p.owner, p.stage) for p in parts] == [(OWNERS[p.key], STAGES[p.key]) for p in parts]
    assert all(p.key != q.key for p, q in pairwise(parts))


@given(WHOLE)
def test_what_is_unattributed_is_its_parts(case: Case) -> None:
    latency = case.measured()
    parts = latency.contributions or []
    assert latency.unattributed_ms == sum(part.us for part in parts if part.key == "unattributed") / 1000
    assert latency.unattributed_ms <= (latency.user_bot_latency_ms or 0)


@given(WHOLE)
def test_a_tools_part_is_time_in_which_a_tool_ran(case: Case) -> None:
    at = case.marks[START]
    for part in case.measured().contributions or []:
        if part.key == "tool":
            assert all(any(ran(stage, "tool", moment) for stage in case.stages) for moment in range(at, at + part.us))
        at += part.us
    assert at == case.marks[END]


def ran(stage: Interval, name: str, at: int) -> bool:
    started = stage.start_us is not None and stage.start_us <= at
    return stage.stage == name and started and (stage.end_us is None or at < stage.end_us)


@given(WHOLE)
def test_time_without_any_stage_is_never_a_services_where_its_marks_are_missing(case: Case) -> None:
    """Only a mark at both ends, or a stage that ran, makes it a service's time."""
    at = case.marks[START]
    latency = case.measured()
    for part in latency.contributions or []:
        row = next((row for row in PARTS if row.key == part.key and row.owner == "service"), None)
        if row is not None and not (row.start in latency.marks and row.end in latency.marks):
            for moment in range(at, at + part.us):
                assert any(ran(stage, row.stage or "", moment) for stage in case.stages)
        at += part.us


@given(OWN_WINDOW, st.data())
def test_a_stage_outside_of_the_latency_changes_nothing(case: Case, data: st.DataObject) -> None:
    start, end = case.marks[START], case.marks[END]
    before, after = a_stage(start - 50, start - 1), a_stage(end + 1, end + 50)
    extra = data.draw(before.filter(lambda s: s.end_us is not None) | after.filter(lambda s: s.began_us is not None))
    assert case._replace(stages=[*case.stages, extra]).measured() == case.measured()


@given(OWN_WINDOW, st.data())
def test_how_a_stage_goes_on_after_the_bot_spoke_changes_nothing(case: Case, data: st.DataObject) -> None:
    end, later = case.marks[END], st.none() | st.integers(case.marks[END] + 1, case.marks[END] + 50)

    def otherwise(stage: Interval) -> Interval:
        if stage.end_us is not None and stage.end_us <= end:
            return stage
        is_early = stage.first_us is not None and stage.first_us <= end
        stage = stage._replace(first_us=stage.first_us if is_early else data.draw(later), end_us=data.draw(later))
        if stage.end_us is None:  # an open stage has no status yet
            return stage._replace(status="ok")
        return stage._replace(status=data.draw(st.sampled_from(STATUSES)), is_final=data.draw(st.booleans()))

    is_open = [stage._replace(status="ok") if stage.end_us is None else stage for stage in case.stages]
    stages = [stage for stage in is_open if stage.start_us is not None]
    assert case._replace(stages=[otherwise(stage) for stage in stages]).measured() == (
        case._replace(stages=stages).measured()
    )


@given(ANY, st.randoms(use_true_random=False))
def test_the_order_of_stages_and_marks_changes_nothing(case: Case, random: Random) -> None:
    marks = dict(random.sample(sorted(case.marks.items()), len(case.marks)))
    stages = random.sample(case.stages, len(case.stages))
    assert case._replace(marks=marks, stages=stages).measured() == case.measured()


@given(ANY)
def test_a_figure_is_the_time_between_its_marks_or_has_no_value(case: Case) -> None:
    latency = case.measured()
    for name, figure in latency.figures.items():
        assert figure.value_ms is None or figure.value_ms >= 0
        assert (figure.value_ms is None) == (figure.quality in ("no_anchor", "clock_suspect"))
        assert figure.quality in QUALITIES
        row = FIGURES[name]
        if row.start in latency.marks and row.end in latency.marks and figure.value_ms is not None:
            assert figure.value_ms == (latency.marks[row.end] - latency.marks[row.start]) / 1000


@given(ANY)
def test_a_figure_is_there_wherever_both_its_marks_are(case: Case) -> None:
    latency = case.measured()
    for name, row in FIGURES.items():
        if row.start in latency.marks and row.end in latency.marks:
            assert name in latency.figures


@given(ANY)
def test_no_figure_is_ok_that_is_not(case: Case) -> None:
    latency = case.measured()
    marks = latency.marks
    for name, figure in latency.figures.items():
        row = FIGURES[name]
        if row.start in case.foreign or row.end in case.foreign:
            assert figure.quality != "ok"
        if row.start == START and START not in marks:
            assert figure.quality == "no_anchor"
        if row.start in marks and row.end in marks and marks.get("interrupted_at", 1000) <= marks[row.end]:
            assert figure.quality in ("interrupted", "clock_suspect")


@given(ANY)
@example(Case({START: 5}, [], set(), False))
@example(Case({END: 5}, [], set(), True))
def test_the_whole_is_ok_only_where_it_was_measured_by_one_clock_and_not_interrupted(case: Case) -> None:
    quality, marks = case.measured().quality, case.marks
    is_ok = (
        START in marks and END in marks and marks[START] <= marks[END] and not {START, END} & case.foreign
        and marks.get("interrupted_at", 1000) > marks[END]
    )  # fmt: skip
    assert (quality == "ok") == is_ok
    assert quality in QUALITIES


AMOUNTS = st.builds(
    Speech, st.none() | st.integers(0, 500), st.none() | st.floats(0, 1e5), st.none() | st.floats(0, 10)
)


@given(ANY_MARKS, st.lists(AMOUNTS, max_size=4), AMOUNTS)
def test_a_barge_in_never_lasts_less_than_no_time_nor_wastes_more_than_was_spent(
    marks: dict[str, int], synthesised: list[Speech], played: Speech
) -> None:
    found = ledger(marks, synthesised, played)
    assert (found is None) == ("interrupted_at" not in marks and not stopped_while_the_user_spoke(marks))
    if found is not None:
        assert found.stop_ms is None or found.stop_ms >= 0
        assert (found.stop_ms is None) == (found.stop_us is None)
        spent = sum(speech.cost_usd or 0 for speech in synthesised)
        assert found.wasted_usd is None or 0 <= found.wasted_usd <= spent * 1.000001


def stopped_while_the_user_spoke(marks: dict[str, int]) -> bool:
    if not {"user_speech_start", END, "audio_stopped"} <= marks.keys():
        return False
    began = marks["user_speech_start"]
    return marks[END] <= began <= min(marks["audio_stopped"], marks.get("playback_end", began))
