"""`voicelog-sink forget`: erase a call or a person from the store, for good."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.erasures import SETTLE_S, Erasure
from voicelog_sink.errors import SinkError
from voicelog_sink.forget import Erased, forget, sessions_of, traces
from voicelog_sink.given import checked_whole_ids, not_empty
from voicelog_sink.options import BROKER_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.progress import progress
from voicelog_sink.queries import not_stored
from voicelog_sink.reading import reading
from voicelog_sink.render import count, one_line
from voicelog_sink.topics import TopicAdmin

SETTINGS = (*STORE_SETTINGS, *BROKER_SETTINGS)
BROKER_PATIENCE_MS = 5_000
STEP_S = 0.5
WRITTEN_DOWN = "The erasure is written down all the same: events of it that come later are not stored"

EXAMPLE = """\b
Examples:
  voicelog-sink forget call-7f3a --dry-run
  voicelog-sink forget call-7f3a call-9b21 --yes --reason "ticket 4711"
  voicelog-sink forget --user customer-81 --yes

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@click.argument("sessions", nargs=-1, metavar="[SESSION]...", callback=checked_whole_ids)
@click.option(
    "--user", callback=not_empty("user", "a person, as the `user` of sessions"),
    help="Erase every call of this person (the `user` of sessions) up to now",
)  # fmt: skip
@click.option("--reason", default="", help="Written down with the erasure; no personal data")
@click.option("--dry-run", is_flag=True, help="Say what would be erased, change nothing")
@click.option("--yes", is_flag=True, help="Do not ask; needed where stdin is no terminal")
@click.option("--no-wait", is_flag=True, help=f"Do not wait {SETTLE_S:.0f} s for sinks that run: there are none")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: sessions, rows, erased_at, topics")
@with_settings(*SETTINGS)
def command(settings: Settings, sessions: tuple[str, ...], user: str | None, reason: str, dry_run: bool, yes: bool,
            no_wait: bool, as_json: bool) -> int:  # fmt: skip
    """Erase calls or a person from every table of the store, and write down that nothing of them may be stored again.

    Each SESSION is a call's whole id; nothing need be stored under it. What the sink finds in the topics later, also
    replayed dead letters, is dropped. Rollups stay: they name no person, no call and no text. What the broker still
    holds, and until when, is said.
    """
    if bool(sessions) == (user is not None):
        message = "expected either ids of calls or --user"
        raise click.UsageError(message)
    with reading(settings) as store:
        named = list(dict.fromkeys(sessions)) if user is None else sessions_of(store, user)
        missing = not_stored(store, sessions)
        is_told = not as_json and (missing or not named)
        if is_told:
            tell_missing(missing, user)
        if dry_run:
            erased = Erased(tuple(named), dict(traces(store, named)))
            tell(erased, topics_ms(settings), None, as_json, missing=len(missing))
            return 0
        if not yes:
            confirm(named, user, traces(store, named))
        at_ms = int(time.time() * 1000)
        like = Erasure("session", "", at_ms, reason)
        erased = forget(store, named, user, like, settle=(lambda: None) if no_wait else settle)
    if is_told:
        click.echo(WRITTEN_DOWN, err=True)
    tell(erased, topics_ms(settings), at_ms, as_json, missing=len(missing))
    return 0


def settle() -> None:
    """Wait until every sink knows, with a bar where that is a terminal."""
    steps = round(SETTLE_S / STEP_S)
    with progress("waiting until every sink knows", steps) as on_step:
        for _ in range(steps):
            time.sleep(STEP_S)
            on_step()


def confirm(sessions: Sequence[str], user: str | None, rows: Mapping[str, int]) -> None:
    """Ask; raises Abort for a no, and UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        message = "nobody can be asked here: say --yes, or --dry-run to see what would be erased"
        raise click.UsageError(message)
    whom = f"{count(len(sessions), 'call')} of {user!r}" if user is not None else ", ".join(sessions)
    click.confirm(f"Erase {whom} ({_tables(rows)})? This can't be undone", abort=True, err=True)


def topics_ms(settings: Settings) -> dict[str, int] | str:
    """Return how long each topic keeps its messages, or why that is not known."""
    topics = TopicAdmin(settings)
    try:
        topics.wait(min(settings.start_timeout_ms, BROKER_PATIENCE_MS))
        return topics.retention_ms()
    except SinkError as exc:
        return str(exc)


def tell_missing(missing: Mapping[str, tuple[str, ...]], user: str | None) -> None:
    """Say on stderr under which ids nothing is stored, and which it could have been; or that `user` has no call."""
    for name, near in missing.items():
        hint = f" (did you mean {' or '.join(map(one_line, near))}?)" if near else ""
        how = "a call is erased by its whole id: its beginning is not enough, nor is `last`"
        click.echo(f"nothing is stored under {name!r}{hint}; {how}", err=True)
    if user is not None:
        click.echo(f"no call of {user!r} is known; expected the `user` of sessions, whole", err=True)


def tell(erased: Erased, kept: dict[str, int] | str, at_ms: int | None, as_json: bool, *, missing: int = 0) -> None:
    """Print what was erased, or would be where `at_ms` is None, and what remains in the broker.

    Of so many ids as are `missing` nothing was stored: they count as no calls.
    """
    if as_json:
        click.echo(shapes.line(shapes.erased_shape(erased, at_ms, kept if isinstance(kept, dict) else None)))
        return
    verb = "would be erased" if at_ms is None else "erased"
    calls, rows = count(len(erased.sessions) - missing, "call"), count(sum(erased.rows.values()), "row")
    click.echo(f"{calls}, {rows} {verb}: {_tables(erased.rows)}")
    click.echo(_remains(kept, int(time.time() * 1000)))


def _remains(kept: dict[str, int] | str, now_ms: int) -> str:
    if isinstance(kept, str):
        return f"The broker was not asked ({kept}); its topics hold their messages for as long as their retention says."
    longest_ms = max(kept.values(), default=0)
    if -1 in kept.values():
        return "The broker's topics hold their messages for ever (retention.ms=-1): what they have of it stays there."
    until = datetime.fromtimestamp((now_ms + longest_ms) / 1000, UTC)
    days = ", ".join(f"{name} {ms / 86_400_000:g} days" for name, ms in sorted(kept.items()))
    return (
        f"The broker may hold messages of it until about {until:%Y-%m-%d %H:%M} UTC "
        f"(retention: {days or 'no topics'}). Sinks drop them."
    )


def _tables(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} in {table}" for table, number in sorted(rows.items())) or "nothing stored"
