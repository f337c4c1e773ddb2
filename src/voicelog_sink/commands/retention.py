"""`voicelog-sink retention`: how long what is stored is kept, by kind and by table, and changing that."""

from __future__ import annotations

import getpass
import re
import sys
import time
from collections.abc import Callable

import click

from voicelog.settings import Settings
from voicelog_sink import render_retention, shapes
from voicelog_sink.commands.forget import settle, topics_ms
from voicelog_sink.erasures import SETTLE_S
from voicelog_sink.errors import SinkError
from voicelog_sink.nearest import NearestGroup
from voicelog_sink.options import BROKER_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.progress import progress
from voicelog_sink.reading import reading
from voicelog_sink.retention import KINDS, Rule, kept, lifetimes_of, most_days, read_rules, scope_of
from voicelog_sink.retention_apply import Application, Applied
from voicelog_sink.retention_change import Change, change
from voicelog_sink.stores.base import Store

SETTINGS = (*STORE_SETTINGS, "ttl_days")
SHOW_SETTINGS = (*SETTINGS, *BROKER_SETTINGS)

_LENGTH = re.compile(r"(\d{1,6})([dw])")
_UNIT_DAYS = {"d": 1, "w": 7}

EXAMPLE = """\b
Examples:
  voicelog-sink retention
  voicelog-sink retention set text 7d --dry-run
  voicelog-sink retention set text 7d --apply --yes

"""
SHOW_EXAMPLE = """\b
Examples:
  voicelog-sink retention show
  voicelog-sink retention show --topics --json

"""
SET_EXAMPLE = """\b
Examples:
  voicelog-sink retention set text 7d --dry-run
  voicelog-sink retention set text 7d --apply --yes
  voicelog-sink retention set error_logs 4w --yes

"""
RESET_EXAMPLE = """\b
Examples:
  voicelog-sink retention reset text

"""
HELP = f"""Show how long what is stored is kept, by kind and by table; `set` and `reset` change it.

The rules are in the store, so that all sinks and commands go by them.

\b
Kinds:
{"".join(f"- {kind.name}: {kind.what}{chr(10)}" for kind in KINDS.values())}"""


class ShowsByDefault(NearestGroup):
    """A group that without a command of its own shows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `show` for what is not there."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


def checked_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return the kind's or table's name; raises BadParameter with what was expected."""
    try:
        scope_of(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc), context, parameter) from exc
    return value


