"""The options of the dead letters' commands: which letters, and one of them by its place."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from typing import Any

import click

from voicelog.errors import REASONS
from voicelog.settings import Settings
from voicelog_sink.consumer import topic_names
from voicelog_sink.dlq import Filter
from voicelog_sink.dlq_reading import LetterPlace
from voicelog_sink.given import checked_whole_ids
from voicelog_sink.period import FORMS, maybe_since_option, since_ms

Command = Callable[..., Any]

_PLACE = re.compile(r"(\d{1,9}):(\d{1,18})")
_GIVEN = ("reason", "topic", "session", "since", "max_replays")


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # a type argument is more than click 8.1 takes
    """PARTITION:OFFSET, as the list names a letter."""

    name = "PARTITION:OFFSET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LetterPlace:
        """Return the place; fails with what was expected."""
        found = _PLACE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no letter: expected PARTITION:OFFSET such as 2:17, as in `dlq list`", param, ctx)
        return LetterPlace(int(found[1]), int(found[2]))


PLACE = PlaceType()


class Given:
    """What was given of the filters on the command line."""

    def __init__(self, **options: Any) -> None:
        """Keep the options."""
        self._options = options

    def is_empty(self) -> bool:
        """Say whether no filter was given at all."""
        return all(value in ((), None) for value in self._options.values())

    def filter(self, settings: Settings) -> Filter:
        """Return the filter as of now; raises a UsageError for a topic that is none of events."""
        given = self._options
        since = given["since"]
        return Filter(
            frozenset(given["reason"]),
            frozenset(_topic(settings, name) for name in given["topic"]),
            frozenset(given["session"]),
            None if since is None else since_ms(since, int(time.time() * 1000)),
            given["max_replays"],
        )


def filter_options(command: Command) -> Command:
    """Give a command the options that say which letters, and `given` with what they were."""

    @functools.wraps(command)
    def with_given(*args: Any, **options: Any) -> Any:
        given = Given(**{name: options.pop(name) for name in _GIVEN})
        return command(*args, given=given, **options)

    wrapped: Command = with_given
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_OPTIONS = (
    click.option("--reason", type=click.Choice(list(REASONS)), multiple=True, help="Only with this reason; repeatable"),
    click.option("--topic", multiple=True, help="Only what was in this topic, with or without the prefix; repeatable"),
    click.option(
        "--session", multiple=True, callback=checked_whole_ids,
        help="Only of this call, by the message's key or its JSON; repeatable",
    ),
    maybe_since_option(f"Only what came in since: {FORMS}"),
    click.option(
        "--max-replays", type=click.IntRange(min=0), help="Only what was replayed at most so often; 0: never yet"
    ),
)  # fmt: skip


def _topic(settings: Settings, name: str) -> str:
    names = topic_names(settings.topic_prefix)
    for full in (name, settings.topic_prefix + name):
        if full in names:
            return full
    message = f"{name!r} is no topic of events: expected one of {', '.join(names)}"
    raise click.UsageError(message)
