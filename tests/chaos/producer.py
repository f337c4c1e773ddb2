"""A producer in a process of its own, acks=all: it says of each message where the broker has acknowledged it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import attrs
from confluent_kafka import KafkaError, Message, Producer
from tests.running import Raw

ROOT = Path(__file__).resolve().parents[2]
MAX_QUEUED = 50_000


class Position(NamedTuple):
    """Where a message is."""

    topic: str
    partition: int
    offset: int


Acks = list[Position]
"""The position of each message, in the order in which they were given."""


@attrs.frozen
class Plan:
    """What to produce, how fast, and with which compressions by turns."""

    brokers: str
    prefix: str
    messages: Sequence[Raw]
    per_second: float
    codecs: tuple[str, ...] = ("none",)


class ProducerProcess:
    """A running producer; leaving its block ends it."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        folder.mkdir(exist_ok=True)
        self._plan, self._acks, self._log = folder / "plan", folder / "acks", folder / "log"
        self._plan.write_bytes(pickle.dumps(plan))
        with self._log.open("wb") as output:
            command = [sys.executable, "-m", "tests.chaos.producer", str(self._plan), str(self._acks)]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def running(self) -> bool:
        """Return whether it still produces, or waits for the broker."""
        return self._process.poll() is None

    def acks(self, timeout_s: float = 240.0) -> Acks:
        """Wait for its end and return what was acknowledged: all, or it fails."""
        status = self._process.wait(timeout_s)
        assert status == 0, f"the producer ended with status {status}: {self._log.read_text()}"
        return [Position(*place) for place in json.loads(self._acks.read_text())]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


def run(plan: Plan) -> Acks:
    """Produce the plan's messages and return where each is; raises where the broker has not taken one."""
    producers = [_producer(plan.brokers, codec) for codec in plan.codecs]
    acks: dict[int, Position] = {}
    start_s = time.monotonic()
    for index, message in enumerate(plan.messages):
        producer = producers[index % len(producers)]
        producer.poll(max(0.0, start_s + index / plan.per_second - time.monotonic()))
        while len(producer) > MAX_QUEUED:
            producer.poll(0.1)
        _produce(producer, plan.prefix, index, message, acks)
    left = sum(producer.flush(180) for producer in producers)
    if left or len(acks) < len(plan.messages):
        text = f"{len(plan.messages) - len(acks)} messages were not acknowledged"
        raise RuntimeError(text)
    return [acks[index] for index in range(len(plan.messages))]


def _produce(producer: Producer, prefix: str, index: int, message: Raw, acks: dict[int, Position]) -> None:
    def acknowledged(error: KafkaError | None, found: Message) -> None:
        if error is not None:
            raise RuntimeError(f"message {index} was not acknowledged: {error.str()}")
        acks[index] = Position(found.topic(), found.partition(), found.offset())

    producer.produce(
        prefix + message.topic, message.value, message.key, headers=list(message.headers), on_delivery=acknowledged
    )


def _producer(brokers: str, codec: str) -> Producer:
    return Producer({
        "bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True, "linger.ms": 5, "log_level": 0,
        "compression.type": codec, "message.max.bytes": 16_000_000, "delivery.timeout.ms": 240_000,
        "reconnect.backoff.max.ms": 500,
    })  # fmt: skip


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(pickle.loads(Path(sys.argv[1]).read_bytes()))))
