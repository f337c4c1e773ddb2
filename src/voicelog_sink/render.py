"""What all that is printed for people has in common: the console, safe text, numbers with their units."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Literal

import attrs
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 100
"""Columns of what is laid out for a width, where there is neither a terminal nor COLUMNS."""

UNLIMITED = 10_000
"""Columns of a table that goes into a pipe: nothing is cut off."""

GAP = 2
"""Columns between those of a table."""

LEAST_WIDTH = 40
"""Columns that are laid out for at the least, however few the terminal or COLUMNS has."""

USUAL_SIZE = os.terminal_size((80, 25))
"""Columns and lines of a terminal that does not say how many it has."""

SHRUNK = 24
"""Columns that a text which may shrink keeps."""

NOTHING = "-"

STAGE_STYLES = {"stt": "cyan", "llm": "magenta", "tts": "green", "tool": "yellow"}
OTHER_STAGE_STYLE = "blue"
STATUS_STYLES = {"error": "bold red", "interrupted": "yellow", "cancelled": "yellow", "open": "bold yellow"}
OWNER_STYLES = {"service": "cyan", "setting": "yellow", "bot": "magenta", "pipeline": "blue"}

_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


@attrs.frozen
class Glyphs:
    """The characters that pictures are made of."""

    waiting: str
    running: str
    left: str
    line: str
    right: str
    child: str
    failed: str
    stopped: str
    open: str
    dot: str
    ellipsis: str


UNICODE = Glyphs("░", "█", "├", "─", "┤", "└ ", "✗", "‖", "…", "·", "…")
ASCII = Glyphs(".", "#", "|", "-", "|", "+ ", "x", "!", ">", "|", "~")


def console(file: IO[str] | None = None, *, table: bool = False) -> Console:
    """Return the console for stdout (or `file`): colours only on a terminal and without NO_COLOR.

    On a terminal, and where COLUMNS says so, things are as wide as that, but for LEAST_WIDTH; in a pipe a `table` is
    as wide as it needs.
    """
    stream = file or sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    size = _size(stream, UNLIMITED if table else PIPED_WIDTH)
    return Console(
        file=stream, width=size.columns, height=size.lines, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def _size(stream: IO[str], piped: int) -> os.terminal_size:
    """Return columns and lines to lay out for; a COLUMNS that is no whole number above 0 is taken for none."""
    terminal = _terminal_size(stream) if stream.isatty() else os.terminal_size((piped, USUAL_SIZE.lines))
    said = os.environ.get("COLUMNS", "")
    columns = int(said) if re.fullmatch(r"0*[1-9][0-9]{0,8}", said) else terminal.columns
    return os.terminal_size((max(columns, LEAST_WIDTH), terminal.lines))


def _terminal_size(stream: IO[str]) -> os.terminal_size:
    """Return the terminal's columns and lines, the usual ones where it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return USUAL_SIZE
    return size if all(size) else USUAL_SIZE


def glyphs(console: Console) -> Glyphs:
    """Return the characters that the console's encoding has."""
    return UNICODE if console.encoding.lower().replace("-", "").startswith("utf") else ASCII


@attrs.frozen
class Column:
    """A table's column.

    With a `rank` it is left out where there is no room: the highest first, those of the same rank together. Nothing is
    cut but a text that may `shrink`, between two words.
    """

    heading: str
    right: bool = attrs.field(default=False, kw_only=True)
    rank: int = attrs.field(default=0, kw_only=True)
    shrink: bool = attrs.field(default=False, kw_only=True)


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text | str]]) -> None:
    """Print a table without lines, as wide as its cells are, without the columns that `console` has no room for.

    Where there is no room for those that can't be left out, its lines are longer than the console is wide.
    """
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    widths = _widths(columns, rows)
    kept = _fitting(columns, widths, console.width)
    fixed = sum(widths[column] + GAP for column in kept if not columns[column].shrink)
    for column in kept:
        if columns[column].shrink:
            widths[column] = min(widths[column], max(_least(columns[column], widths[column]), console.width - fixed))
        justify: Literal["left", "right"] = "right" if columns[column].right else "left"
        made.add_column(columns[column].heading, justify=justify, no_wrap=True, width=widths[column])
    for row in rows:
        made.add_row(*(_shortened(_cell(row[column]), widths[column], console) for column in kept))
    options = console.options.update(width=sum(widths[column] + GAP for column in kept))
    for line in console.render_lines(made, options, pad=False):
        console.print(_without_end(line), no_wrap=True, crop=False, overflow="ignore")


