"""Live events from a real broker: by its own times, and without a trace at it."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from tests.calls import a_call, messages
from tests.real.sinks import Place
from tests.running import RunningSink, committed, produce, running_sink, wait_until

pytestmark = pytest.mark.real


def seen(running: RunningSink) -> list[tuple[str, int]]:
    """Return the events that were shown, by call and number."""
    shapes = [json.loads(line) for line in running.output().splitlines() if line.startswith("{")]
    return sorted((shape["session_id"], shape["seq"]) for shape in shapes)


def test_tail_shows_what_came_since_and_leaves_no_group(brokers: str, topic_prefix: str, tmp_path: Path) -> None:
    place = Place(brokers, topic_prefix, "sqlite:///unused.db")
    place.init()
    produce(brokers, messages(a_call("call-old", 9)), topic_prefix)
    between = datetime.fromtimestamp(time.time() + 0.001, UTC).isoformat(timespec="milliseconds")
    wait_until(lambda: datetime.now(UTC).isoformat() > between, "a moment later", every_s=0.001)
    produce(brokers, messages(a_call("call-new", 9)), topic_prefix)
    admin = AdminClient({"bootstrap.servers": brokers})
    groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    settings = {"brokers": brokers, "topic_prefix": topic_prefix}
    with running_sink(tmp_path / "log", "tail", "--since", between, "--json", **settings) as running:
        wait_until(lambda: len(seen(running)) >= 9, "the call that came since")
        produce(brokers, messages(a_call("call-next", 9)), topic_prefix)
        wait_until(lambda: len(seen(running)) >= 18, "the call that came then")
        assert running.stop(signal.SIGINT) == 0
    assert seen(running) == [(call, seq) for call in ("call-new", "call-next") for seq in range(1, 10)]
    assert {group.group_id for group in admin.list_consumer_groups().result().valid} <= groups
    assert committed(brokers, "voicelog-sink-reader", place.topics()) == {}
