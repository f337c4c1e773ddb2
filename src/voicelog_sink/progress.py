"""A progress bar on stderr, where that is a terminal: for a command that reads for long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

from voicelog_sink.render import console


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., object]]:
    """Give what is to be called once for each of `total` things that is done, or with how many.

    The bar goes away at the end. For a block that prints nothing: what it writes would go through the bar.
    """
    if not sys.stderr.isatty():
        yield lambda _=1: None
        return
    # What goes to stdout stays there: rich would send it to the bar's console, and so to stderr.
    with Progress(console=console(sys.stderr), transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done=1: bar.advance(task, done)
