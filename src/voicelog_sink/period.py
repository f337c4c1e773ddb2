"""Which time a command looks at: `--since 24h`, `--since 2026-11-22 --until 2026-11-23`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
FORMS = "60s, 30m, 1.5h, 24h, 7d, 4w, or a UTC date or time such as 2026-11-22 or 2026-11-22T10:00"
"""What is taken, for help."""
EXPECTED = "expected a length such as 30m, 24h or 7d, or a UTC date or time such as 2026-11-22 or 2026-11-22T10:00"
_LENGTH = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhdw])", re.IGNORECASE | re.ASCII)


def since_ms(text: str, now_ms: int) -> int:
    """Return the moment that `text` means, epoch milliseconds, not before 1970; raises ValueError."""
    length = _LENGTH.fullmatch(text.strip())
    if length:
        return max(now_ms - int(Decimal(length[1]) * UNITS_MS[length[2].lower()]), 0)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        message = f"{text!r} is no time: {EXPECTED}"
        raise ValueError(message) from None
    return max(int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000), 0)


def checked_since(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the option's text, for the sentence that repeats it; raises BadParameter with what was expected."""
    try:
        since_ms("0s" if value is None else value, 0)
    except ValueError as exc:
        raise click.BadParameter(str(exc), context, parameter) from exc
    return value


def since_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --since."""
    how = f"How far back: {FORMS}"
    return click.option("--since", default="24h", show_default=True, callback=checked_since, help=how)(command)


def until_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --until; without it there is no end, and it is None."""
    how = "Up to when, in the forms of --since; by default up to now"
    return click.option("--until", default=None, callback=checked_since, help=how)(command)


def period_ms(since: str, until: str | None, now_ms: int, ahead_ms: int) -> tuple[int, int]:
    """Return the moments of --since and --until; without --until it ends `ahead_ms` after now, for clocks differ.

    Raises a UsageError where the one is not before the other.
    """
    found = since_ms(since, now_ms), now_ms + ahead_ms if until is None else since_ms(until, now_ms)
    if found[0] >= found[1]:
        message = f"--since {since} is not before --until {until or 'now'}: expected the earlier moment first"
        raise click.UsageError(message)
    return found


def told(since: str, until: str | None) -> str:
    """Return the period as a sentence has it: `since 2h until 1h`."""
    return f"since {since}" + (f" until {until}" if until else "")


def maybe_since_option(how: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what gives a command the option --since with this help, None where it is not given."""
    return click.option("--since", callback=checked_since, help=how)
