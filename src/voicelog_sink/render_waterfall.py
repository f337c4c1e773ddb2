"""A waterfall as lines of text: one a stage, under an axis and the span of the turn's latency."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from rich.text import Text

from voicelog_sink.render import (
    NOTHING,
    OTHER_STAGE_STYLE,
    STAGE_STYLES,
    STATUS_STYLES,
    Glyphs,
    ms,
    one_line,
    styled,
)
from voicelog_sink.waterfall import OPEN, Bar, Span, Waterfall

MIN_BAR_CELLS = 16
NUMBER_CELLS = 7
"""The least that a number takes, with the gap before it."""

TICKS_APART = 8
LATENCY_LABEL = styled("  user to bot", "bold")
NAME_SHARE = 0.34
"""The part of a line's width that names may take."""


@attrs.frozen
class Columns:
    """How a line's cells are shared out."""

    names: int
    numbers: int
    bars: int


def lines(waterfall: Waterfall, width: int, glyphs: Glyphs) -> Iterator[Text]:
    """Yield the lines, none wider than `width` unless that is very narrow."""
    labels = [_label(bar, glyphs) for bar in waterfall.bars]
    longest = max(LATENCY_LABEL.cell_len if waterfall.latency_ms else 0, *(label.cell_len for label in labels))
    columns = _columns(waterfall, longest, width)
    yield _axis(waterfall, columns)
    if waterfall.latency_ms:
        yield _latency(waterfall, columns, glyphs)
    for bar, label in zip(waterfall.bars, labels, strict=True):
        yield _line(waterfall, bar, label, columns, glyphs)


def _columns(waterfall: Waterfall, longest: int, width: int) -> Columns:
    names = min(longest, max(int(width * NAME_SHARE), 14))
    numbers = max(NUMBER_CELLS, len(ms(waterfall.span_ms)) + 2)
    return Columns(names, numbers, max(width - names - 3 * numbers - 2, MIN_BAR_CELLS))


def _label(bar: Bar, glyphs: Glyphs) -> Text:
    marks = {"error": glyphs.failed, "interrupted": glyphs.stopped, "cancelled": glyphs.stopped, "open": glyphs.open}
    label = styled(f"{marks.get(bar.status, ' ')} ", STATUS_STYLES.get(bar.status, ""))
    label.append("  " * (bar.depth - 1) + glyphs.child if bar.depth else "", "dim")
    label.append(one_line(bar.name), _style(bar))
    label.append(f" {one_line(bar.provider)}" if bar.provider else "", "dim")
    return label


def _style(bar: Bar) -> str:
    return STAGE_STYLES.get(bar.event.stage or "", OTHER_STAGE_STYLE)


def _head(label: Text, numbers: tuple[str, str, str], columns: Columns, glyphs: Glyphs | None = None) -> Text:
    line = label.copy()
    if line.cell_len > columns.names and glyphs:
        line.truncate(columns.names - 1)
        line.append(glyphs.ellipsis)
    line.append(" " * (columns.names - line.cell_len))
    for number in numbers:
        line.append(number.rjust(columns.numbers))
    return line.append("  ")


def _axis(waterfall: Waterfall, columns: Columns) -> Text:
    line = _head(Text(""), ("start", "took", "first"), columns)
    line.stylize("dim")
    scale = ""
    for cell, tick_ms in waterfall.ticks(columns.bars, TICKS_APART):
        text = ms(tick_ms) if tick_ms else "0 ms"
        if cell + len(text) <= columns.bars:
            scale = scale.ljust(cell) + text
    return line.append(scale, "dim")


def _latency(waterfall: Waterfall, columns: Columns, glyphs: Glyphs) -> Text:
    start_ms, end_ms = waterfall.latency_ms or (0.0, 0.0)
    start, end = waterfall.between(start_ms, end_ms, columns.bars)
    inner, label = end - start - 2, f" {ms(end_ms - start_ms)} "
    text = glyphs.left + (label if inner >= len(label) else "").center(max(inner, 0), glyphs.line) + glyphs.right
    name = LATENCY_LABEL
    line = _head(name, (ms(start_ms), ms(end_ms - start_ms), ""), columns, glyphs)
    return line.append(" " * start).append(text[: max(end - start, 1)], "bold")


def _line(waterfall: Waterfall, bar: Bar, label: Text, columns: Columns, glyphs: Glyphs) -> Text:
    numbers = (ms(bar.start_ms), ms(bar.duration_ms), NOTHING if bar.first_item_ms is None else ms(bar.first_item_ms))
    line = _head(label, numbers, columns, glyphs)
    cells = _cells(waterfall, bar, columns.bars)
    before, after = _status_around(bar, cells, columns.bars)
    style = STATUS_STYLES.get(bar.status, "")
    line.append(before, style)
    line.append(glyphs.waiting * cells.waiting, f"dim {_style(bar)}")
    line.append(glyphs.running * cells.running, "bold red" if bar.status == "error" else _style(bar))
    return line.append(after, style)


def _cells(waterfall: Waterfall, bar: Bar, width: int) -> Span:
    """Return a bar's cells; an open one is all waiting, and ends where its status has room."""
    cells = waterfall.cells(bar, width)
    if bar.status != OPEN:
        return cells
    length = cells.end - cells.skip
    return Span(cells.skip, length - len(OPEN) - 1 if length > 2 * len(OPEN) else length, 0)


def _status_around(bar: Bar, cells: Span, width: int) -> tuple[str, str]:
    """Return what stands before and after the bar: how it ended, if not well, where there is room for it."""
    word = "" if bar.status == "ok" else one_line(bar.status)
    if word and cells.end + 1 + len(word) <= width:
        return " " * cells.skip, f" {word}"
    if word and len(word) + 1 <= cells.skip:
        return f"{word} ".rjust(cells.skip), ""
    return " " * cells.skip, ""
