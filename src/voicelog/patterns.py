"""Patterns: what e-mail addresses, card and phone numbers look like in a text. Pure, and linear in the text's length.

Each `replace_...` takes a text and returns it with what was found replaced. Every pattern is either possessive or
bounded, so that no text, however hostile, makes it try the same characters over and over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

EMAIL, CARD, PHONE = "[email]", "[card]", "[phone]"

_LOCAL = r"""[^\s@\uFF20<>()\[\],;:"\\\x00-\x1f\x7f]"""
_LABEL = r"[^\s!-,./:-@\[-^`{-\x7f\x00-\x1f\u3002\uff0e\uff61\uff20]"
_DOMAIN = rf"(?:{_LABEL}++(?:[.\u3002\uff0e\uff61]{_LABEL}++)++|\[[0-9a-fA-F:.IPv]{{2,45}}\])"
_EMAIL = re.compile(rf'"[^"\r\n]{{1,64}}"[@\uFF20]{_DOMAIN}|{_LOCAL}++(?P<domain>[@\uFF20]{_DOMAIN})?')
"""A run of characters without what follows is taken too, so that it is not tried again from its second character."""


def replace_emails(text: str) -> str:
    """Return the text with [email] for every address, also one with a quoted name or letters of any script."""
    if "@" not in text and "\uff20" not in text:
        return text
    return _EMAIL.sub(lambda m: EMAIL if m["domain"] or m[0][0] == '"' else m[0], text)


CARD_DIGITS = range(13, 20)
_BETWEEN = r"[^\S\r\n]|[-.,_\u2010-\u2015\u2212]"
_GROUPS = re.compile(rf"\d++(?:(?:{_BETWEEN}){{1,3}}+\d++)*+")
_GROUP = re.compile(r"\d++")
_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_NO_CARD = frozenset("01")
"""No card begins with them but the airlines' own (UATP); times in milliseconds and microseconds begin with 1."""


def replace_cards(text: str) -> str:
    """Return the text with [card] for every run of 13 to 19 digits that ends in their check digit.

    The digits may stand in groups, also one by one, with spaces, dashes, dots or commas between.
    """
    return _GROUPS.sub(_without_cards, text)


def _without_cards(match: re.Match[str]) -> str:
    run = match[0]
    if len(run) < CARD_DIGITS.start:
        return run
    groups = [(m.start(), m.end()) for m in _GROUP.finditer(run)]
    parts, at = [], 0
    for first, last in _card_spans(run, groups):
        parts += [run[at : groups[first][0]], CARD]
        at = groups[last][1]
    return "".join([*parts, run[at:]])


def _card_spans(run: str, groups: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the first and last group of each stretch that cards cover; cards that overlap are one stretch."""
    start, end = 0, -1
    for first in range(len(groups)):
        last = _card_from(run, groups, first)
        if last is None:
            continue
        if first > end:
            if end >= 0:
                yield start, end
            start = first
        end = max(end, last)
    if end >= 0:
        yield start, end


def _card_from(run: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """Return the last group of the longest card that begins with the group `first`; None without one."""
    if run[groups[first][0]] in _NO_CARD:
        return None
    found, length, plain, doubled = None, 0, [0, 0], [0, 0]  # sums of the digits at even and at odd places
    for last in range(first, len(groups)):
        start, end = groups[last]
        if length + end - start >= CARD_DIGITS.stop:
            break
        for digit in map(int, run[start:end]):
            plain[length % 2] += digit
            doubled[length % 2] += _LUHN_DOUBLED[digit]
            length += 1
        if length in CARD_DIGITS and (plain[(length - 1) % 2] + doubled[length % 2]) % 10 == 0:
            found = last
    return found


_WITHIN = (
    r"(?:[^\S\r\n]|[-x.()\[\]/~\u00ad\u200b\u2010-\u2015\u2053\u2060\u2212\u223c\u30fc"
    r"\uff08\uff09\uff0d-\uff0f\uff3b\uff3d\uff5e])"
)
"""What phonenumbers takes for punctuation within a number."""
_INTERNATIONAL = re.compile(rf"[+\uff0b](?:\d{{7,}}+|{_WITHIN}{{0,3}}\d(?:{_WITHIN}{{0,4}}\d){{7,14}}\d*+)")
_DIALLED = re.compile(rf"\d(?:{_WITHIN}{{0,4}}\d){{5,}}+")
_PLUS = re.compile(rf"[+\uff0b]{_WITHIN}{{0,4}}\Z")
BEFORE, AFTER = 4, 24
"""Characters around the digits that belong to a number, or tell that it is none: a bracket, an extension."""
MAX_ASKED = 1000
"""Digits of a text that phonenumbers is asked about: each takes it some 20 us."""


def replace_phones(text: str, find: Callable[[str], Iterable[tuple[int, int]]], national: bool) -> str:
    """Return the text with [phone] for every phone number that `find` finds in a piece of it, by start and end.

    Without `national` only numbers with a plus count. What looks like an E.164 number is replaced whatever `find` says,
    and in a text with digits beyond MAX_ASKED every further group of them that may be a number.
    """
    if not national and "+" not in text and "\uff0b" not in text:
        return text
    parts, at, asked = [], 0, 0
    for start, end in _dialled(text, national):
        if start < at:  # in the extension of the number before
            continue
        asked += end - start
        begin = max(at, start - BEFORE)
        inside = find(text[begin : end + AFTER]) if asked <= MAX_ASKED else [(start - begin, end - begin)]
        for first, last in inside:
            if begin + first < end:
                parts += [text[at : begin + first], PHONE]
                at = begin + last
    return _INTERNATIONAL.sub(PHONE, "".join([*parts, text[at:]]))


def _dialled(text: str, national: bool) -> Iterator[tuple[int, int]]:
    for match in _DIALLED.finditer(text):
        if national or _PLUS.search(text, max(0, match.start() - 5), match.start()):
            yield match.span()
