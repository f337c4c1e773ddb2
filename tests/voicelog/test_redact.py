"""Redaction: what is private does not survive, in whatever text and wherever in an event; the rest stays as it is."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.voicelog.kafka import NOBODY
from tests.voicelog.strategies import ANYTHING, JSON

import voicelog
from voicelog import patterns, redact
from voicelog.client import state
from voicelog.counters import Counters
from voicelog.events import ErrorInfo
from voicelog.redact import Redactor, build, card, email, named, phone

ALL = ("phone", "email", "card", "phone:US")
CARD = "4111111111111111"
WRITABLE = st.characters(exclude_categories=["Cs"])
AROUND = st.text(WRITABLE, max_size=12) | st.text("0123456789 -.,+@x[]", max_size=12)
PIECES = st.sampled_from([
    CARD, "4111 1111", "1111", "+1415555", "+14155550123", "415-555-0123", "0123", "12", "bob", "@", "x.de", ".", " ",
    "-", "+", "(", ")", "[card]", "[phone]", "[email]", "a@b.cd", '"', "\\", "{", "[", "/", ",", "٣",
])  # fmt: skip


def redactor(*given: Any, counters: Counters | None = None) -> Redactor:
    made = build(given or ALL, counters or Counters())
    assert made is not None
    return made


def luhn(digits: str) -> str:
    """Return the check digit, computed as ISO/IEC 7812 words it."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * 2 if place % 2 == 0 else int(digit)
        total += doubled // 10 + doubled % 10
    return str(-total % 10)


@st.composite
def cards(draw: st.DrawFn) -> str:
    """Return a card number in groups, as people write and speech recognisers hear it."""
    body = draw(st.text("0123456789", min_size=11, max_size=17).map(lambda t: draw(st.sampled_from("23456789")) + t))
    digits, parts = body + luhn(body), []
    while digits:
        size = draw(st.integers(1, 19))
        parts.append(digits[:size])
        digits = digits[size:]
    return draw(st.sampled_from([" ", "-", " - ", ". ", ", ", "\u00a0", "\u2011"])).join(parts)


def digits_of(text: str) -> str:
    return "".join(re.findall(r"\d", text))


@given(before=AROUND, number=cards(), after=AROUND)
@example(before="12 ", number="4111 1111 1111 1111", after=" 12")
@example(before="{", number=CARD, after="}")
def test_no_card_number_survives_whatever_is_around_it(before: str, number: str, after: str) -> None:
    assume(not before[-1:].isdigit() and not after[:1].isdigit())  # it would be another, longer number
    text = before + number + after
    for redacted in (card()(text), redactor().text(text)):
        assert digits_of(number) not in digits_of(redacted)


@given(before=AROUND, address=st.emails(), after=AROUND)
@example(before="\\n", address="bob@example.com", after="")
@example(before="a@b.co!", address="c@d.com", after="")
@example(before='"', address="bob@x.com", after='"@nodot')
def test_no_email_address_survives_whatever_is_around_it(before: str, address: str, after: str) -> None:
    for redacted in (email()(before + address + after), redactor().text(before + address + after)):
        assert address not in redacted


@given(before=AROUND, number=st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True), after=AROUND)
@example(before="x", number="+14155550123", after="y")
@example(before="+", number="+14155550123", after="+14155550123")
def test_no_international_number_survives_whatever_is_around_it(before: str, number: str, after: str) -> None:
    for redacted in (phone()(before + number + after), redactor().text(before + number + after)):
        assert number not in redacted


