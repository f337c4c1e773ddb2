"""Dead letters for people: the list, one of them whole, and what a replay would make of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from voicelog_sink.dlq import ERASED, EXPIRED, Counts, LetterRow, Verdict
from voicelog_sink.letters import Letter, session_of, text_of
from voicelog_sink.render import (
    NOTHING,
    Column,
    count,
    escaped,
    moment,
    one_line,
    print_table,
    styled,
)

COLUMNS = (
    Column("letter"), Column("came in (UTC)", rank=2), Column("reason"), Column("topic", rank=4),
    Column("session", rank=3), Column("bytes", right=True, rank=5), Column("replays", right=True, rank=6),
    Column("message", shrink=True, rank=1),
)  # fmt: skip
HEX_WIDTH = 16
INDENT = "  "


def counts_line(counts: Counts) -> Text:
    """Return how many letters there are of which reason."""
    return Text.assemble((count(counts.total, "dead letter"), "bold"), ": ", _most(counts.reasons))


def print_list(out: Console, rows: Sequence[LetterRow]) -> None:
    """Print letters, a line each."""
    print_table(out, COLUMNS, [_row(row) for row in rows])


def print_counts(out: Console, counts: Counts) -> None:
    """Print how many letters there are by reason, and by topic."""
    for name, found in (("reason", counts.reasons), ("topic", counts.topics)):
        rows = [[_known(key), f"{number:,}"] for key, number in found.most_common()]
        print_table(out, (Column(name), Column("letters", right=True)), rows)
        if name == "reason":
            out.print()


def print_letter(out: Console, letter: Letter, most_bytes: int) -> None:
    """Print a letter: why it is here, where it was, what is in it; of its value at most `most_bytes` bytes."""
    for line in _lines(letter, most_bytes):
        out.print(line, soft_wrap=True)


def verdict_line(letter: Letter, found: Verdict, failure: str | None) -> Text:
    """Return what a replay would make of a letter, in a line."""
    return Text.assemble(*_who(letter), _outcome(letter, found, failure))


def place_line(letter: Letter, what: str) -> str:
    """Return a letter's place and topic with what is to be said of it, in a line."""
    return f"dead letter {letter.place} of {_known(letter.topic)}: {one_line(what)}"


def topics_line(sent: Counter[str | None]) -> str:
    """Return how many letters went to which topic."""
    return ", ".join(f"{number:,} to {_known(topic)}" for topic, number in sent.most_common())


def _most(found: Counter[str | None]) -> str:
    return ", ".join(f"{number:,} {_known(key)}" for key, number in found.most_common())


def _known(text: str | None) -> str:
    return one_line(text) if text else "unknown"


def _row(row: LetterRow) -> list[Text | str]:
    return [
        Text(row.place, "bold"), moment(row.at), Text(_known(row.reason), "yellow"), one_line(row.topic or NOTHING),
        one_line(row.session_id or NOTHING), f"{row.size_bytes:,}",
        Text(str(row.replays), "yellow" if row.replays else "dim"), one_line(row.message or NOTHING),
    ]  # fmt: skip


def _who(letter: Letter) -> Iterator[Text | str]:
    yield Text(letter.place, "bold")
    for text in (letter.topic, session_of(letter), letter.reason):
        yield f"  {one_line(text or NOTHING)}"
    yield "  "


def _outcome(letter: Letter, found: Verdict, failure: str | None) -> Text:
    if failure:
        return Text(f"can't be sent back: {one_line(failure)}", "bold red")
    if found.is_readable:
        return Text("would be stored now", "green")
    if found.outcome in (EXPIRED, ERASED):
        return Text(f"would not be stored: {one_line(found.message or '')}", "yellow")
    again = "still" if found.outcome == letter.reason else "would be"
    return Text(f"{again} {found.outcome}: {one_line(found.message or '')}", "yellow")


def _lines(letter: Letter, most_bytes: int) -> Iterator[Text]:
    times = f" · replayed {count(letter.replays, 'time')}" if letter.replays else ""
    head = f" · {_known(letter.reason)} · {moment(letter.at_ms)} · {count(letter.size_bytes, 'byte')}{times}"
    yield Text.assemble((letter.place, "bold"), head)
    yield from _facts(letter)
    yield from _block("stack", letter.stack)
    yield from _headers(letter)
    yield from _value(letter.value, most_bytes)


def _facts(letter: Letter) -> Iterator[Text]:
    if letter.topic:
        yield _fact("was in", f"{letter.topic}[{letter.topic_partition}] at offset {letter.topic_offset}")
    yield _fact("session", session_of(letter))
    yield _fact("key", _shown(letter.key))
    at = f" in {letter.stage}" if letter.stage else ""
    yield _fact("error", f"{letter.error}{at}, sink {letter.sink_version}" if letter.error else None)
    yield from _block("", letter.message)


def _fact(name: str, text: str | None) -> Text:
    return Text.assemble((f"{name:<9}", "dim"), one_line(escaped(text)) if text else NOTHING)


def _block(name: str, text: str | None) -> Iterator[Text]:
    if not text:
        return
    if name:
        yield styled(name, "dim")
    for line in escaped(text).splitlines():
        yield Text(INDENT + line)


def _headers(letter: Letter) -> Iterator[Text]:
    if letter.headers:
        yield styled("headers", "dim")
    for name, value in letter.headers:
        yield Text(f"{INDENT}{one_line(escaped(name))}: {NOTHING if value is None else one_line(_shown(value) or '')}")


def _shown(value: bytes | None) -> str | None:
    text = text_of(value)
    return escaped(text) if text is not None else value.hex(" ") if value is not None else None


def _value(value: bytes | None, most_bytes: int) -> Iterator[Text]:
    if not value:
        yield styled("no value" if value is None else "empty value", "dim")
        return
    more = f", the first {most_bytes:,} of {len(value):,} bytes" if len(value) > most_bytes else ""
    text = text_of(value)
    yield styled(f"value, {'text' if text is not None else 'bytes'}{more}", "dim")
    part = value[:most_bytes]
    lines = _hex(part) if text is None else escaped(part.decode(errors="ignore")).splitlines()
    yield from (Text(INDENT + line) for line in lines)


def _hex(part: bytes) -> Iterator[str]:
    for begin in range(0, len(part), HEX_WIDTH):
        row = part[begin : begin + HEX_WIDTH]
        seen = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{begin:08x}  {row.hex(' '):<{HEX_WIDTH * 3 - 1}}  {seen}"
