"""SIGTERM, SIGINT and SIGHUP: the first asks to stop, the second ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stop_on_signals(stop: Callable[[], None], force: Callable[[], None] | None = None) -> Iterator[None]:
    """Call `stop` for the first signal inside the block; only the main thread may enter it.

    A second signal has its default effect: at once, or after `force` where that is given, which has to wait for the
    call that the main thread is in. SIGHUP stays ignored where it is (nohup).
    """

    def first(_number: int, _frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, second if force else signal.SIG_DFL)
        stop()

    def second(number: int, _frame: FrameType | None) -> None:
        if force:
            force()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, first) for number in STOP_SIGNALS if number not in kept}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
