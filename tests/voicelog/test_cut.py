"""Cutting: what is too large loses the middle of its longest texts, never its ids, names and figures."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies import events

import voicelog
from voicelog import wire
from voicelog.cut import FLOOR_BYTES, limit_bytes, shorten
from voicelog.events import Attempt, ErrorInfo, Event, LlmRequest, Log, StageEvent, SttResult
from voicelog.testing import Capture, capture

TS = 1_767_225_600_000_000
NAMES: dict[str, Any] = {"stream_id": "s", "seq": 1, "ts": TS, "session_id": "call"}


def encoded(event: Event) -> bytes:
    return wire.encode(event).value


def cut_to(event: Event, limit: int) -> Any:
    """Return the event as it is after cutting; checks that it fits."""
    value = shorten(encoded(event), limit)
    assert value is not None
    assert len(value) <= limit
    return wire.decode(value)


def test_a_long_text_loses_its_middle_and_the_event_says_how_much() -> None:
    text = "".join(f"word{n} " for n in range(100_000))
    event = cut_to(SttResult(**NAMES, transcript=text, confidence=0.9, language="en"), 4096)
    head, mark, tail = event.transcript.partition("… [")
    chars, _, tail = tail.partition(" characters cut] …")
    assert mark
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) > len(tail) > 500
    assert int(chars) == len(text) - len(head) - len(tail)
    assert event == SttResult(
        **NAMES, transcript=event.transcript, confidence=0.9, language="en", cut={"transcript": len(text)}
    )
    assert len(encoded(event)) > 4096 * 0.9  # no more is cut than must be


def test_the_longest_texts_are_cut_and_short_ones_stay_whole() -> None:
    long, longer, short = "a" * 30_000, "b" * 60_000, "c" * 1000
    event = cut_to(LlmRequest(**NAMES, prompt=longer, response=long, attributes={"note": short, "n": 1}), 20_000)
    assert event.attributes == {"note": short, "n": 1}
    assert event.cut == {"prompt": 60_000, "response": 30_000}
    assert abs(len(event.prompt) - len(event.response)) < 50


def test_every_text_of_an_event_can_be_cut_and_is_named_by_its_path() -> None:
    big = "é\n" * 9_000
    event = cut_to(
        LlmRequest(
            **NAMES, prompt=big, response=big, parameters={"stop": [big, 1]}, attributes={"a": {"b": big}},
            error=ErrorInfo(type="ValueError", message=big, stack=big),
            attempts=[Attempt(provider="p", error=ErrorInfo(type="E", message=big))], extra={"newer": big},
        ),
        6000,
    )  # fmt: skip
    assert event.cut == dict.fromkeys(
        ["prompt", "response", "parameters.stop.0", "attributes.a.b", "error.message", "error.stack",
         "attempts.0.error.message", "newer"], len(big),
    )  # fmt: skip
    assert (event.error.type, event.attempts[0].provider, event.parameters["stop"][1]) == ("ValueError", "p", 1)
    assert all("characters cut" in text for text in (event.prompt, event.extra["newer"], event.attributes["a"]["b"]))


def test_a_logs_message_is_cut_though_it_is_needed() -> None:
    event = cut_to(Log(**NAMES, level="INFO", message="m" * 50_000), FLOOR_BYTES)
    assert "characters cut" in event.message
    assert event.cut == {"message": 50_000}


def test_cut_again_it_still_says_what_it_had_at_first() -> None:
    text = "".join(map(str, range(50_000)))
    once = cut_to(SttResult(**NAMES, transcript=text), 50_000)
    twice = cut_to(once, 25_000)
    assert twice.cut == {"transcript": len(text)}
    assert twice.transcript.count("characters cut") == 1
    head, _, rest = twice.transcript.partition("… [")
    chars, _, tail = rest.partition(" characters cut] …")
    assert int(chars) + len(head) + len(tail) == len(text)


def test_thousands_of_attributes_are_left_out_until_it_fits_and_named() -> None:
    given = {f"attribute_{n}": n for n in range(20_000)}
    event = cut_to(StageEvent(**NAMES, stage="tool", attributes=given), 10_000)
    assert len(event.attributes) > 100
    assert event.attributes == {name: given[name] for name in event.attributes}
    assert event.cut["attributes"] > 200_000  # the characters of those that are not named one by one
    assert "attributes.attribute_19999" not in event.cut
    assert 20 < len(event.cut) <= 51


def test_an_attribute_that_alone_is_too_much_goes_and_the_others_stay() -> None:
    event = cut_to(StageEvent(**NAMES, attributes={"small": 1, "big": list(range(10_000)), "last": "x"}), 4096)
    assert event.attributes == {"small": 1, "last": "x"}
    assert event.cut == {"attributes.big": len(msgspec.json.encode({"big": list(range(10_000))}))}


def test_figures_go_only_when_nothing_else_is_left_to_go() -> None:
    error = ErrorInfo(type="E", message="m")
    event = cut_to(
        StageEvent(
            **NAMES, model="m", error=error, attributes={"a": 1}, usage={f"tokens_{n}": 1.0 for n in range(9999)}
        ),
        4096,
    )
    assert event == StageEvent(**NAMES, model="m", error=error, attributes={}, cut=event.cut)
    assert event.cut.keys() == {"attributes.a", "usage"}


@pytest.mark.parametrize("value", [b"", b"no json", b"[1]", b'{"type":"unheard"}', b"[" * 5000, b"\xff"])
def test_what_is_no_event_is_not_cut(value: bytes) -> None:
    assert shorten(value, 4096) is None


def test_an_event_whose_names_alone_are_too_large_is_not_cut() -> None:
    assert shorten(encoded(StageEvent(**{**NAMES, "session_id": "x" * 5000})), 4096) is None


def test_an_event_that_fits_is_left_as_it_is() -> None:
    value = encoded(StageEvent(**NAMES, attributes={"a": "x" * 500}))
    assert shorten(value, len(value)) is value


def test_what_the_library_emits_fits_the_sinks_limit(captured: Capture) -> None:
    with capture(max_message_bytes=100_000) as small, voicelog.session("call"):
        voicelog.publish_llm_request("r" * 5_000_000, prompt="p" * 200_000, input_tokens=7)
        counted = voicelog.stats()["cut"]
    (event,) = small.of("llm_request")
    assert len(small.messages[1].value) < 100_000 - 8_000
    assert event.response.startswith("r" * 20_000 + "r")
    assert event.cut["response"] == 5_000_000
    assert counted == 1
    with voicelog.session("call"):
        voicelog.publish_llm_request("r" * 500_000)
    assert captured.of("llm_request")[0].cut is None


def test_there_is_room_for_key_and_headers() -> None:
    assert limit_bytes(1024 * 1024, 8 * 1024 * 1024) == 1024 * 1024 - 8192
    assert limit_bytes(100 * 1024 * 1024, 8 * 1024 * 1024) == 8 * 1024 * 1024 - 8192
    assert limit_bytes(1, 8 * 1024 * 1024) == FLOOR_BYTES


TEXTS = ("transcript", "prompt", "response", "text", "message", "attributes", "parameters", "error", "attempts", "cut")
BIG = st.builds(lambda piece, times: piece * times, st.text(st.characters(exclude_categories=["Cs"]), min_size=1,
                max_size=9), st.integers(1, 30_000))  # fmt: skip
VALUES = st.recursive(
    BIG | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(BIG | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def enlarged(event: Event, data: st.DataObject) -> Event:
    """Return the event with texts of any size wherever an event holds a text."""
    names = {a.name for a in attrs.fields(type(event))}
    changes: dict[str, Any] = {"attributes": data.draw(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))}
    for name in names & {"transcript", "prompt", "response", "text", "message"}:
        changes[name] = data.draw(BIG)
    if data.draw(st.booleans()):
        changes["error"] = ErrorInfo(type="E", message=data.draw(BIG), stack=data.draw(BIG))
    if data.draw(st.booleans()):
        changes["attributes"] |= {f"n{n}": n for n in range(data.draw(st.integers(0, 5000)))}
    return attrs.evolve(event, **changes)


@settings(max_examples=40)
@given(st.data(), st.integers(16_000, 100_000))
def test_any_event_of_any_size_fits_can_be_decoded_and_keeps_all_that_is_no_text(
    data: st.DataObject, limit: int
) -> None:
    event = enlarged(data.draw(events()), data)
    found = cut_to(event, limit)
    for field in attrs.fields(type(event)):
        if field.name not in (*TEXTS, "extra"):
            assert getattr(found, field.name) == getattr(wire.decode(encoded(event)), field.name), field.name
    if len(encoded(event)) > limit:
        assert found.cut
    assert (found.error is None) == (event.error is None)


@settings(max_examples=30)
@given(st.data())
def test_halved_again_and_again_it_stays_an_event_to_the_end(data: st.DataObject) -> None:
    event = enlarged(data.draw(events()), data)
    value: bytes | None = encoded(event)
    while value is not None and len(value) > FLOOR_BYTES:
        limit = max(FLOOR_BYTES, len(value) // 2)
        value = shorten(value, limit)
        if value is not None:
            assert len(value) <= limit
            assert wire.decode(value).event_id == event.event_id
