"""The same log once more: by the same group from its beginning, and by another group. No row changes."""

from __future__ import annotations

from pathlib import Path
from random import Random

import attrs
import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.chaos.audit import Truth, audit, same, wait_until_done
from tests.chaos.daemons import daemon
from tests.chaos.fuzz import Fuzz
from tests.chaos.load import fleet, sent
from tests.chaos.snapshot import Snapshot, snapshot
from tests.chaos.truth import produced
from tests.real.sinks import Place
from tests.running import ends

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("place", "calls"),
    [
        pytest.param("sqlite", 20, id="sqlite-20"),
        pytest.param("cql", 100, id="cql-100", marks=pytest.mark.chaos),
        pytest.param("sqlite", 300, id="sqlite-300", marks=pytest.mark.chaos),
    ],
    indirect=["place"],
)
def test_the_same_log_again_leaves_the_same_rows(place: Place, calls: int, random: Random, tmp_path: Path) -> None:
    messages = [*sent(fleet(random, calls)), *Fuzz(random).messages(calls)]
    random.shuffle(messages)
    truth = produced(tmp_path, place, messages)
    first = stored_by(place, truth, tmp_path / "log")
    rewind(place)
    again = stored_by(place, truth, tmp_path / "log-again")
    other = stored_by(attrs.evolve(place, group="another"), truth, tmp_path / "log-other")
    assert {table: len(rows) for table, rows in first.items()} == {t: len(rows) for t, rows in again.items()}
    for table in first:
        same(dict(enumerate(again[table])), dict(enumerate(first[table])), f"row of {table}")
        same(dict(enumerate(other[table])), dict(enumerate(first[table])), f"row of {table}")


def stored_by(place: Place, truth: Truth, log: Path) -> Snapshot:
    """Let a daemon store the whole log, end it in order, and return every row."""
    with daemon(place, log, batch_max_events=2_000) as running:
        wait_until_done(place)
        assert running.stop() == 0
    audit(place, truth, summaries_within_s=0)
    return snapshot(place.store)


def rewind(place: Place) -> None:
    """Set the group's offsets back to the beginning; no daemon may be running."""
    consumer = Consumer({"bootstrap.servers": place.brokers, "group.id": place.group, "enable.auto.commit": False})
    try:
        starts = [TopicPartition(topic, number, 0) for topic, number in ends(place.brokers, place.topics())]
        consumer.commit(offsets=starts, asynchronous=False)
    finally:
        consumer.close()
