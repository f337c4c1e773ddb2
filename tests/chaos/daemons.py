"""Daemons under test: started, asked how they are, killed at random moments, and watched from outside."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from tests.real.sinks import Place
from tests.running import RunningSink

SESSION_MS = 6_000 if os.environ.get("VOICELOG_TEST_BROKERS") else 2_000
"""How soon the group notices a dead member; a broker of the user's takes no less than its own limit."""
QUICK = f"session.timeout.ms={SESSION_MS},heartbeat.interval.ms=400,reconnect.backoff.max.ms=500"

Offsets = dict[tuple[str, int], int]


def settings(place: Place, **more: Any) -> dict[str, Any]:
    """Return the settings of a daemon whose death is noticed soon, and which can be asked over HTTP."""
    given = {"kafka_config": QUICK, "http": "127.0.0.1:0", "batch_max_events": 300, "start_timeout_ms": 60_000}
    return place.settings(**{**given, **more})


@contextmanager
def daemon(place: Place, log: Path, **more: Any) -> Iterator[RunningSink]:
    """Run one for the length of the block."""
    running = RunningSink(log, "run", **settings(place, **more))
    try:
        yield running
    finally:
        running.kill()


def conditions(running: RunningSink) -> dict[str, Any]:
    """Return what /ready says, nothing while it is not answered."""
    url = running.wait_for("serving http://").split("serving ")[1].split("/health")[0]
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            found = json.load(error)
    except OSError:
        return {}
    return found


class OffsetWatch:
    """Sees that a group's committed offsets never go back, for as long as its block runs."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-offset-watch")
        self.highest: Offsets = {}
        self.steps_back: list[str] = []

    def __enter__(self) -> OffsetWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            assert self.steps_back == []

    def _run(self) -> None:
        config = {"bootstrap.servers": self._place.brokers, "group.id": self._place.group, "log_level": 0}
        consumer = Consumer({**config, "enable.auto.commit": False})
        try:
            asked = [
                TopicPartition(topic, number)
                for topic in self._place.topics()
                for number in consumer.list_topics(topic, timeout=30).topics[topic].partitions
            ]
            while not self._stop.wait(0.1):
                self._look(consumer, asked)
        finally:
            consumer.close()

    def _look(self, consumer: Consumer, asked: list[TopicPartition]) -> None:
        try:
            found = consumer.committed(asked, timeout=5)
        except KafkaException:  # the broker is away, which the case wanted
            return
        for p in found:
            place, before = (p.topic, p.partition), self.highest.get((p.topic, p.partition), -1)
            if p.offset < before and before >= 0:
                self.steps_back.append(f"{p.topic}[{p.partition}] went from {before} back to {p.offset}")
            self.highest[place] = max(before, p.offset)
