"""`voicelog-sink verify`: whether all that the topics hold is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.consumer import topic_names
from voicelog_sink.dlq import Filter
from voicelog_sink.dlq_reading import DeadLetterReader
from voicelog_sink.erasures import Erasures
from voicelog_sink.group import GroupAdmin
from voicelog_sink.options import BROKER_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.period import since_ms, since_option, until_option
from voicelog_sink.progress import progress
from voicelog_sink.reading import reading
from voicelog_sink.render import Column, console, one_line, print_line, print_table
from voicelog_sink.retention import Retention
from voicelog_sink.stores.base import Store
from voicelog_sink.topic_reader import TopicReader
from voicelog_sink.topics import TopicAdmin
from voicelog_sink.verify import OUTCOMES, Gap, Ledger, Rules, gaps, verify

SETTINGS = (*BROKER_SETTINGS, *STORE_SETTINGS, "group", "ttl_days")
RANKS = {"stored": 2, "dead": 3, "expired": 6, "erased": 5, "waiting": 4, "missing": 0}
"""Which columns are left out first where there is no room: the highest."""

SHOWN = 20
"""Missing messages, and calls with gaps, that a person is shown; --json has them all."""

EXAMPLE = """\b
Examples:
  voicelog-sink verify
  voicelog-sink verify --since 7d --until 2026-11-25
  voicelog-sink verify --json | jq '.missing[]'

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@since_option
@until_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object: topics, missing, gaps")
@with_settings(*SETTINGS)
def command(settings: Settings, since: str, until: str | None, as_json: bool) -> int:
    """Read the topics again and look each message up in the store, by the time at which the broker took it in.

    Says for each topic how many are stored, dead letters, expired, erased, waiting for the sink, or missing: status 1
    where one is missing. Then the calls of which events never reached the broker. Changes nothing.
    """
    now_ms = int(time.time() * 1000)
    from_ms = since_ms(since, now_ms)
    with reading(settings) as store:
        ledger = examined(settings, store, from_ms, since_ms(until, now_ms) if until is not None else None, now_ms)
        lost = list(gaps(store, ledger.sessions))
    if as_json:
        click.echo(shapes.line(shapes.ledger_shape(ledger, lost)))
    else:
        tell(ledger, lost)
    return 1 if ledger.total("missing") else 0


def examined(settings: Settings, store: Store, from_ms: int, until_ms: int | None, now_ms: int) -> Ledger:
    """Return what became of the messages of the time; blocks while all of them are read."""
    TopicAdmin(settings).wait(settings.start_timeout_ms)
    topics = topic_names(settings.topic_prefix)
    standings = GroupAdmin(settings).standings(topics)
    committed = {(s.topic, s.partition): s.committed for s in standings if s.committed is not None}
    erasures = Erasures()
    erasures.load(store)
    retention = Retention(settings.ttl_days)
    retention.load(store)
    with TopicReader(settings) as reader:
        # The dead letters after the topics' ends: what is in neither was not lost in between.
        spans = reader.spans(topics, from_ms)
        rules = Rules(retention.lifetimes, now_ms, until_ms, erasures, dead(settings), committed)
        with progress("reading", sum(span.end - span.start for span in spans.values())) as on_read:
            return verify(store, reader.read(spans), rules, on_read)


def dead(settings: Settings) -> frozenset[tuple[str, int, int]]:
    """Return where the dead letters were before."""
    everything = Filter()
    with DeadLetterReader(settings) as letters:
        return frozenset(
            (letter.topic, letter.topic_partition, letter.topic_offset)
            for letter in letters.letters(letters.spans(), everything)
            if letter.topic is not None and letter.topic_partition is not None and letter.topic_offset is not None
        )


def tell(ledger: Ledger, lost: Sequence[Gap]) -> None:
    """Print the table by topic, what is missing, and the calls with gaps."""
    out = console(table=True)
    outcomes = [Column(name, right=True, rank=RANKS[name]) for name in OUTCOMES]
    columns = [Column("topic"), Column("messages", right=True, rank=1), *outcomes]
    rows = [_row(topic, counts) for topic, counts in sorted(ledger.counts.items())]
    print_table(out, columns, rows or [_row("nothing to read", {})])
    for missing in ledger.missing[:SHOWN]:
        whose = f" of call {missing.session_id}, event {missing.event_id}" if missing.event_id else ", no event"
        place = f"{missing.topic}[{missing.partition}] {missing.offset}"
        print_line(out, Text(one_line(f"missing: {place}{whose}"), "bold red"))
    if len(ledger.missing) > SHOWN:
        out.print(f"... and {ledger.total('missing') - SHOWN:,} more: --json names them")
    for gap in lost[:SHOWN]:
        never = f"{gap.missing:,} of {gap.expected:,} events never reached the broker"
        print_line(out, Text(f"call {one_line(gap.session_id)}: {never}", "yellow"))
    if len(lost) > SHOWN:
        out.print(f"... and {len(lost) - SHOWN:,} more calls: --json names them")


def _row(topic: str, counts: dict[str, int]) -> list[Text | str]:
    cells: list[Text | str] = [topic, f"{sum(counts.get(name, 0) for name in OUTCOMES):,}"]
    for name in OUTCOMES:
        count = counts.get(name, 0)
        cells.append(Text(f"{count:,}", "bold red" if name == "missing" and count else "" if count else "dim"))
    return cells
