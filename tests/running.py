"""The sink as its users run it: processes, their output, and what is in the topics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from voicelog import wire
from voicelog.events import Event

SINK = (sys.executable, "-m", "voicelog_sink")

ASKABLE = "fetch.wait.max.ms=20"
"""For what asks the embedded broker while it reads: that answers nothing on a connection while a fetch waits there."""


class Raw(NamedTuple):
    """A message for a topic, which need not be an event."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0, every_s: float = 0.05) -> Any:
    """Return the condition's first true value; fail with `what` after `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(every_s)
    return value


def environment(**settings: Any) -> dict[str, str]:
    """Return the environment for a sink process: the caller's, with these settings."""
    return {**os.environ, **{f"VOICELOG_{name.upper()}": str(value) for name, value in settings.items()}}


def sink(*args: str, timeout_s: float = 120.0, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run `voicelog-sink` to its end."""
    return subprocess.run(
        [*SINK, *args], env=environment(**settings), capture_output=True, text=True, timeout=timeout_s, check=False
    )


class RunningSink:
    """A `voicelog-sink` process in the background; what it writes is in `log`."""

    def __init__(self, log: Path, *args: str, **settings: Any) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*SINK, *args], env=environment(**settings), stdout=output, stderr=subprocess.STDOUT
            )

    def wait_for(self, text: str, timeout_s: float = 60.0) -> str:
        """Return the first line with this text, once it was written."""

        def line() -> str | None:
            assert self.process.poll() is None or text in self.output(), f"ended without {text!r}: {self.output()}"
            return next((line for line in self.output().splitlines() if text in line), None)

        return str(wait_until(line, f"{text!r} in the output, which is:\n{self.output()}", timeout_s))

    def output(self) -> str:
        """Return all that was written so far."""
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """Send the signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def running_sink(log: Path, *args: str, **settings: Any) -> Iterator[RunningSink]:
    """Run `voicelog-sink` for the length of the block."""
    running = RunningSink(log, *args, **settings)
    try:
        yield running
    finally:
        running.kill()


def message_of(event: Event) -> Raw:
    """Return the event as a message."""
    topic, key, value, headers = wire.encode(event)
    return Raw(topic, value, key, headers)


def produce(brokers: str, messages: Iterable[Raw], prefix: str = "") -> int:
    """Produce the messages in their order and return how many, once the broker has acknowledged each."""
    failures: list[str] = []
    producer = Producer({
        # One request at a time keeps their order too, and waits for no producer id, which takes up to a second.
        "bootstrap.servers": brokers, "max.in.flight": 1, "linger.ms": 5, "log_level": 0,
        "message.max.bytes": 16_000_000, "queue.buffering.max.messages": 1_000_000,
    })  # fmt: skip
    count = 0
    for message in messages:
        producer.produce(
            prefix + message.topic, message.value, message.key, headers=list(message.headers),
            on_delivery=lambda error, _: failures.append(error.str()) if error else None,
        )  # fmt: skip
        producer.poll(0)
        count += 1
    assert producer.flush(60) == 0
    assert not failures
    return count


def read_topic(brokers: str, topic: str) -> list[Message]:
    """Return every message of a topic, partition by partition."""
    consumer = _reader(brokers)
    try:
        return _read(consumer, _partitions(consumer, topic))
    finally:
        consumer.close()


def committed(brokers: str, group: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return the group's committed offsets, of partitions that have one."""
    consumer = _reader(brokers, group)
    try:
        asked = [partition for topic in topics for partition in _partitions(consumer, topic)]
        return {(p.topic, p.partition): p.offset for p in consumer.committed(asked, timeout=30) if p.offset >= 0}
    finally:
        consumer.close()


def ends(brokers: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return the end offset of each partition that holds messages."""
    consumer = _reader(brokers)
    try:
        asked = [partition for topic in topics for partition in _partitions(consumer, topic)]
        marks = {(p.topic, p.partition): consumer.get_watermark_offsets(p, timeout=30)[1] for p in asked}
        return {place: end for place, end in marks.items() if end}
    finally:
        consumer.close()


def _reader(brokers: str, group: str = "reader") -> Consumer:
    """Make a consumer that joins no group, and hears where a partition ends."""
    alone = {"group.id": group, "enable.auto.commit": False}
    told_of_ends = {"enable.partition.eof": True, "fetch.wait.max.ms": 10}
    return Consumer({"bootstrap.servers": brokers, "log_level": 0, **alone, **told_of_ends})


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, n) for n in consumer.list_topics(topic, timeout=30).topics[topic].partitions]


def _read(consumer: Consumer, partitions: list[TopicPartition]) -> list[Message]:
    """Read all partitions at once, each to its end."""
    found: dict[int, list[Message]] = {p.partition: [] for p in partitions}
    open_ones = set(found)
    consumer.assign([TopicPartition(p.topic, p.partition, OFFSET_BEGINNING) for p in partitions])
    while open_ones:
        message = consumer.poll(60)  # one by one: consume() waits until it has as many as asked, or its time is over
        assert message is not None, f"neither a message nor the end of partitions {open_ones} within 60 s"
        error = message.error()
        if error is None:
            found[message.partition()].append(message)
            continue
        assert error.code() == KafkaError._PARTITION_EOF, error
        open_ones.discard(message.partition())
    return [message for messages in found.values() for message in messages]
