"""What the library did, counted: nothing is dropped, refused or swallowed without a number and one warning."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from itertools import count
from typing import Any, NamedTuple

logger = logging.getLogger("voicelog")


class Counter(NamedTuple):
    """One row of the table: a counter's name, its labels' meaning, and what it counts."""

    name: str
    label: str
    help: str


COUNTERS: tuple[Counter, ...] = (
    Counter("produced", "", "events handed to the producer; each is delivered, failed or still queued"),
    Counter("failed", "error", "events that the broker did not acknowledge in delivery_timeout_ms, or refused"),
    Counter(
        "dropped",
        "reason",
        "events that were not handed to the producer: queue_full, spool_full, closed, no_session, encode, refused, "
        "sampled",
    ),
    Counter("invalid", "what", "values of the wrong type, or calls in the wrong place; left out"),
    Counter("redact_failed", "redactor", "texts that a redactor failed on; a note was sent in their place"),
    Counter("cleaned", "", "events with values that are not JSON's, which were written as text"),
    Counter("unpriced", "provider/model", "stages with usage and no cost_usd: the price table lacks what it needs"),
    Counter("cut", "", "events whose texts were cut to what the sink and the broker take"),
    Counter("spooled", "", "events written to files in spool_dir; each is queued until the broker has acknowledged it"),
    Counter("replayed", "", "events of an earlier process, delivered from its files; not in produced"),
    Counter(
        "spool_errors",
        "error",
        "times that the spool's disk refused, events wait in memory then; or that the broker "
        "refused an earlier process's event for good",
    ),
    Counter("spool_corrupt", "", "damaged parts of the spool's files, skipped up to the next sound event"),
    Counter("faults", "where", "errors inside voicelog itself; the program went on"),
)
"""Everything `voicelog.stats()` counts, beside `delivered` and `queued`."""

MAX_LABELS = 500
OTHERS = "others"
"""The label that counts what would be more than MAX_LABELS of a counter, so that names from users can't grow it.

Each counter has a limit of its own: a thousand wrong names must not hide that the queue is full.
"""

_PLAIN = frozenset(row.name for row in COUNTERS if not row.label)


class Counters:
    """Counters by name and label; safe from any thread, never blocks for longer than an addition."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finaliser or signal handler may count while this thread counts
        self._counts: dict[tuple[str, str], int] = defaultdict(int)
        self._labels: dict[str, int] = defaultdict(int)
        self._warned: dict[str, set[str]] = defaultdict(set)
        self._produced = count()
        self.count_produced = self._produced.__next__
        """Adds one to `produced`: without a lock, since next() of a count is one step to every thread."""

    def add(self, name: str, label: str = "", number: int = 1) -> None:
        """Add one, or `number`; to `produced` always one."""
        if name == "produced":
            self.count_produced()
            return
        key = (name, label)
        with self._lock:
            if key not in self._counts:
                if label and self._labels[name] >= MAX_LABELS:
                    key = (name, OTHERS)
                else:
                    self._labels[name] += 1
            self._counts[key] += number

    def get(self, name: str, without: str | None = None) -> int:
        """Return the sum over a counter's labels, leaving out one of them."""
        if name == "produced":
            return int(repr(self._produced)[len("count(") : -1])
        with self._lock:
            return sum(number for (n, label), number in self._counts.items() if n == name and label != without)

    def report(self, name: str, label: str, sentence: str) -> None:
        """Add one, and say `sentence` in a warning the first time that this name and label are reported."""
        self.add(name, label)
        self.warn_once(name, label, sentence)

    def warn_once(self, name: str, label: str, sentence: str) -> None:
        """Say `sentence` in a warning, once a name and label."""
        with self._lock:
            said = self._warned[name]
            first = label not in said and len(said) < MAX_LABELS
            if first:
                said.add(label)
        if first:
            self.say(sentence)

    def say(self, sentence: str) -> None:
        """Say `sentence` in a warning; a logging handler or filter of the program's that raises is counted."""
        try:
            logger.warning("voicelog: %s", sentence)
        except Exception:
            self.add("faults", "warning")

    def snapshot(self) -> dict[str, Any]:
        """Return every counter: a number, or a dict by label where the counter has one."""
        shown: dict[str, Any] = {row.name: 0 if row.name in _PLAIN else {} for row in COUNTERS}
        shown["produced"] = self.get("produced")
        with self._lock:
            for (name, label), number in sorted(self._counts.items()):
                if name in _PLAIN:
                    shown[name] = number
                else:
                    shown[name][label] = number
        return shown
