"""`voicelog-sink show`: one call with its waterfall."""

from __future__ import annotations

import time

import click

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.given import checked_session
from voicelog_sink.options import STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.queries import NoSuchSession, call, find
from voicelog_sink.reading import reading
from voicelog_sink.render import console
from voicelog_sink.render_call import CallPrinter

SETTINGS = (*STORE_SETTINGS, "slow_turn_ms")

EXAMPLE = """\b
Examples:
  voicelog-sink show last
  voicelog-sink show call-7f3a --stacks
  voicelog-sink show last --json | jq '.turns[].turn.user_bot_latency_ms'

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@click.argument("session", callback=checked_session)
@click.option("--stacks", is_flag=True, help="Show stack traces whole")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: session, turns, outside")
@with_settings(*SETTINGS)
def command(settings: Settings, session: str, stacks: bool, as_json: bool) -> int:
    """Show one call: what was said, where each turn's time went, what failed.

    SESSION is the call's id, or enough of its beginning, or `last` for the newest call. Times are milliseconds.
    """
    with reading(settings) as store:
        session_id = find(store, session, int(time.time() * 1000))
        found = call(store, session_id, settings.slow_turn_ms)
    if found is None:
        message = f"call {session_id!r} was erased while it was read"
        raise NoSuchSession(message)
    if as_json:
        click.echo(shapes.line(shapes.call_shape(found)))
    else:
        CallPrinter(console(), stacks=stacks, slow_turn_ms=settings.slow_turn_ms).print(found)
    return 0