@given(text=st.text(st.characters(exclude_categories=["Nd"], exclude_characters="@\uff20")))
@example(text="C++ [card] <a> {} \\ \n")
def test_text_without_digits_and_at_signs_is_unchanged(text: str) -> None:
    assert redactor().text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "table for 2 at 19:30 on 2026-11-25, room 1204", "it costs 1,250.00 + 19% VAT", "@bob said hi", "a@b", "4 @ 5",
        "took 1767225600000 ms", "order 1234567890123456", "192.168.10.12 port 8080", "v1.2.3+45", "3.14159265",
        "+1 for that", "2026-01-01T00:00:00+00:00", "[1, 2.50, 3]", '{"a":  1.0}', "C++11 +12",
    ],
)  # fmt: skip
def test_ordinary_figures_are_unchanged(text: str) -> None:
    assert redactor("phone", "email", "card").text(text) == text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mail bob.o'neil+x@mail.example.co.uk, please", "mail [email], please"),
        ('"john doe"@example.com or müller@straße.de.', "[email] or [email]."),
        ("<bob@example.com>;eve@[192.168.0.1]", "<[email]>;[email]"),
        ("my card is 4111 1111 1111 1111 12/27", "my card is [card] 12/27"),
        ("3782-822463-10005 and 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[card] and [card]"),
        ("call +1 415 555 0123 or +44 (0)20 7946 0958.", "call [phone] or [phone]."),
        ("call +14155550123 100 times", "call [phone] 100 times"),
        ("not assigned: +1 (555) 010-0000", "not assigned: [phone]"),
        ("4111111111111111@example.com +4111111111111111", "[email] +[card]"),
    ],
)  # fmt: skip
def test_what_is_private_is_replaced_by_what_it_was(text: str, redacted: str) -> None:
    assert redactor("phone", "email", "card").text(text) == redacted


def test_a_region_finds_numbers_as_they_are_dialled_there() -> None:
    text = "ring 415-555-2671 or (212) 736-5000, not 555"
    assert phone()(text) == text
    assert phone("US")(text) == "ring [phone] or [phone], not 555"
    assert named("phone:DE")("Ruf 030 901820 an") == "Ruf [phone] an"


@given(pieces=st.lists(PIECES, max_size=12))
@example(pieces=["12.14155552671/4155552671(-"])  # the second number gone, the first is seen
def test_running_twice_changes_nothing(pieces: list[str]) -> None:
    text = "".join(pieces)
    for run in (redactor().text, email(), card(), phone(), phone("US")):
        assert run(run(text)) == run(text)


def unbounded(parsed: Any) -> list[Any]:
    """Return the repeats of a parsed pattern that have no limit and may give back what they took."""
    found = []
    for op, argument in parsed:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and argument[1] is sre.MAXREPEAT:
            found.append(op)
        for part in argument if isinstance(argument, (list, tuple)) else [argument]:
            for inner in part if isinstance(part, list) else [part]:
                if isinstance(inner, _parser.SubPattern):
                    found += unbounded(inner)
    return found


PATTERNS = {
    name: value
    for module in (patterns, redact)
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
}


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_tries_the_same_characters_over_and_over(name: str) -> None:
    assert not unbounded(_parser.parse(PATTERNS[name].pattern))


def test_the_check_for_patterns_finds_one_that_does() -> None:
    assert unbounded(_parser.parse(r"(?:(?:a|b+)c|d)"))
    assert not unbounded(_parser.parse(r"(?:(?:a|b++)c{1,3}|d)"))


@pytest.mark.parametrize(
    "unit", ["a", "a.", "@", "a@", '"', "1 ", "1-", "+", "+1(", "4111 ", "[", '{"a":', "\\", "2012-01-02 08 "]
)
def test_long_hostile_texts_come_to_an_end(unit: str) -> None:
    redactor("email", "card").text(unit * 20_000)
    redactor().text(unit * 400)


def test_phonenumbers_is_asked_about_a_bounded_part_of_a_text_and_the_rest_is_replaced_unasked() -> None:
    asked: list[str] = []

    def find(piece: str) -> list[tuple[int, int]]:
        asked.append(piece)
        return []

    text = "call 415-555-2671 or not, " * 5000
    redacted = patterns.replace_phones(text, find, national=True)
    assert 0 < sum(map(len, asked)) < patterns.MAX_ASKED * 5  # pieces overlap by what is around their digits
    assert redacted.count("415-555-2671") == len(asked)
    assert phone("US")(text) == "call [phone] or not, " * 5000


