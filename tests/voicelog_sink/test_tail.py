"""Which live events are shown, in which order, and how each looks in a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from tests.builders import START_US, CallBuilder, health, realistic_call, troubled_call

from voicelog.events import EVENT_TYPES, Error, ErrorInfo, Event, Log, Metric, SttResult
from voicelog.wire import encode, read
from voicelog_sink.render_event import event_line, told
from voicelog_sink.tail import MOST_BYTES, MOST_EVENTS, MOST_WAIT_S, Moment, TailFilter, is_error

EVENTS = [*realistic_call().events, *troubled_call().events, health()]


def lines(events: list[Event], width: int | None = None) -> list[str]:
    return [event_line(event, width).plain for event in events]


def some(*names: str) -> frozenset[str]:
    return frozenset(names)


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (TailFilter(), lambda e: True),
        (TailFilter(sessions=some("call-1")), lambda e: e.session_id == "call-1"),
        (TailFilter(stages=some("llm", "tool")), lambda e: e.stage in ("llm", "tool")),
        (TailFilter(services=some("voicelog-sink")), lambda e: e.service == "voicelog-sink"),
        (TailFilter(types=some("turn", "health")), lambda e: e.TYPE in ("turn", "health")),
        (TailFilter(errors=True), is_error),
        (TailFilter(sessions=some("call-2"), stages=some("tool"), errors=True),
         lambda e: e.session_id == "call-2" and e.stage == "tool" and e.status == "error"),
    ],
)  # fmt: skip
def test_filter_takes_what_meets_each_of_its_conditions(wanted: TailFilter, takes) -> None:
    expected = [event.event_id for event in EVENTS if takes(event)]
    assert [event.event_id for event in EVENTS if wanted.takes(event)] == expected
    assert [event.event_id for event in EVENTS if wanted.takes(read(encode(event).value))] == expected
    assert expected


def test_errors_are_what_failed_and_what_was_logged_loudly() -> None:
    found = [(event.TYPE, event.stage) for event in troubled_call().events if is_error(event)]
    assert found == [("stage", "tool"), ("log", None), ("error", None)]
    call = CallBuilder()
    levels = {level: is_error(call.add(Log, 0, level=level, message="m"))
              for level in ("DEBUG", "info", "Warning", "ERROR", "FATAL")}  # fmt: skip
    assert levels == {"DEBUG": False, "info": False, "Warning": True, "ERROR": True, "FATAL": True}
    assert not is_error(call.stage("llm", 0, 5, status="interrupted"))


@given(st.permutations(realistic_call().events))
def test_events_of_a_moment_are_in_order_whatever_way_they_came(events: list[Event]) -> None:
    moment = Moment()
    for event in events:
        moment.add(event, 10, 0.0)
    assert moment.take() == sorted(events, key=lambda event: (event.ts, event.seq))
    assert moment.take() == []


def test_moment_is_over_when_it_is_full_or_old_and_never_when_it_is_empty() -> None:
    (event,) = realistic_call(turns=0).events[:1]
    moment = Moment()
    assert not moment.is_over(1e9)
    moment.add(event, 10, 5.0)
    moment.add(event, 10, 5.4)
    assert not moment.is_over(5.0 + MOST_WAIT_S - 0.01)
    assert moment.is_over(5.0 + MOST_WAIT_S)
    moment.take()
    moment.add(event, MOST_BYTES, 0.0)
    assert moment.is_over(0.0)
    moment.take()
    for _ in range(MOST_EVENTS):
        assert not moment.is_over(0.0)
        moment.add(event, 1, 0.0)
    assert moment.is_over(0.0)


def test_line_says_when_which_call_which_stage_how_long_by_whom_and_what() -> None:
    call = CallBuilder("call-7")
    call.stage("stt", 1234.5, 812, provider="deepgram", model="nova-3", transcript="Hello \x1b[2J\n there")
    call.stage("tool", 2000, 2003, status="error", error=ErrorInfo(type="TimeoutError", message="2 s"))
    call.add(Metric, 2100, name="queue_depth", value=3.5, unit="1")
    call.add(Log, 2200, level="WARNING", message="slow", logger="bot")
    call.add(Error, 2300, status="error", error=ErrorInfo(type="bot.Closed", message="gone"))
    call.ended(3000, disconnect_reason="user_hangup")
    assert lines([*call.events, health()]) == [
        "10:00:01.234  call-7  stt  812 ms  deepgram/nova-3  Hello \N{REPLACEMENT CHARACTER}[2J there",
        "10:00:02.000  call-7  tool  2.0 s  -  error TimeoutError: 2 s",
        "10:00:02.100  call-7  metric  -  -  queue_depth 3.5 1",
        "10:00:02.200  call-7  log  -  -  WARNING bot slow",
        "10:00:02.300  call-7  error  -  -  error bot.Closed: gone",
        "10:00:03.000  call-7  session_ended  3.0 s  -  6 events, user_hangup",
        "10:00:00.000  ~voicelog-sink/sink-0  health  -  -  sink ok",
    ]


@pytest.mark.parametrize("width", [40, 80, 110, 200])
def test_line_on_a_terminal_is_cut_to_its_width_and_its_columns_stand_below_each_other(width: int) -> None:
    call = CallBuilder("call-" + "x" * 60)
    call.stage("stt", 0, 812, provider="p" * 40, model="m" * 40, transcript="grüß Gott 你好 " * 40)
    made = lines([*EVENTS, *call.events], width)
    assert max(map(cell_len, made)) == width
    assert {line[12:14] for line in made} == {"  "}
    if width >= 80:
        assert {line[32:34] for line in made} == {"  "}
        assert {line[49:51] for line in made} == {"  "}


def test_every_type_of_event_has_a_line() -> None:
    base = {"stream_id": "s", "seq": 1, "ts": START_US, "session_id": "c"}
    needs = {"metric": {"name": "n", "value": 1.0}, "log": {"level": "INFO", "message": "m"},
             "health": {"component": "c", "state": "ok"}}  # fmt: skip
    for kind, cls in EVENT_TYPES.items():
        event = cls(**base, **needs.get(kind, {}))
        assert event_line(event, None).plain.startswith("10:00:00.000  c  ")
        assert isinstance(told(event), str)


def test_text_of_an_interim_result_without_text_is_empty() -> None:
    assert told(SttResult(stream_id="s", seq=1, ts=START_US, session_id="c")) == ""
