"""Reading back what the library produced, and programs of a user's to run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from voicelog import wire
from voicelog.events import TOPICS, Event

DEADLINE_S = 30
NOBODY = "127.0.0.1:1"
"""An address where nobody listens."""


def consume(brokers: str, count: int, prefix: str = "") -> list[Any]:
    """Return at least `count` messages from all the topics, or what came within the deadline."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "test", "enable.auto.commit": False})
    try:
        found: list[Any] = []
        names = [prefix + topic for topic in TOPICS]
        known = consumer.list_topics(timeout=DEADLINE_S).topics
        consumer.assign(
            [TopicPartition(n, p, OFFSET_BEGINNING) for n in names if n in known for p in known[n].partitions]
        )
        deadline = time.monotonic() + DEADLINE_S
        while len(found) < count and time.monotonic() < deadline:
            found += [message for message in consumer.consume(1000, 0.2) if message.error() is None]
        return found
    finally:
        consumer.close()


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
