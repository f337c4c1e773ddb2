"""Reading back what the library produced, and programs of a user's to run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from voicelog import wire
from voicelog.events import TOPICS, Event

DEADLINE_S = 30
NOBODY = "127.0.0.1:1"
"""An address where nobody listens."""


def consume(brokers: str, count: int, prefix: str = "") -> list[Any]:
    """Return all messages of all the topics, once there are `count`, or what came within the deadline."""
    alone = {"group.id": "test", "enable.auto.commit": False}
    consumer = Consumer({
        "bootstrap.servers": brokers, **alone, "enable.partition.eof": True, "fetch.wait.max.ms": 10,
    })  # fmt: skip
    try:
        known = consumer.list_topics(timeout=DEADLINE_S).topics
        places = {
            (prefix + t, number) for t in TOPICS if prefix + t in known for number in known[prefix + t].partitions
        }
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
        return _read(consumer, places, count)
    finally:
        consumer.close()


def _read(consumer: Consumer, places: set[tuple[str, int]], count: int) -> list[Any]:
    """Read until there are `count` and no partition has another."""
    found: list[Any] = []
    at_end: set[tuple[str, int]] = set()
    deadline = time.monotonic() + DEADLINE_S
    while (len(found) < count or at_end < places) and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is None:
            continue
        place, error = (message.topic(), message.partition()), message.error()
        if error is None:
            found.append(message)
            at_end.discard(place)
        elif error.code() == KafkaError._PARTITION_EOF:
            at_end.add(place)
    return found


def events_of(messages: list[Any]) -> list[Event]:
    """Return the messages' events, by stream and count."""
    return sorted((wire.decode(m.value()) for m in messages), key=lambda event: (event.stream_id, event.seq))


def run_program(code: str, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, as a user would; VOICELOG_* only as given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOICELOG_")}
    forking = (
        "ignore:This process:DeprecationWarning"  # Python says since 3.12 that threads and fork() don't go together
    )
    command = [sys.executable, "-W", forking, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**kept, **environ}, check=False)
