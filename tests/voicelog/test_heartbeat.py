"""The heartbeat: how a process is, said every few seconds; and how late its event loops are."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from tests.voicelog.kafka import consume, events_of, run_program

import voicelog
from voicelog import heartbeat
from voicelog.background import Background
from voicelog.client import Client, state
from voicelog.events import Health
from voicelog.heartbeat import Figures, Heartbeat, figures
from voicelog.loops import Loops
from voicelog.testing import START_US, Capture, capture

DEADLINE_S = 20


def the_client() -> Client:
    assert state.current is not None
    return state.current


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.005)
    return found


@pytest.fixture
def still() -> Iterator[Capture]:
    """Captured events, with a clock that only moves by hand."""
    with capture(step_ms=0, queue_max_messages=10) as found:
        yield found


def made(*cpu_ns: int) -> Heartbeat:
    times = iter((0, *cpu_ns))
    return Heartbeat(the_client(), 10_000, [1, 2], [1], lambda: Figures(7, 3, next(times), 4096))


def test_a_beat_is_one_whole_event(still: Capture) -> None:
    beats = made(2_500_000_000)
    voicelog.metric("m", 1)
    still.clock.advance(10_000)
    beats.beat()
    assert still.of("health") == [
        Health(
            stream_id="0000000100000000", seq=2, ts=START_US + 10_000_000, service="test", host="test-host",
            component="voicelog", state="ok",
            attributes={
                "queued": 0, "queue_max_messages": 10, "produced": 1, "delivered": 1, "dropped": 0, "failed": 0,
                "invalid": 0, "faults": 0, "dropped_since_last": 0, "failed_since_last": 0, "pid": 7,
                "rss_bytes": 4096, "cpu_percent": 25.0, "threads": 3, "open_sessions": 2, "open_stages": 1,
            },
        )
    ]  # fmt: skip
    assert still.messages[-1].key == b"~test/test-host"
    assert {*still.of("health")[0].attributes, "event_loop_lag_ms"} == heartbeat.FIGURES.keys()


def test_the_process_is_degraded_while_events_are_lost_and_ok_afterwards(still: Capture) -> None:
    beats = made(0, 0, 0)
    still.full = True
    voicelog.metric("m", 1)
    voicelog.metric("m", 1)
    still.full = False
    the_client().counters.add("failed", "_TIMED_OUT")
    for _ in range(2):
        beats.beat()
    first, second = still.of("health")
    assert (first.state, second.state) == ("degraded", "ok")
    lost = ("dropped", "dropped_since_last", "failed", "failed_since_last")
    assert [first.attributes[name] for name in lost] == [2, 2, 1, 1]
    assert [second.attributes[name] for name in lost] == [2, 0, 1, 0]


def test_the_process_is_degraded_when_its_queue_is_over_half_full(
    still: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = made(0, 0)
    for queued in (5, 6):
        monkeypatch.setattr(still, "queued", lambda queued=queued: queued)
        beats.beat()
    assert [(e.state, e.attributes["queued"]) for e in still.of("health")] == [("ok", 5), ("degraded", 6)]


def test_it_beats_when_the_interval_is_over_and_not_before(still: Capture) -> None:
    beats = made(*range(9))
    for _ in range(6):
        still.clock.advance(5_000)
        beats.tick()
    assert [(event.ts - START_US) // 1_000_000 for event in still.of("health")] == [10, 20, 30]


def test_what_the_system_does_not_say_is_absent(still: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_STATM", "/nowhere")
    Heartbeat(the_client(), 1, [], None).beat()
    (event,) = still.of("health")
    assert not {"rss_bytes", "open_stages", "cpu_percent", "event_loop_lag_ms"} & event.attributes.keys()


def test_the_process_figures_are_those_of_this_process() -> None:
    found = figures()
    assert (found.pid, found.threads) == (os.getpid(), threading.active_count())
    assert found.cpu_ns > 0
    if os.path.exists("/proc/self/statm"):
        assert found.rss_bytes is not None
        assert 1_000_000 < found.rss_bytes < 10**12


class Hand:
    """A clock for loops, moved by hand."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns


LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_the_lag_is_from_the_asking_to_the_running(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    clock = Hand()
    loops = Loops(clock.now_ns)

    async def main() -> list[float | None]:
        loops.know()
        found = [loops.take_lag_ms()]
        loops.probe()
        clock.ns = 30_000_000  # the loop is kept busy for so long
        found.append(loops.take_lag_ms())  # seen from another thread while it is
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.ns = 90_000_000
        return [*found, loops.take_lag_ms(), loops.take_lag_ms()]

    loop = new_loop()
    try:
        assert loop.run_until_complete(main()) == [None, 30.0, 30.0, None]
    finally:
        loop.close()


@LOOPS
def test_a_hung_loop_is_seen_while_it_hangs(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loops, hangs, go_on = Loops(time.perf_counter_ns), threading.Event(), threading.Event()

    async def main() -> None:
        loops.know()
        hangs.set()
        go_on.wait(DEADLINE_S)

    def run() -> None:
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    hangs.wait(DEADLINE_S)
    loops.probe()
    lags = [wait_for(loops.take_lag_ms)]
    wait_for(lambda: lags.append(loops.take_lag_ms()) or (lags[-1] or 0) > 5)
    go_on.set()
    thread.join()
    assert sorted(lags) == lags  # the same wait, longer each time


def test_a_loop_that_rests_is_not_late() -> None:
    clock = Hand()
    loops = Loops(clock.now_ns)

    async def know() -> None:
        loops.know()
        loops.probe()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(know())
    for _ in range(2):
        clock.ns += 10**12
        loops.probe()
    assert loops.take_lag_ms() in (None, 0.0)
    loop.close()


@LOOPS
def test_closed_and_forgotten_loops_are_let_go_of(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loops = Loops(time.perf_counter_ns)

    async def know() -> None:
        loops.know()

    closed, forgotten = new_loop(), new_loop()
    closed.run_until_complete(know())
    forgotten.run_until_complete(know())
    assert len(loops._probes) == 2
    closed.close()
    gone = weakref.ref(forgotten)
    forgotten.close()
    del forgotten
    gc.collect()
    assert gone() is None
    loops.probe()
    assert loops._probes == {}


def test_outside_of_a_loop_none_is_known() -> None:
    loops = Loops(time.perf_counter_ns)
    loops.know()
    loops.probe()
    assert loops.take_lag_ms() is None


@pytest.fixture
def background() -> Iterator[Background]:
    with capture(step_ms=0, health_interval_ms=1000, stage_started_after_ms=1):
        client = the_client()
        client.background = found = Background(client, [])
        client.watcher = found.watcher
        yield found
        found.close()
        if found.thread is not None:
            found.thread.join(DEADLINE_S)
            assert not found.thread.is_alive()


def test_the_thread_begins_with_the_first_session_and_tells_and_beats_by_itself(background: Background) -> None:
    captured: Any = the_client().producer
    assert background.thread is None
    with voicelog.session(), voicelog.stage("llm"):
        assert background.thread is not None
        captured.clock.advance(5000)
        wait_for(lambda: captured.of("stage_started") and captured.of("health"))
    assert captured.of("health")[0].component == "voicelog"


def test_the_thread_begins_with_the_first_event_outside_of_a_session(background: Background) -> None:
    voicelog.metric("m", 1)
    assert background.thread is not None
    assert background.thread.daemon


def test_a_loop_is_known_from_the_first_session_or_turn_in_it(background: Background) -> None:
    assert background.heartbeat is not None
    session = voicelog.session().start()

    async def main() -> None:
        with session.start_turn():
            pass

    known = background.heartbeat.loops._probes
    assert len(known) == 0
    asyncio.run(main())
    assert len(known) == 1
    session.end()


def test_without_watcher_and_heartbeat_there_is_no_thread() -> None:
    with capture(health_interval_ms=0, stage_started_after_ms=0):
        found = Background(the_client(), [])
    found.wake()
    assert (found.thread, found.watcher, found.heartbeat) == (None, None, None)


def test_after_close_no_thread_begins(background: Background) -> None:
    background.close()
    background.wake()
    assert background.thread is None


PROGRAM = """
    import os, sys, threading, time, voicelog
    voicelog.configure(brokers=sys.argv[1], service="bot", host="h", health_interval_ms=50)
    names = lambda: [t.name for t in threading.enumerate()]
    assert "voicelog-background" not in names(), names()
    def beaten():
        deadline = time.monotonic() + 20
        while voicelog.stats()["produced"] < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
"""


def test_a_process_that_only_configures_says_nothing_and_a_forked_child_has_a_heartbeat_of_its_own(
    mock_broker: str,
) -> None:
    found = run_program(
        PROGRAM
        + """
    pid = os.fork()
    if pid == 0:
        with voicelog.session("call"):
            beaten()
        voicelog.shutdown()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(pid, voicelog.stats()["produced"])
    """,
        mock_broker,
    )
    assert found.returncode == 0, found.stderr
    pid, produced = found.stdout.split()
    beats = [event for event in events_of(consume(mock_broker, 3)) if isinstance(event, Health)]
    assert produced == "0"
    assert beats
    assert {(e.session_id, e.service, (e.attributes or {})["pid"]) for e in beats} == {(None, "bot", int(pid))}


def test_a_child_of_a_call_that_goes_on_in_it_has_a_heartbeat_of_its_own(mock_broker: str) -> None:
    found = run_program(
        PROGRAM
        + """
    with voicelog.session("call"):
        voicelog.flush(20)
        pid = os.fork()
        if pid == 0:
            beaten()
            assert "voicelog-background" in names(), names()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """,
        mock_broker,
    )
    assert found.returncode == 0, found.stderr


def test_the_heartbeat_neither_keeps_the_program_nor_its_loop(mock_broker: str) -> None:
    found = run_program(
        PROGRAM
        + """
    import asyncio
    async def main():
        async with voicelog.session("call"):
            await asyncio.sleep(0.3)
    asyncio.run(main())
    print("end")
    """,
        mock_broker,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "end\n", "")
    beats = [event for event in events_of(consume(mock_broker, 3)) if isinstance(event, Health)]
    assert any("event_loop_lag_ms" in (event.attributes or {}) for event in beats)
