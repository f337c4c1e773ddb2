"""Identities: random once a session, counted from there."""

from __future__ import annotations

import os
import uuid
from typing import Protocol


class Ids(Protocol):
    """Where new ids come from; `voicelog.testing.CountingIds` is the other one."""

    def session(self) -> str:
        """Return a session id for a call that was given none."""

    def stream(self) -> str:
        """Return the id of a stream of events: 16 hex digits."""


class RandomIds:
    """Ids that are unique everywhere."""

    def session(self) -> str:
        """Return a random UUID."""
        return str(uuid.uuid4())

    def stream(self) -> str:
        """Return 16 random hex digits."""
        return os.urandom(8).hex()