def print_line(console: Console, line: Text) -> None:
    """Print a line, broken between words where it is longer than the console is wide; a word, as an id, never is."""
    longest = max(map(cell_len, line.plain.split()), default=0)
    for part in line.wrap(console, max(console.width, longest)):
        part.rstrip()
        console.print(part, no_wrap=True, crop=False, overflow="ignore")


def _without_end(line: Sequence[Segment]) -> Text:
    """Return the line without the blanks at its end."""
    text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
    text.rstrip()
    return text


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Text | str]]) -> list[int]:
    """Return what each column needs for its heading and cells."""
    return [
        max([cell_len(column.heading), *(_cell(row[index]).cell_len for row in rows)])
        for index, column in enumerate(columns)
    ]


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Return the indexes of the columns that fit side by side."""
    least = [_least(column, need) for column, need in zip(columns, widths, strict=True)]
    kept = list(range(len(columns)))
    for rank in sorted({column.rank for column in columns} - {0}, reverse=True):
        if sum(least[index] + GAP for index in kept) - GAP > width:
            kept = [index for index in kept if columns[index].rank != rank]
    return kept


def _least(column: Column, need: int) -> int:
    """Return the least that a column takes which needs so much."""
    return min(need, max(SHRUNK, cell_len(column.heading))) if column.shrink else need


def _shortened(cell: Text, width: int, console: Console) -> Text:
    """Return the cell with as many of its words as there is room for: half a number would be another one."""
    if cell.cell_len <= width:
        return cell
    end, ellipsis = 0, glyphs(console).ellipsis
    for word in re.finditer(r"\S+", cell.plain):
        if cell_len(cell.plain[: word.end()]) + 1 + cell_len(ellipsis) > width:
            break
        end = word.end()
    return cell[:end].append(f" {ellipsis}" if end else ellipsis)


def _cell(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def styled(text: str, style: str) -> Text:
    """Return text of which only this has the style: what is appended to a Text(text, style) would have it too."""
    return Text().append(text, style)


def safe(text: str) -> str:
    """Return text that can't command the terminal: control characters and such that turn it around are replaced."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _commands(char) else char for char in text.expandtabs(4))


def escaped(text: str) -> str:
    """Return text in which what would command the terminal is written out as Python does; line breaks are kept."""
    return "".join(char.encode("unicode_escape").decode() if _commands(char) else char for char in text.expandtabs(4))


def one_line(text: str) -> str:
    """Return safe text without line breaks."""
    return safe(" ".join(text.split()))


def _commands(char: str) -> bool:
    return (unicodedata.category(char) == "Cc" and char != "\n") or ord(char) in _BIDI


def ms(value: float | None) -> str:
    """Return milliseconds without their unit: whole ones, with a decimal below 10."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 9.95 or value == int(value) else f"{value:.1f}"


def signed(text: str) -> str:
    """Return a number that is printed so with its sign; what is printed as zero has none."""
    if not any(digit in text for digit in "123456789"):
        return text.lstrip("+-")
    return text if text.startswith(("+", "-")) else f"+{text}"


def span(value_ms: float | None) -> str:
    """Return a length of time with its unit."""
    if value_ms is None:
        return NOTHING
    if value_ms < 1000:
        return f"{ms(value_ms)} ms"
    if value_ms < 120_000:
        return f"{value_ms / 1000:.1f} s"
    minutes, seconds = divmod(round(value_ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def usd(value: float | None) -> str:
    """Return US dollars: cents, and as many digits more as a small amount needs."""
    if value is None:
        return NOTHING
    return f"${value:.2f}" if abs(value) >= 1 or value == 0 else f"${value:.4f}"


def per_minute(value: float) -> str:
    """Return how many a minute: whole ones, with decimals below 10, and what is rarer as `<0.01`."""
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 9.995 or value == 0 else f"{value:.2f}"


def moment(at_ms: int | None) -> str:
    """Return a moment, UTC, to the second."""
    if at_ms is None:
        return NOTHING
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
