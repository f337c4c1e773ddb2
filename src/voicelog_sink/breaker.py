"""The breaker: tells a store that refuses what it should take from a row that no store would take. Pure.

One bad row goes to the dead letters. A table that takes none, or refuses most of what comes, is wrong itself: going on
would empty the topics into the dead letters. Counted by table, since a schema that does not fit, or a right that was
taken away, may concern one of them, and over batches, since they may be small.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from voicelog_sink.stores.base import Rejected, Row

MAX_CONSECUTIVE = 100
"""Rows of a table that were refused one after the other, none taken between them."""
MAX_RATIO = 0.5
"""Of the last rows of a table, once there are MIN_ROWS."""
MIN_ROWS = 500
OWN_FAULT = "RowError"
"""A row that could not even be encoded for the store: its own fault, however many there are."""
MEMORY_ROWS = 4_000
"""Where so many rows of a table were counted, both counts are halved: what is long ago weighs less and less."""


@attrs.define
class _Counts:
    rows: int = 0
    refused: int = 0
    consecutive: int = 0

    def add(self, refused: bool) -> None:
        self.rows += 1
        self.refused += refused
        self.consecutive = self.consecutive + 1 if refused else 0
        if self.rows >= MEMORY_ROWS:
            self.rows //= 2
            self.refused //= 2


class Breaker:
    """Counts what the store takes and refuses, table by table. Used by one thread."""

    def __init__(self, max_consecutive: int = MAX_CONSECUTIVE, max_ratio: float = MAX_RATIO) -> None:
        """Trip after `max_consecutive` refusals, or above `max_ratio` of them."""
        self._max_consecutive = max_consecutive
        self._max_ratio = max_ratio
        self._tables: dict[str, _Counts] = {}

    def note(self, rows: Sequence[Row], rejected: Sequence[Rejected]) -> str | None:
        """Count the rows of one write; return why the store must be what is wrong, None where it need not be.

        To be called before anything of the write goes to the dead letters; what it returns is a sentence for an
        operator, and says that nothing was moved.
        """
        if not rejected and not self._tables:
            return None
        first: dict[str, Rejected] = {}
        refusals = {refusal.index: refusal for refusal in rejected}
        for index, row in enumerate(rows):
            refusal = refusals.get(index)
            if refusal is not None and refusal.error == OWN_FAULT:
                continue
            if refusal is not None or row.table in self._tables:
                self._tables.setdefault(row.table, _Counts()).add(refusal is not None)
            if refusal is not None:
                first.setdefault(row.table, refusal)
        sentences = [self._judge(table, refusal) for table, refusal in first.items()]
        self._forget_the_good()
        return next((sentence for sentence in sentences if sentence), None)

    def _judge(self, table: str, refusal: Rejected) -> str | None:
        counts = self._tables[table]
        if counts.consecutive >= self._max_consecutive:
            what = f"the store has refused the last {counts.consecutive} rows of {table}, and taken none between them"
        elif counts.rows >= MIN_ROWS and counts.refused > counts.rows * self._max_ratio:
            what = f"the store has refused {counts.refused} of the last {counts.rows} rows of {table}"
        else:
            return None
        return (
            f"{what}, now for: {refusal.message}; nothing of this batch was moved to the dead letters, no offset was "
            "moved: `voicelog-sink init --only store --check` says what is wrong with the schema"
        )

    def _forget_the_good(self) -> None:
        """Stop counting tables of which nothing was refused for long, so that a healthy store costs nothing."""
        for table in [table for table, counts in self._tables.items() if not counts.refused]:
            del self._tables[table]
