"""A dead letter read again is what it was made from: the record, the reason, and how often it came back."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from voicelog.errors import REASONS
from voicelog_sink.letters import (
    ADDED,
    MAX_HEADER_CHARS,
    REPLAYED,
    headers_of,
    headers_to_send,
    letter_of,
    original_of,
    session_of,
)
from voicelog_sink.pipeline import DeadLetter, Record

names = st.one_of(st.sampled_from([*sorted(ADDED), "traceparent"]), st.text(max_size=8).filter(lambda n: n != REPLAYED))
values = st.one_of(st.none(), st.binary(max_size=8))
records = st.builds(
    Record, st.just("eu-stt-results"), st.integers(0, 99), st.integers(0, 2**62), values, values,
    st.lists(st.tuples(names, values), max_size=6), st.integers(1, 2**40),
)  # fmt: skip
text = st.text(st.characters(codec="utf-8"), max_size=20)


def among_dead_letters(dead: DeadLetter) -> Record:
    """Return the message that the sink writes, as it is read again."""
    added = [(name, value if value is None or isinstance(value, bytes) else value.encode())
             for name, value in headers_of(dead, "1.2.3")]  # fmt: skip
    return dead.record._replace(topic="voicelog-dlq", partition=2, offset=17, headers=[*dead.record.headers, *added])


@given(records, st.sampled_from(sorted(REASONS)), text, text, text)
def test_letter_gives_the_record_back_and_says_why(
    record: Record, reason: str, error: str, message: str, stack: str
) -> None:
    letter = letter_of(among_dead_letters(DeadLetter(record, reason, "decode", error, message, stack)))
    assert original_of(letter) == record
    assert (letter.place, letter.reason, letter.stage, letter.replays) == ("2:17", reason, "decode", 0)
    assert (letter.error or "", letter.message or "", letter.stack or "") == (error, message, stack)


@given(records, st.integers(1, 5))
def test_message_that_comes_back_says_how_often_and_keeps_its_own_headers(record: Record, times: int) -> None:
    sent = record
    for number in range(1, times + 1):
        letter = letter_of(among_dead_letters(DeadLetter(sent, "not_json", "decode", "E", "m")))
        headers = headers_to_send(letter)
        assert headers == [*record.headers, (REPLAYED, str(number).encode())]
        sent = record._replace(headers=headers)
    assert letter_of(among_dead_letters(DeadLetter(sent, "not_json", "decode", "E", "m"))).replays == times


@given(st.lists(st.tuples(st.one_of(st.just(REPLAYED), names), values), max_size=6), values)
def test_whatever_others_write_to_the_topic_is_read(headers: list[tuple[str, bytes | None]], value: bytes) -> None:
    letter = letter_of(Record("voicelog-dlq", 0, 0, value, value, headers, None))
    assert letter.replays >= 0
    session_of(letter)


def test_letter_without_headers_says_nothing() -> None:
    letter = letter_of(Record("voicelog-dlq", 0, 5, b"k", b"v", (), 7))
    assert (letter.topic, letter.topic_partition, letter.reason, letter.headers) == (None, None, None, [])


def test_session_is_what_the_json_names_and_else_the_key() -> None:
    def session(key: bytes | None, value: bytes | None) -> str | None:
        return session_of(letter_of(Record("voicelog-dlq", 0, 0, key, value, (), None)))

    assert session(b"call-1", json.dumps({"session_id": "call-2", "seq": "x"}).encode()) == "call-2"
    assert session(b"call-1", b'{"session_id": 7}') == "call-1"
    assert session(b"call-1", b"\xff") == "call-1"
    assert session(b"~front-desk/bot-1", b"{}") is None
    assert session(b"\xff", None) is None
    assert session(None, b"[" * 100_000) is None


def test_stack_trace_is_kept_to_its_last_lines() -> None:
    dead = DeadLetter(
        Record("t", 0, 0, None, None, (), 1), "sink_failed", "decode", "E", "x" * 9_000, "first" + "y" * 9_000 + "last"
    )
    headers = dict(headers_of(dead, "1"))
    stack = headers["__connect.errors.exception.stacktrace"]
    assert isinstance(stack, bytes)
    assert stack.endswith(b"last")
    assert len(stack) == MAX_HEADER_CHARS
    assert headers["__connect.errors.exception.message"] == b"x" * MAX_HEADER_CHARS