def test_a_json_text_is_redacted_value_by_value_and_stays_json() -> None:
    messages = [{"role": "user", "content": f'hi\nbob@example.com "{CARD}"', "n": int(CARD), "f": 1.5}]
    inner = json.dumps({"phone": "+14155550123", "sum": 3})
    redacted = redactor().text(json.dumps([*messages, {"arguments": inner, "bob@example.com": None}]))
    first, second = json.loads(redacted)
    assert first == {"role": "user", "content": 'hi\n[email] "[card]"', "n": "[card]", "f": 1.5}
    assert second == {"arguments": '{"phone": "[phone]", "sum": 3}', "[email]": None}


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f'{{"a": "{CARD}", "a": "x"}}', '{"a": "[card]", "a": "x"}'),  # decoded, the first one would be gone
        ('{"a": "\\u0034111111111111111"}', '{"a": "[card]"}'),
        (f"[{CARD}", "[[card]"),
        ("[" * 5000 + CARD, "[" * 5000 + "[card]"),
        ('{"a": NaN, "b": 1e999}', '{"a": NaN, "b": 1e999}'),
    ],
)  # fmt: skip
def test_what_json_can_hide_is_found(text: str, redacted: str) -> None:
    assert redactor().text(text) == redacted


@dataclass
class Customer:
    name: str
    secret: bytes


class Shown:
    def __repr__(self) -> str:
        return f"<Shown {CARD}>"


class Hidden(dict):  # type: ignore[type-arg]
    """Cleaning fails on it, and falls back to its repr."""

    def items(self) -> Any:
        raise RuntimeError

    def __repr__(self) -> str:
        return f"<Hidden {CARD}>"


@pytest.mark.parametrize(
    ("value", "redacted"),
    [
        (Customer("bob@example.com", CARD.encode()), {"name": "[email]", "secret": "[card]"}),
        (Shown(), "<Shown [card]>"),
        (Hidden(), "<Hidden [card]>"),
        ([ValueError(CARD)], ["ValueError('[card]')"]),
        ({1: {CARD: int(CARD)}}, {"1": {"[card]": "[card]"}}),
        ({int(CARD): 1, CARD: 2, "[card]": 3}, {"[card]": 1, "[card] 2": 2, "[card] 3": 3}),
        (float(CARD), "[card]"),
        (-int(CARD), "-[card]"),
        ((b"\xff\xfe", bytearray(b"a@b.cd")), ["[not redacted: 2 bytes]", "[email]"]),
        ({"x": datetime(2026, 1, 1, 12), "y": True, "z": None, "n": 1.5}, None),
    ],
)  # fmt: skip
def test_nothing_hides_in_an_object(value: Any, redacted: Any) -> None:
    found = redactor().fields({"attributes": {"v": value}})["attributes"]["v"]
    assert found == (redacted if redacted is not None else {"x": "2026-01-01T12:00:00", "y": True, "z": None, "n": 1.5})


@given(value=JSON)
def test_what_a_redactor_leaves_is_unchanged(value: Any) -> None:
    assert redactor(str).fields({"attributes": {"v": value}}) == {"attributes": {"v": value}}


def starred(text: str) -> str:
    return "*" * len(text)


def test_the_same_redactors_again_leave_the_client_as_it_is() -> None:
    def settings(region: str) -> dict[str, Any]:
        prices = {"version": "1", "prices": [{"provider": "p", "model": "m", "usd_per_request": 1}]}
        redactors = [starred, email(), phone(region), "card"]
        return {"brokers": NOBODY, "flush_timeout_ms": 0, "redact": redactors, "prices": prices}

    voicelog.configure(**settings("US"))
    first = state.current
    voicelog.configure(**settings("US"))
    assert state.current is first is not None
    voicelog.configure(**settings("DE"))
    assert state.current is not first


@given(value=ANYTHING)
def test_any_attribute_at_all_is_redacted_without_an_exception(value: Any) -> None:
    json.dumps(redactor().fields({"attributes": {"v": value}, "parameters": {"v": [value]}}))


