"""What a restore did, or would do."""

from __future__ import annotations

import attrs


@attrs.define
class Counts:
    """What became of a table's rows: `there` are in the store already, or something newer is."""

    written: int = 0
    there: int = 0
    expired: int = 0
    erased: int = 0
    refused: int = 0


@attrs.define
class Restored:
    """What a restore did, or would do: rows by table, files that are not as they were written, rows that were refused.

    `calls` and `hours` are those that a sink will derive anew; `erased` are rows that the store had of what was erased.
    """

    tables: dict[str, Counts] = attrs.Factory(dict)
    damaged: list[str] = attrs.Factory(list)
    refusals: list[str] = attrs.Factory(list)
    calls: int = 0
    hours: int = 0
    erased: int = 0
