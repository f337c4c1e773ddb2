"""How far an export is, drawn on stderr where that is a terminal: how many rows, how fast, and how far back.

Rows that come newest first have a bar, since it is known how much of their period lies behind them. Of the others
nobody knows how many there will be without reading all of them: they are counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from voicelog_sink.export import Export, Rows
from voicelog_sink.render import console, moment

TELL_EVERY = 100
"""Rows between two looks of the bar."""
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())


@contextmanager
def told(rows: Rows, export: Export, since_ms: int | None) -> Iterator[Rows]:
    """Give the rows, which are told of while they go by; those of a period go back to `since_ms` (epoch)."""
    if not sys.stderr.isatty():
        yield rows
        return
    out = console(sys.stderr)
    with Progress(*COLUMNS, console=out, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        yield counted(rows, export, since_ms, bar)


def counted(
    rows: Rows, export: Export, since_ms: int | None, bar: Progress, clock: Callable[[], float] = time.monotonic
) -> Rows:
    """Yield the rows, and set the bar to the first and every TELL_EVERYth; it ends at `since_ms`, if that is known."""
    column = None if since_ms is None else export.newest_first_by
    task, begin_s = bar.add_task(f"no {export.name} yet", total=None), clock()
    newest_ms = reached_ms = 0
    for number, row in enumerate(rows, 1):
        if column and number == 1:
            newest_ms = reached_ms = row[column]
            bar.update(task, total=max(newest_ms - (since_ms or 0), 1))
        if column:  # of every row, since a call's later events are less far back than it is
            reached_ms = min(reached_ms, row[column])
        if number % TELL_EVERY == 0:
            said = f"{number:,} {export.name}, {number / max(clock() - begin_s, 0.001):,.0f}/s"
            back = f", back to {moment(reached_ms)}" if column else ""
            bar.update(task, description=said + back, completed=newest_ms - reached_ms if column else number)
        yield row
