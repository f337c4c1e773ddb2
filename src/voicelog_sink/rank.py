"""Which of two derived rows of one key wins: the number in their column `rows_read`. Pure.

A row that was made from more rows wins, whoever wrote it and when. An erasure outranks every row that was made before
it, although it leaves fewer rows: each adds ERASURE. CQL writes the number as the row's timestamp, which has to stay
below the present in microseconds, and below a deletion's.
"""

from __future__ import annotations

ERASURE = 2**36
"""What one erasure is worth: more than the rows that any one summary or rollup is made from."""

HIGHEST = 2**50 - 1
"""16,383 erasures; 2**50 microseconds were in September 2005."""


def rank_of(rows: int, erasures: int = 0) -> int:
    """Return the rank of what was made from so many rows, after so many erasures."""
    return min(erasures * ERASURE + min(rows, ERASURE - 1), HIGHEST)


def rows_in(rank: int) -> int:
    """Return from how many rows it was made."""
    return rank % ERASURE


def erasures_in(rank: int) -> int:
    """Return after how many erasures it was made."""
    return rank // ERASURE


def erased(rank: int, rows: int = 0) -> int:
    """Return the rank of what an erasure leaves of a row: above it, whatever the number of rows that are left."""
    return rank_of(rows, erasures_in(rank) + 1)
