"""`voicelog-sink init`: the topics and the store's schema."""

from __future__ import annotations

from contextlib import ExitStack

import click

from voicelog.settings import Settings
from voicelog_sink import logs
from voicelog_sink.opening import open_store
from voicelog_sink.options import BROKER_SETTINGS, INIT_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.reading import reading
from voicelog_sink.stores.base import Difference, Store
from voicelog_sink.topics import TopicAdmin

TOPICS, STORE = "topics", "store"

Made = TopicAdmin | Store

SETTINGS = (*BROKER_SETTINGS, *STORE_SETTINGS, *INIT_SETTINGS, "ttl_days", "log_format")

EXAMPLE = """\b
Examples:
  voicelog-sink init --brokers redpanda:9092 --store "scylla://scylla:9042/voice_ai_ks?local_dc=dc1" --cql-replication 3
  voicelog-sink init --check
  voicelog-sink init --only store

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@click.option("--check", is_flag=True, help="Say what is not as it should be, change nothing; status 1 if there is any")
@click.option(
    "--only", type=click.Choice((TOPICS, STORE)), help="Only these; the other need not be there, as for a restore"
)
@with_settings(*SETTINGS)
def command(settings: Settings, check: bool, only: str | None) -> int:
    """Make the topics and the store's schema, or change them to what they should be. A second run does nothing."""
    logs.set_up(settings.log_format)
    found: list[Difference] = []
    done: list[str] = []
    with ExitStack() as stack:
        made: list[Made] = []
        if only != TOPICS:
            store = reading(settings) if check else open_store(settings, settings.start_timeout_ms)
            made.append(stack.enter_context(store))
        if only != STORE:
            topics = TopicAdmin(settings)
            topics.wait(settings.start_timeout_ms)
            made.insert(0, topics)
        for each in made:  # only when both are there
            if check:
                found += each.check()
            else:
                done += each.init()
    if check:
        return tell_differences(found)
    for sentence in done:
        click.echo(sentence)
    click.echo("ok" if done else "ok, nothing to do")
    return 0


def tell_differences(found: list[Difference]) -> int:
    """Print each difference with its remedy, or ok; return the exit status."""
    for difference in found:
        click.echo(f"{difference.what}: {difference.remedy}")
    if not found:
        click.echo("ok")
    return 1 if found else 0
