"""`voicelog-sink dlq`: the dead letters: what is there, what is in one, and sending them back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing

import click

from voicelog.settings import Settings
from voicelog_sink import logs, render_letter, shapes
from voicelog_sink.consumer import topic_names
from voicelog_sink.dlq import Counts, Filter, LetterRow, chunks, order_of, page, refusal, verdict
from voicelog_sink.dlq_options import PLACE, Given, filter_options
from voicelog_sink.dlq_reading import DeadLetterReader, LetterPlace
from voicelog_sink.dlq_replay import Replayed, Replayer
from voicelog_sink.letters import Letter
from voicelog_sink.nearest import NearestGroup
from voicelog_sink.options import BROKER_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.pipeline import Pipeline
from voicelog_sink.progress import progress
from voicelog_sink.reading import reading
from voicelog_sink.render import console, count, print_line

SETTINGS = (*BROKER_SETTINGS, "start_timeout_ms", "log_format")
REPLAY_SETTINGS = (*BROKER_SETTINGS, *STORE_SETTINGS, "log_format", "max_message_bytes", "ttl_days")
CHUNK_LETTERS = 500
CHUNK_BYTES = 16 * 1024 * 1024
MAX_LIMIT = 10_000
"""Lines that are sorted in memory."""

EXAMPLE = """\b
Examples:
  voicelog-sink dlq list --since 24h --reason unsupported_version
  voicelog-sink dlq show 2:17
  voicelog-sink dlq replay --reason unsupported_version --dry-run

"""
LIST_EXAMPLE = """\b
Examples:
  voicelog-sink dlq list
  voicelog-sink dlq list --counts
  voicelog-sink dlq list --reason not_json --topic stt-results --since 7d --limit 100
  voicelog-sink dlq list --json | jq -r '.message'

"""
SHOW_EXAMPLE = """\b
Examples:
  voicelog-sink dlq show 2:17
  voicelog-sink dlq show 2:17 --json | jq -r .value > message.json

"""
REPLAY_EXAMPLE = """\b
Examples:
  voicelog-sink dlq replay --reason unsupported_version --dry-run
  voicelog-sink dlq replay --reason unsupported_version --max-replays 0 --readable
  voicelog-sink dlq replay 2:17 2:18
  voicelog-sink dlq replay --all

"""


@click.group(cls=NearestGroup, epilog=EXAMPLE)
def command() -> None:
    """List, show and send back the dead letters: messages that could not be stored.

    It reads the topic of dead letters to where it ends at the start. It joins no consumer group and commits nothing.
    """


@command.command("list", epilog=LIST_EXAMPLE + secrets_epilog(*SETTINGS))
@filter_options
@click.option("--oldest-first", is_flag=True, help="Begin with the oldest, not with the newest")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=20, show_default=True, help="Most letters to list")
@click.option("--after", type=PLACE, help="Go on behind this letter: the last one of the page before")
@click.option("--counts", "only_counts", is_flag=True, help="Only how many there are, by reason and by topic")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a letter; with --counts one for all")
@with_settings(*SETTINGS)
def list_command(
    settings: Settings,
    given: Given,
    oldest_first: bool,
    limit: int,
    after: LetterPlace | None,
    only_counts: bool,
    as_json: bool,
) -> int:
    """List the dead letters, newest first by when their message came in.

    A letter is named by its partition and offset among the dead letters.
    """
    logs.set_up(settings.log_format, logging.WARNING)
    wanted, counts = given.filter(settings), Counts()
    with DeadLetterReader(settings) as reader:
        order = order_of(next(reader.at([after]))) if after else None
        letters = counts.counting(_read(reader, wanted))
        rows = page(letters, limit, oldest_first=oldest_first, after=order)
    if only_counts and as_json:
        click.echo(shapes.line(shapes.counts_shape(counts)))
    elif not counts.total:
        _say_none(not given.is_empty())
    elif only_counts:
        render_letter.print_counts(console(table=True), counts)
    elif as_json:
        for row in rows:
            click.echo(shapes.line(shapes.letter_row_shape(row)))
    else:
        _print_page(counts, rows, limit)
    return 0


@command.command("show", epilog=SHOW_EXAMPLE + secrets_epilog(*SETTINGS))
@click.argument("letter", type=PLACE)
@click.option(
    "--bytes", "most_bytes", type=click.IntRange(min=1), default=4096, show_default=True,
    help="Most bytes of the value to print",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the whole value")
@with_settings(*SETTINGS)
def show_command(settings: Settings, letter: LetterPlace, most_bytes: int, as_json: bool) -> int:
    """Show a dead letter: why it is here, where it was, its headers and its value.

    LETTER is PARTITION:OFFSET, as the list says. The value is printed as text where it is UTF-8, with control
    characters written out, and in hexadecimal digits otherwise.
    """
    logs.set_up(settings.log_format, logging.WARNING)
    with DeadLetterReader(settings) as reader:
        found = next(reader.at([letter]))
    if as_json:
        click.echo(shapes.line(shapes.letter_shape(found)))
    else:
        render_letter.print_letter(console(), found, most_bytes)
    return 0


@command.command("replay", epilog=REPLAY_EXAMPLE + secrets_epilog(*REPLAY_SETTINGS))
@click.argument("letters", type=PLACE, nargs=-1)
@filter_options
@click.option("--all", "everything", is_flag=True, help="All of them: without it, something has to say which")
@click.option("--readable", is_flag=True, help="Only those that would be stored now; asks the store what was erased")
@click.option("--dry-run", is_flag=True, help="Send nothing; say of each what would become of it; asks the store")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a letter")
@with_settings(*REPLAY_SETTINGS)
def replay_command(
    settings: Settings,
    letters: tuple[LetterPlace, ...],
    given: Given,
    everything: bool,
    readable: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Send dead letters back to the topics that they were in, unchanged, for the sink to take them up again.

    Key, value and headers are as they were, with one header more: voicelog.replayed, how often it was sent back. What
    was stored already is stored once, however often it is replayed. What fails again becomes a new dead letter, whose
    replays --max-replays can tell from the old one's. Status 1 when any was not acknowledged.
    """
    logs.set_up(settings.log_format, logging.WARNING)
    _check_which(letters, given, everything)
    wanted = given.filter(settings)
    pipeline, now_ms = Pipeline(settings.max_message_bytes, settings.ttl_days), int(time.time() * 1000)
    if readable or dry_run:
        with reading(settings) as store:
            pipeline.load(store)
    with DeadLetterReader(settings) as reader:
        found: Iterable[Letter] = reader.at(letters) if letters else _read(reader, wanted, silent=dry_run or as_json)
        if readable:
            found = (letter for letter in found if verdict(letter, pipeline, now_ms).is_readable)
        if dry_run:
            total = _tell(found, settings, pipeline, now_ms, as_json)
            failed = 0
        else:
            total, failed = _replay(found, settings, as_json)
    if not total:
        _say_none(readable or not given.is_empty())
    return 1 if failed else 0