def test_every_text_of_an_event_is_redacted_and_no_id_or_name_is() -> None:
    error = {"type": f"E{CARD}", "message": CARD, "stack": f"at {CARD}"}
    attempts = [
        {"provider": CARD, "status": "error", "error": ErrorInfo(type="E", message=CARD)},
        {"provider": "b", "status": "ok"},
    ]
    texts = dict.fromkeys(redact.TEXTS, CARD)
    names = {"turn_id": CARD, "stage": CARD, "provider": CARD, "model": CARD, "name": CARD, "span_id": CARD}
    fields = {
        **texts,
        **names,
        "parameters": {"a": CARD},
        "attributes": {"a": [CARD]},
        "error": error,
        "attempts": attempts,
    }
    before = json.dumps(fields, default=repr)
    assert redactor("card").fields(fields) == {
        **dict.fromkeys(redact.TEXTS, "[card]"),
        **names,
        "parameters": {"a": "[card]"},
        "attributes": {"a": ["[card]"]},
        "error": {"type": f"E{CARD}", "message": "[card]", "stack": "at [card]"},
        "attempts": [
            {"provider": CARD, "status": "error", "error": {"type": "E", "message": "[card]", "stack": None}},
            {"provider": "b", "status": "ok"},
        ],
    }
    assert json.dumps(fields, default=repr) == before, "the caller's own values stay as they are"


def test_own_functions_run_first_and_in_order_then_email_card_phone() -> None:
    seen: list[str] = []

    def first(text: str) -> str:
        seen.append(text)
        return text + " 1"

    def second(text: str) -> str:
        seen.append(text)
        return text + " a@b.cd"

    assert redactor("phone", first, card(), second, "email").text(f"{CARD}@x.de") == "[email] 1 [email]"
    assert seen == [f"{CARD}@x.de", f"{CARD}@x.de 1"]


def fails(_: str) -> str:
    raise ValueError(CARD)


class Odd:
    """A callable whose name can't be had."""

    @property
    def __name__(self) -> str:
        raise RuntimeError

    def __call__(self, text: str) -> Any:
        return text.encode()


@pytest.mark.parametrize(
    ("failing", "name"),
    [(fails, "fails"), (lambda _: None, "<lambda>"), (Odd(), "Odd"), (len, "len"), (email, "email")],
    ids=["raises", "returns None", "object", "built-in", "own"],
)
def test_a_redactor_that_fails_lets_nothing_through(
    failing: Callable[[str], Any], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    broken = redactor("card", failing, counters=counters)
    note = f"[not redacted: {name} failed]"
    assert broken.fields({"transcript": "hello", "attributes": {"a": "b"}}) == {
        "transcript": note, "attributes": {note: note},
    }  # fmt: skip
    assert counters.snapshot()["redact_failed"] == {name: 3}
    (warning,) = caplog.messages
    assert f"the redactor {name} failed" in warning
    assert CARD not in warning
    assert "hello" not in warning


def test_a_redactor_that_makes_an_event_itself_does_not_run_for_ever() -> None:
    mine: list[Redactor] = []
    made = redactor(lambda text: mine[0].text(text))
    mine.append(made)
    assert made.text("hello") == "[not redacted: <lambda> failed]"
    assert made.text("hello") == "[not redacted: <lambda> failed]"


def test_another_thread_redacts_while_a_redactor_runs() -> None:
    found: list[str] = []

    def outer(text: str) -> str:
        if text == "outer":
            thread = threading.Thread(target=lambda: found.append(made.text("inner")))
            thread.start()
            thread.join()
        return text.upper()

    made = redactor(outer)
    assert made.text("outer") == "OUTER"
    assert found == ["INNER"]


def test_phone_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(ImportError, match=r"pip install 'voicelog\[redact\]'"):
        phone()
    assert redactor("email").text("a@b.cd") == "[email]"
    assert redactor("phone").text("hello") == "[not redacted: phone failed]"
    assert "pip install 'voicelog[redact]'. Until then no text is sent." in caplog.text


def test_a_region_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"phone\('XX'\): expected a region of two letters such as US"):
        phone("XX")
    assert redactor("phone:XX").text("hello") == "[not redacted: phone:XX failed]"  # from the environment


def test_without_redactors_there_is_none() -> None:
    assert build((), Counters()) is None


def test_a_ready_made_redactor_shows_how_it_is_made() -> None:
    assert [repr(one) for one in (email(), card(), phone(), phone("US"))] == [
        "voicelog.redact.email()", "voicelog.redact.card()", "voicelog.redact.phone()", "voicelog.redact.phone('US')",
    ]  # fmt: skip


def test_phonenumbers_is_imported_only_where_it_is_needed() -> None:
    source = Path(redact.__file__).read_text(encoding="utf-8")
    assert re.findall(r"^( *)import phonenumbers", source, flags=re.MULTILINE) == ["        "]
