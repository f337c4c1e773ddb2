"""What was sent, and where the brokers have it: what every case is held to."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import attrs
from tests.chaos.load import Sent
from tests.chaos.producer import Acks, Plan, Position, ProducerProcess
from tests.real.sinks import Place


@attrs.frozen
class Truth:
    """What was sent, and where the broker says that each message is."""

    sent: Sequence[Sent]
    acks: Acks

    def __add__(self, other: Truth) -> Truth:
        return Truth([*self.sent, *other.sent], [*self.acks, *other.acks])

    def by_position(self) -> dict[Position, Sent]:
        """Return the messages by their positions."""
        return dict(zip(self.acks, self.sent, strict=True))


def producing(
    folder: Path, place: Place, sent: Sequence[Sent], per_second: float, codecs: tuple[str, ...] = ("none",)
) -> ProducerProcess:
    """Start a producer of these messages."""
    plan = Plan(place.brokers, place.prefix, [one.message for one in sent], per_second, codecs)
    return ProducerProcess(folder / f"producer-{secrets.token_hex(3)}", plan)


def produced(folder: Path, place: Place, sent: Sequence[Sent], codecs: tuple[str, ...] = ("none",)) -> Truth:
    """Produce these messages at once, and return the truth about them."""
    with producing(folder, place, sent, 1e9, codecs) as producer:
        return Truth(sent, producer.acks())