def _read(reader: DeadLetterReader, wanted: Filter, *, silent: bool = False) -> Iterator[Letter]:
    spans = reader.spans(wanted.since_ms)
    if silent:
        yield from reader.letters(spans, wanted)
        return
    with progress("reading", sum(span.end - span.start for span in spans.values())) as on_read:
        yield from reader.letters(spans, wanted, on_read)


def _print_page(counts: Counts, rows: list[LetterRow], limit: int) -> None:
    out = console(table=True)
    print_line(out, render_letter.counts_line(counts))
    if rows:
        render_letter.print_list(out, rows)
    if len(rows) == limit and counts.total > limit:
        click.echo(f"{limit:,} of {counts.total:,}: --after {rows[-1].place} has the next", err=True)


def _say_none(filtered: bool) -> None:
    click.echo("no dead letters" if not filtered else "no dead letters that the filters let through", err=True)


def _check_which(letters: tuple[LetterPlace, ...], given: Given, everything: bool) -> None:
    said = [bool(letters), not given.is_empty(), everything]
    if not any(said):
        message = "which letters? Expected PARTITION:OFFSET, a filter such as --reason or --since, or --all"
        raise click.UsageError(message)
    if sum(said) > 1:
        message = "expected one of: letters by PARTITION:OFFSET, filters, --all; more than one was given"
        raise click.UsageError(message)


def _tell(letters: Iterable[Letter], settings: Settings, pipeline: Pipeline, now_ms: int, as_json: bool) -> int:
    """Say of each letter what would become of it; return how many there are."""
    out, topics, total, good = console(), topic_names(settings.topic_prefix), 0, 0
    for letter in letters:
        found, failure = verdict(letter, pipeline, now_ms), refusal(letter, topics)
        total += 1
        good += found.is_readable and failure is None
        if as_json:
            click.echo(shapes.line(shapes.verdict_shape(letter, found, failure)))
        else:
            out.print(render_letter.verdict_line(letter, found, failure), soft_wrap=True)
    if total and not as_json:
        click.echo(f"{good:,} of {count(total, 'dead letter')} would be stored now; nothing was sent")
    return total


def _replay(letters: Iterable[Letter], settings: Settings, as_json: bool) -> tuple[int, int]:
    """Send the letters, a chunk after another; return how many there were and how many were not sent."""
    sent, failed, topics = Counts(), 0, topic_names(settings.topic_prefix)
    with closing(Replayer(settings)) as replayer:
        for chunk in chunks(letters, CHUNK_LETTERS, CHUNK_BYTES):
            for letter, failure in _sent(replayer, chunk, topics):
                if failure is None:
                    sent.add(letter)
                else:
                    failed += 1
                _report(letter, failure, as_json)
    if sent.total and not as_json:
        click.echo(f"sent {count(sent.total, 'message')} back: {render_letter.topics_line(sent.topics)}")
    return sent.total + failed, failed


def _sent(replayer: Replayer, chunk: list[Letter], topics: list[str]) -> Iterator[Replayed]:
    refused = [Replayed(letter, why) for letter in chunk if (why := refusal(letter, topics))]
    yield from refused
    yield from replayer.send([letter for letter in chunk if refusal(letter, topics) is None])


def _report(letter: Letter, failure: str | None, as_json: bool) -> None:
    if as_json:
        click.echo(shapes.line(shapes.replay_shape(letter, failure)))
    elif failure:
        click.echo(render_letter.place_line(letter, f"not sent: {failure}"), err=True)
