"""`doctor` on a real broker and real stores: what it finds, and that it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.calls import calls, messages
from tests.real.sinks import Place
from tests.running import produce, running_sink, sink
from tests.servers.ports import free_ports

from voicelog.settings import load
from voicelog_sink.topics import TopicAdmin

pytestmark = pytest.mark.real


def examined(place: Place, **more: Any) -> tuple[int, dict[str, str]]:
    """Return the exit status of doctor, and the worst status of each thing."""
    given = {name: value for name, value in place.settings(**more).items() if name != "http"}
    ended = sink("doctor", "--json", **given)
    found: dict[str, str] = {}
    rank = ("ok", "unknown", "warning", "failed")
    for line in map(json.loads, ended.stdout.splitlines()):
        assert set(line) == {"name", "status", "what", "remedy"}
        found[line["name"]] = max(found.get(line["name"], "ok"), line["status"], key=rank.index)
    return ended.returncode, found


def test_before_init_what_is_missing_fails_and_nothing_is_made(bare_place: Place) -> None:
    place = bare_place
    status, found = examined(place)
    assert status == 1
    assert found["broker"] == "ok"
    assert found["topics"] == "failed"
    assert "failed" in (found["store"], found["schema"])
    settings, _ = load({"brokers": place.brokers, "topic_prefix": place.prefix}, {})
    assert len(TopicAdmin(settings).missing()) == 5
    assert examined(place) == (status, found)


def test_after_init_only_the_sink_is_lacking_and_with_events_that_fails(place: Place, tmp_path: Path) -> None:
    status, found = examined(place)
    assert (status, {name for name, value in found.items() if value != "ok"}) == (0, {"sinks"})
    count = produce(place.brokers, messages(calls(2)), place.prefix)
    assert count > 0
    status, found = examined(place)
    assert (status, found["sinks"], found["lag"]) == (1, "failed", "warning")
    with running_sink(tmp_path / "sink.log", "run", **place.settings()) as running:
        running.wait_for("assigned: ")
        status, found = examined(place)
        assert (status, found["sinks"]) == (0, "ok")


def test_unreachable_broker_does_not_keep_the_store_from_being_looked_at(place: Place) -> None:
    (port,) = free_ports(1)
    status, found = examined(Place(f"127.0.0.1:{port}", place.prefix, place.store), start_timeout_ms=500)
    assert status == 1
    assert (found["broker"], found["topics"], found["store"], found["schema"]) == ("failed", "unknown", "ok", "ok")
