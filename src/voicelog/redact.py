"""Redaction: takes what is private out of every text, before anything is encoded.

    voicelog.configure(redact=["phone", "email", "card"])              # or VOICELOG_REDACT=phone,email,card
    voicelog.configure(redact=["phone:US", my_function])
    import voicelog.redact; voicelog.redact.phone("US")(text)          # on texts of one's own

A redactor is a function from a text to a text. Redacted are transcript, prompt, response, text, parameters, attributes
(names and values), the message and stack of errors, and log messages. Ids and names are not: session_id, turn_id,
user_id, stage, provider, model, variant, a metric's name.
"""

from __future__ import annotations

import json
import numbers
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

from voicelog import patterns
from voicelog.clean import Cleaner, text
from voicelog.content import as_dict
from voicelog.counters import Counters

Function = Callable[[str], Any]

TEXTS = ("transcript", "prompt", "response", "text", "message")
TREES = ("parameters", "attributes")
MAX_PASSES = 8
MIN_NUMBER = 10**6
"""Numbers from seven digits on are looked at as texts: a shorter one is no card and no phone."""
_MAYBE_JSON = re.compile(r"\s*+[\[{]")


class ReadyMade:
    """A redactor of voicelog's own; one that is run on what it returned changes nothing."""

    def __init__(self, name: str, rank: int, replace: Callable[[str], str]) -> None:
        self.__name__ = name
        self.rank = rank
        """Who goes first: an address may hold a card number, and a card number what looks like a phone's."""
        self.once = replace
        """One pass: what is gone may leave a new find beside it."""

    def __call__(self, text: str) -> str:
        """Return the text with what was found replaced."""
        return _settle(self.once, text)

    def __repr__(self) -> str:
        """Show how it is made."""
        return f"voicelog.redact.{self.__name__}"

    def __eq__(self, other: object) -> bool:
        """Return whether both do the same, so that configure() with the same settings changes nothing."""
        return isinstance(other, ReadyMade) and self.__name__ == other.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)


def email() -> ReadyMade:
    """Return a redactor that puts [email] for every e-mail address."""
    return ReadyMade("email()", 0, patterns.replace_emails)


def card() -> ReadyMade:
    """Return a redactor that puts [card] for every card number.

    That is 13 to 19 digits with the right check digit, in one or in groups with spaces, dashes, dots or commas between,
    and not beginning with 0 or 1.
    """
    return ReadyMade("card()", 1, patterns.replace_cards)


def phone(region: str | None = None) -> ReadyMade:
    """Return a redactor that puts [phone] for every phone number.

    Without a region those are the international ones, with a plus. With one, such as "US", also those that
    phonenumbers knows as valid when they are dialled there. Raises ImportError without the library phonenumbers, and
    ValueError for a region that it does not know.
    """
    try:
        import phonenumbers
    except ImportError as exc:
        message = "phone() needs the library phonenumbers: pip install 'voicelog[redact]'"
        raise ImportError(message) from exc
    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        message = f"phone({region!r}): expected a region of two letters such as US or DE"
        raise ValueError(message)

    def find(text: str) -> list[tuple[int, int]]:
        return [(match.start, match.end) for match in phonenumbers.PhoneNumberMatcher(text, region)]

    def replace(text: str) -> str:
        return patterns.replace_phones(text, find, region is not None)

    return ReadyMade(f"phone({region!r})" if region else "phone()", 2, replace)


def named(name: str) -> ReadyMade:
    """Return the ready-made redactor of a name in the setting `redact`: email, card, phone or phone:US."""
    kind, _, region = name.partition(":")
    return phone(region or None) if kind == "phone" else {"email": email, "card": card}[kind]()


def _settle(replace: Callable[[str], str], text: str) -> str:
    """Return the text after as many passes as change something."""
    for _ in range(MAX_PASSES):
        before, text = text, replace(text)
        if text == before:
            break
    return text


def build(given: tuple[Any, ...], counters: Counters) -> Redactor | None:
    """Return what redacts with the given names and functions; None without any. Raises nothing.

    A name that can't be had here, since its library is missing, lets no text through.
    """
    redactors = [_made(one, counters) if isinstance(one, str) else one for one in given]
    return Redactor(redactors, counters) if redactors else None


def _made(name: str, counters: Counters) -> Function:
    try:
        return named(name)
    except Exception as exc:
        counters.warn_once("redact_failed", name, f"redact: {exc}. Until then no text is sent.")
        return ReadyMade(name, 0, _nothing)


def _nothing(_: str) -> str:
    raise LookupError


class _FailedError(Exception):
    """A redactor gave no text; the message is its name."""


