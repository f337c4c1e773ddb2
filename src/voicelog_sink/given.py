"""Texts of the command line that mean nothing when they are empty, as an unset variable of a script makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

Value = TypeVar("Value", str, "str | None", "tuple[str, ...]")


def not_empty(what: str, expected: str) -> Callable[[click.Context, click.Parameter, Value], Value]:
    """Return a callback of click's that gives the value back, and raises BadParameter for an empty text in it."""

    def checked(context: click.Context, parameter: click.Parameter, value: Value) -> Value:
        if value == "" or (isinstance(value, tuple) and "" in value):
            message = f"an empty {what}; expected {expected}"
            raise click.BadParameter(message, context, parameter)
        return value

    return checked


def checked_session(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return what says which call, an id or `last`; raises BadParameter for an empty one."""
    return not_empty("session id", "an id, or `last`")(context, parameter, value)


def checked_whole_ids(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Return whole ids of calls; raises BadParameter for an empty one among them."""
    return not_empty("session id", "a call's whole id")(context, parameter, value)