def checked_days(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Return the days of a length such as 7d or 4w; raises BadParameter with what was expected."""
    most = most_days(context.params["name"])
    length = _LENGTH.fullmatch(value.strip())
    days = int(length[1]) * _UNIT_DAYS[length[2]] if length else 0
    if not 1 <= days <= most:
        message = f"{value!r}: expected a length such as 7d or 4w, from 1d to {most}d for {context.params['name']}"
        raise click.BadParameter(message, context, parameter)
    return days


def change_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command what `set` and `reset` have in common."""
    for option in reversed((
        click.argument("name", metavar="NAME", callback=checked_name, is_eager=True),
        click.option("--apply", "apply_now", is_flag=True, help="Have what is stored already go by it too, and wait"),
        click.option("--dry-run", is_flag=True, help="Say what would change, with --apply of how many rows"),
        click.option("--yes", is_flag=True, help="Do not ask; needed where stdin is no terminal and something is lost"),
        click.option("--no-wait", is_flag=True, help=f"With --apply: do not wait {SETTLE_S:.0f} s for sinks that run"),
        click.option("--json", "as_json", is_flag=True, help="One JSON object: name, days, tables, warnings, applied"),
    )):  # fmt: skip
        command = option(command)
    return command


@click.group(cls=ShowsByDefault, help=HELP, epilog=EXAMPLE)
def command() -> None:
    """Show how long what is stored is kept, or change it."""


@command.command("show", epilog=SHOW_EXAMPLE + secrets_epilog(*SHOW_SETTINGS))
@click.option("--topics", is_flag=True, help="Ask the broker too, for how long its topics keep their messages")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: kinds, tables, topics_ms")
@with_settings(*SHOW_SETTINGS)
def show_command(settings: Settings, topics: bool, as_json: bool) -> int:
    """Show how long each kind and each table is kept, counted from the event, and who said so."""
    with reading(settings) as store:
        rules = read_rules(store)
    found = kept(rules, settings.ttl_days)
    held = topics_ms(settings) if topics else None
    if as_json:
        known = held if isinstance(held, dict) else None
        click.echo(shapes.line(shapes.retention_shape(rules, found, known)))
    else:
        render_retention.show(rules, found, settings.ttl_days, held)
    return 0


@command.command("set", epilog=SET_EXAMPLE + secrets_epilog(*SETTINGS))
@change_options
@click.argument("days", metavar="LENGTH", callback=checked_days)
@with_settings(*SETTINGS)
def set_command(settings: Settings, name: str, days: int, apply_now: bool, dry_run: bool, yes: bool, no_wait: bool,
                as_json: bool) -> int:  # fmt: skip
    """Keep NAME, a kind or a table, for LENGTH from now on, such as 7d or 4w, counted from the event.

    text goes before the rows that it is in, figures are the rows, summaries and rollups what is derived from them. A
    table's own rule goes before its kind's. Sinks go by it within 15 seconds. What goes sooner than before is asked
    for, since it does not come back.
    """
    rule = Rule(scope_of(name), name, days, int(time.time() * 1000), f"{_user()}@{settings.host}")
    return alter(settings, name, rule, apply_now, dry_run, yes, None if no_wait else settle, as_json)


@command.command("reset", epilog=RESET_EXAMPLE + secrets_epilog(*SETTINGS))
@change_options
@with_settings(*SETTINGS)
def reset_command(settings: Settings, name: str, apply_now: bool, dry_run: bool, yes: bool, no_wait: bool,
                  as_json: bool) -> int:  # fmt: skip
    """Keep NAME, a kind or a table, for as long as by default again: its rule is taken out."""
    return alter(settings, name, None, apply_now, dry_run, yes, None if no_wait else settle, as_json)


def alter(settings: Settings, name: str, rule: Rule | None, apply_now: bool, dry_run: bool, yes: bool,
          wait: Callable[[], None] | None, as_json: bool) -> int:  # fmt: skip
    """Change the rule of that name in the store, have what is stored go by it where that is asked for, and tell."""
    applied = None
    with reading(settings) as store:
        rules = read_rules(store)
        made = change(name, rule, rules, settings.ttl_days)
        if not dry_run:
            confirm(made, yes, apply_now=apply_now)
            write(store, rules.get(name), rule)
        if apply_now:
            if wait and not dry_run:
                wait()
            applied = apply(store, made, dry_run=dry_run)
        writes_expiry = store.writes_expiry
    tell(made, applied, settings.ttl_days, writes_expiry=writes_expiry, dry_run=dry_run, as_json=as_json)
    return 0


def apply(store: Store, made: Change, *, dry_run: bool) -> Applied:
    """Have what is stored go by the rules, with a bar where that is a terminal."""
    now_ms = int(time.time() * 1000)
    application = Application(store, lifetimes_of(made.after), now_ms, texts_alone=made.texts_alone, dry_run=dry_run)
    with progress("going over the tables", len(made.tables)) as on_table:
        return application.run(made.tables, on_table)


def confirm(made: Change, yes: bool, *, apply_now: bool) -> None:
    """Ask where something is lost; raises Abort for a no, and UsageError where nobody can answer."""
    if yes or not made.takes_away:
        return
    if not sys.stdin.isatty():
        message = "it takes away what was to stay, and nobody can be asked here: say --yes, or --dry-run to see"
        raise click.UsageError(message)
    what = "What is older is deleted" if apply_now else "It goes sooner than before"
    click.confirm(f"{render_retention.sentence(made)}. {what}, and does not come back. Go on", abort=True, err=True)


def write(store: Store, old: Rule | None, new: Rule | None) -> None:
    """Write the rule, or take the old one out."""
    if new is None:
        store.delete("retention", [old.key] if old else [])
    elif refused := store.write([new.row]):
        message = f"the rule can't be written: {refused[0].message}"
        raise SinkError(message)


def tell(
    made: Change, applied: Applied | None, ttl_days: int, *, writes_expiry: bool, dry_run: bool, as_json: bool
) -> None:
    """Print what has changed, or would, what is odd about it, and what becomes of what is stored already."""
    warnings = made.warnings(ttl_days, in_windows=writes_expiry)
    if as_json:
        click.echo(shapes.line(shapes.retention_change_shape(made, warnings, applied, dry_run)))
        return
    click.echo(render_retention.sentence(made) + (" (nothing was changed)" if dry_run else ""))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if applied is not None or made.changes_something:
        click.echo(render_retention.stored_already(made, applied, writes_expiry=writes_expiry, dry_run=dry_run))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return "unknown"
