"""Which figures a command looks at: `--names llm,user_bot_latency`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from voicelog_sink.render import one_line
from voicelog_sink.rolled import UnknownName

MOST = 30
"""Names that a sentence lists; a sink may know hundreds of custom metrics."""


def split(text: str) -> tuple[str, ...]:
    """Return the names in `text`, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def checked_names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Return the names, none where the option is not given; raises BadParameter where it names nothing."""
    if value is not None and not split(value):
        message = "nothing is named: expected some such as llm,user_bot_latency, or leave it out for all"
        raise click.BadParameter(message, context, parameter)
    return split(value or "")


def names_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --names."""
    how = "Only these stages, figures or metrics, such as llm,user_bot_latency; all by default"
    return click.option("--names", callback=checked_names, help=how)(command)


@contextmanager
def names_known(period: str) -> Iterator[None]:
    """Tell a name that was not measured in that period, such as `since 24h`, as wrong use, with those that were."""
    try:
        yield
    except UnknownName as exc:
        message = f"no figure {exc.name!r} was measured {period}; there are: {listed(exc.known)}"
        raise click.UsageError(message) from exc


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence; '' stands for what has none, and of many the first ones are there."""
    shown = ", ".join(one_line(name) or "''" for name in names[:MOST])
    return shown + (f" and {len(names) - MOST:,} more" if len(names) > MOST else "")


def of_names(names: Sequence[str]) -> str:
    """Return ` of llm, tts` for a sentence about these names, nothing for one about all."""
    return f" of {listed(names)}" if names else ""