class Redactor:
    """Redacts the fields of events. Raises nothing; safe from any thread if the functions given are.

    The functions given run first, in their order; then the ready-made ones: email, card, phone.
    """

    def __init__(self, redactors: list[Function], counters: Counters) -> None:
        ready = sorted((one for one in redactors if isinstance(one, ReadyMade)), key=lambda one: one.rank)
        self._own = [(_name(one), one) for one in redactors if not isinstance(one, ReadyMade)]
        self._ready = [(_name(one), one.once) for one in ready]
        self._counters = counters
        self._within = threading.local()

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return an event's fields with every text redacted, as a new dict; values that are not JSON's are cleaned."""
        redacted = dict(fields)
        for name in TEXTS:
            if name in fields:
                redacted[name] = self.text(fields[name])
        for name in TREES:
            if name in fields:
                redacted[name] = _Redaction(self).clean(fields[name])
        if "error" in fields:
            redacted["error"] = self._error(fields["error"])
        if "attempts" in fields:
            redacted["attempts"] = [self._attempt(one) for one in fields["attempts"]]
        return redacted

    def _error(self, error: Any) -> dict[str, Any]:
        found = as_dict(error)
        return {n: self.text(v) if n != "type" and isinstance(v, str) else v for n, v in found.items()}

    def _attempt(self, attempt: Any) -> dict[str, Any]:
        found = as_dict(attempt)
        return {n: self._error(v) if n == "error" and v is not None else v for n, v in found.items()}

    def text(self, value: str) -> str:
        """Return the text redacted; where that fails, a note in its place and nothing of it.

        A JSON text is redacted value by value, so that it stays JSON and no escape hides anything.
        """
        if getattr(self._within, "redactor", None):
            return self._refused(self._within.redactor, "it made an event itself while it redacted one")
        try:
            return self._whole(value)
        except _FailedError as exc:
            cause = exc.__cause__  # its message may quote the text
            return self._refused(str(exc), f"it raised {type(cause).__name__}" if cause else "it returned no text")

    def _whole(self, value: str) -> str:
        if _MAYBE_JSON.match(value):
            try:
                return self._json(value)
            except (ValueError, RecursionError):  # it only looks like JSON
                pass
        return self._flat(value)

    def _json(self, value: str) -> str:
        found = json.loads(value, object_pairs_hook=_members)
        redacted = self._value(found)
        return value if redacted == found else json.dumps(redacted, ensure_ascii=False)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._whole(value)
        if isinstance(value, dict):
            return _unique((self._whole(name), self._value(one)) for name, one in value.items())
        if isinstance(value, list):
            return [self._value(one) for one in value]
        return self.number(value) if isinstance(value, (int, float)) else value

    def number(self, value: float) -> Any:
        """Return the number, or the text that is left where it was a private one."""
        if isinstance(value, bool) or not MIN_NUMBER <= abs(value) < float("inf") or value != int(value):
            return value
        digits = str(int(value))
        redacted = self.text(digits)
        return value if redacted == digits else redacted

    def _flat(self, value: str) -> str:
        for name, redactor in self._own:
            value = self._ask(name, redactor, value)
        return _settle(self._all_ready, value)

    def _all_ready(self, value: str) -> str:
        for name, redactor in self._ready:
            value = self._ask(name, redactor, value)
        return value

    def _ask(self, name: str, redactor: Function, value: str) -> str:
        self._within.redactor = name
        try:
            found = redactor(value)
        except Exception as exc:
            raise _FailedError(name) from exc
        finally:
            self._within.redactor = None
        if not isinstance(found, str):
            raise _FailedError(name)
        return str.__str__(found)

    def _refused(self, name: str, why: str) -> str:
        sentence = f"the redactor {name} failed, {why}: a text is replaced by a note, so that nothing of it is sent"
        self._counters.report("redact_failed", name, sentence)
        return f"[not redacted: {name} failed]"


class _Redaction(Cleaner):
    """Cleans a value and redacts every text in it, also those that stand for objects."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def say(self, value: str) -> str:
        return self._redactor.text(super().say(value))

    def number(self, value: numbers.Real) -> Any:
        found = super().number(value)
        return found if isinstance(found, str) or found is None else self._redactor.number(found)

    def mapping(self, pairs: list[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        return _unique((self.name(key), self.clean(value, depth + 1)) for key, value in pairs)

    def binary(self, value: bytes) -> Any:
        try:
            return self.say(value.decode())
        except UnicodeDecodeError:
            return f"[not redacted: {len(value)} bytes]"


def _unique(members: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dict of members whose names may have become alike: [phone], [phone] 2, ..."""
    found: dict[str, Any] = {}
    for name, value in members:
        number, other = len(found) + 1, name
        while other in found:
            other, number = f"{name} {number}", number + 1
        found[other] = value
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        message = "a name comes twice: what stands there first would be overlooked"
        raise ValueError(message)
    return found


def _name(redactor: Any) -> str:
    try:
        return text(getattr(redactor, "__name__", type(redactor).__name__), 80)
    except Exception:
        return type(redactor).__name__
