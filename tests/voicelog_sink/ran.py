"""What a command printed, for tests that call it in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Ran(NamedTuple):
    """A command's exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """The lines of --json."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]
