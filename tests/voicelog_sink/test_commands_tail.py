"""`tail` as a person and a program run it, against librdkafka's own broker."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.calls import a_call, calls, messages
from tests.running import SINK, Raw, RunningSink, environment, produce, running_sink, sink, wait_until

from voicelog.events import Event
from voicelog.settings import load
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.shapes import event_shape
from voicelog_sink.tail import TailFilter
from voicelog_sink.tailing import Tail


@pytest.fixture
def broker() -> EmbeddedBroker:
    return EmbeddedBroker()


def objects(running: RunningSink) -> list[Any]:
    return [json.loads(line) for line in running.output().splitlines() if line.startswith("{")]


def shapes(events: list[Event]) -> list[Any]:
    return [json.loads(json.dumps(event_shape(event))) for event in events]


def test_tail_shows_what_came_since_and_what_comes_and_ends_with_status_0_at_ctrl_c(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    before, later = a_call("call-0", 25), a_call("call-1", 25)
    produce(broker.address, [*messages(before), Raw("stt-results", b"garbage")])
    with running_sink(tmp_path / "log", "tail", "--since", "5m", "--json", brokers=broker.address) as running:
        wait_until(lambda: len(objects(running)) == 25, "the call that came before")
        produce(broker.address, messages(later))
        wait_until(lambda: len(objects(running)) == 50, "the call that came later")
        assert running.stop(signal.SIGINT) == 0
    assert sorted(objects(running), key=lambda shape: (shape["session_id"], shape["seq"])) == shapes([*before, *later])
    last = running.output().splitlines()[-1]
    assert last == "1 message left out, no events: 1 not_json; `voicelog-sink dlq list` has what the sink made of them"


def test_tail_begins_with_what_is_yet_to_come_and_filters(broker: EmbeddedBroker, tmp_path: Path) -> None:
    produce(broker.address, messages(a_call("call-before", 25)))
    filters = ("--session", "call-1", "--stage", "tool", "--errors")
    with running_sink(tmp_path / "log", "tail", *filters, brokers=broker.address) as running:
        sent = 0

        def seen() -> bool:  # it says nowhere that it has begun: so calls are sent until one is seen
            nonlocal sent
            sent += produce(broker.address, messages(calls(2, 25)))
            return bool(running.output())

        wait_until(seen, "a line", every_s=0.5)
        assert running.stop(signal.SIGTERM) == 0
    lines = [line.split("  ") for line in running.output().splitlines()]
    assert {(line[1], line[2]) for line in lines} == {("call-1", "tool")}
    assert {line[-1] for line in lines} == {"error builtins.TimeoutError: 2 s"}


def test_what_came_before_is_left_out_where_the_broker_does_not_know_times(broker: EmbeddedBroker) -> None:
    produce(broker.address, [*messages(a_call("call-0", 25)), Raw("stt-results", b"garbage")])
    soon_ms = int(time.time() * 1000) + 60_000
    with Tail(load({"brokers": broker.address}, {})[0], TailFilter(), soon_ms) as tail:
        starts = tail.starts()
        assert set(starts.values()) == {0}
        deadline_s = time.monotonic() + 2
        assert list(tail.events(starts, lambda: time.monotonic() > deadline_s)) == []
        assert tail.unreadable == {}


def test_reader_that_had_enough_is_no_failure(broker: EmbeddedBroker) -> None:
    produce(broker.address, messages(calls(40, 25)))
    with subprocess.Popen(
        [*SINK, "tail", "--since", "5m"], env=environment(brokers=broker.address), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        produce(broker.address, messages(calls(40, 25)))
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_wrong_use_and_a_broker_that_is_not_there_are_told_apart() -> None:
    ended = sink("tail", "--type", "dance")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "'dance' is not one of 'stt_result'" in ended.stderr
    ended = sink("tail", "--session", "")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "an empty session id; expected a call's whole id" in ended.stderr
    ended = sink("tail", brokers="127.0.0.1:1", start_timeout_ms=1000)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no Kafka broker answers at 127.0.0.1:1 (waited 1 s" in ended.stderr
