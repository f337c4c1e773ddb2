"""Whatever is down, full, closed or not there, the user's code gets its own results and its own exceptions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.voicelog.kafka import NOBODY, consume, events_of, run_program
from tests.voicelog.strategies import ODD

import voicelog
from voicelog.client import state

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class OwnError(Exception):
    """The program's own."""


@contextmanager
def closing_badly() -> Iterator[None]:
    """Raise at its end, whatever happened within."""
    try:
        yield
    finally:
        raise OwnError("at the end")


def in_a_thread(n: int) -> int:
    with voicelog.session(f"thread-{n}"), voicelog.turn() as turn, voicelog.stage("llm") as llm:
        turn.mark("user_speech_end")
        llm.mark_first()
    return n


@voicelog.stage("llm", provider="p")
async def answer(kind: str) -> str:
    await asyncio.sleep(0)
    if kind == "fails":
        raise OwnError(kind)
    if kind == "hangs":
        await asyncio.Event().wait()
    return kind


@voicelog.stage("tts")
async def speak() -> AsyncIterator[int]:
    for n in range(100):
        yield n


async def heard() -> list[int]:
    found = []
    stream = speak()
    async for n in stream:
        found.append(n)
        if n == 2:
            break
    await stream.aclose()
    return found


async def in_tasks() -> list[Any]:
    async def one(kind: str) -> str:
        async with voicelog.session(f"task-{kind}"), voicelog.turn():
            return await answer(kind)

    async def in_time() -> str:
        with voicelog.session("late"):
            async with asyncio.timeout(0.01):
                return await answer("hangs")

    cancelled = asyncio.create_task(one("hangs"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(cancelled.cancel)
    with voicelog.session("stream"):
        streamed = await heard()
    results = await asyncio.gather(one("works"), one("fails"), cancelled, in_time(), return_exceptions=True)
    return [streamed, *(r if isinstance(r, str) else type(r).__name__ for r in results)]


def with_odd_values() -> int:
    with voicelog.session("odd", attributes={"odd": ODD[-1]}), voicelog.turn():
        for value in ODD:
            with voicelog.stage("tool", given=value) as tool:
                tool.set(value=value, transcript=value)
                tool.usage(input_tokens=value)
    return len(ODD)


def with_an_exit_that_raises() -> str:
    try:
        with voicelog.session("exit"), voicelog.stage("tool"), closing_badly():
            raise KeyError("lost")
    except OwnError as exc:
        return str(exc)
    return "nothing"


def program(run: Run) -> dict[str, Any]:
    """Do what a bot does, in threads and tasks, and return what its code got."""
    got: dict[str, Any] = {}
    done: list[int] = []
    threads = [threading.Thread(target=lambda n=n: done.append(in_a_thread(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    got["tasks"] = run(in_tasks())
    got["odd"] = with_odd_values()
    got["exit"] = with_an_exit_that_raises()
    for thread in threads:
        thread.join()
    voicelog.metric("m", 1.0)
    got["threads"] = sorted(done)
    return got


EXPECTED = {
    "tasks": [[0, 1, 2], "works", "OwnError", "CancelledError", "TimeoutError"],
    "odd": len(ODD),
    "exit": "at the end",
    "threads": [0, 1, 2, 3],
}


def with_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
    return pytest.importorskip("uvloop").run(main)


@pytest.fixture(params=[asyncio.run, with_uvloop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]


def counted() -> int:
    """Return how many events there were; checks that what was produced adds up."""
    stats = voicelog.stats()
    assert stats["produced"] == stats["delivered"] + stats["queued"] + sum(stats["failed"].values())
    assert stats["faults"] == {}
    return int(stats["produced"] + sum(stats["dropped"].values()))


@pytest.fixture(scope="module")
def events_in_all() -> int:
    """How many events the program makes."""
    voicelog.configure(health_interval_ms=0, brokers=NOBODY, flush_timeout_ms=0)
    assert program(asyncio.run) == EXPECTED
    client, state.current = state.current, None
    assert client is not None
    count = client.counters.get("produced")
    client.producer.close(0)
    return count


def test_with_a_broker_all_events_arrive_and_every_stream_is_whole(mock_broker: str, run: Run) -> None:
    voicelog.configure(health_interval_ms=0, brokers=mock_broker)
    assert program(run) == EXPECTED
    assert voicelog.flush(30) == 0
    assert voicelog.stats()["dropped"] == voicelog.stats()["failed"] == {}
    events = events_of(consume(mock_broker, counted()))
    assert len(events) == counted()
    streams: dict[str, list[Any]] = {}
    for event in events:
        streams.setdefault(event.stream_id, []).append(event)
    for stream in streams.values():
        assert [event.seq for event in stream] == list(range(1, len(stream) + 1))
        assert stream[-1].TYPE == "metric" or stream[-1].events_total == len(stream)
    by_call = {e.session_id: e.status for e in events if e.TYPE == "llm_request"}
    assert by_call == {
        **{f"thread-{n}": "ok" for n in range(4)}, "task-works": "ok", "task-fails": "error",
        "task-hangs": "cancelled", "late": "cancelled",
    }  # fmt: skip


def test_without_a_broker_and_with_a_full_queue(run: Run, events_in_all: int) -> None:
    voicelog.configure(health_interval_ms=0, brokers=NOBODY, queue_max_messages=5, flush_timeout_ms=0)
    assert program(run) == EXPECTED
    assert counted() == events_in_all
    assert (voicelog.stats()["produced"], voicelog.stats()["dropped"]) == (5, {"queue_full": events_in_all - 5})


def test_after_shutdown(run: Run, events_in_all: int) -> None:
    voicelog.configure(health_interval_ms=0, brokers=NOBODY)
    voicelog.shutdown(0)
    assert program(run) == EXPECTED
    assert counted() == events_in_all
    assert voicelog.stats()["dropped"] == {"closed": events_in_all}


def test_never_configured(run: Run) -> None:
    assert program(run) == EXPECTED
    assert counted() == 0
    assert voicelog.stats()["enabled"] is False


def test_with_a_spool_on_a_disk_that_is_not_there(run: Run, events_in_all: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    voicelog.configure(
        health_interval_ms=0, brokers=NOBODY, spool_dir=str(tmp_path / "file" / "spool"), flush_timeout_ms=0
    )
    assert program(run) == EXPECTED
    assert counted() == voicelog.stats()["queued"] == events_in_all


def test_when_librdkafka_itself_fails(run: Run, events_in_all: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No way to provoke it is known, so its place is taken."""

    def broken(*_: object) -> None:
        message = "broken"
        raise SystemError(message)

    voicelog.configure(health_interval_ms=0, brokers=NOBODY, flush_timeout_ms=0)
    assert state.current is not None
    monkeypatch.setattr(state.current.producer, "_produce", broken)
    assert program(run) == EXPECTED
    assert counted() == events_in_all
    assert voicelog.stats()["dropped"] == {"refused": events_in_all}


def test_what_is_dropped_takes_no_memory() -> None:
    import gc

    def dropped(times: int) -> int:
        for _ in range(times):
            with voicelog.session("call"), voicelog.turn(), voicelog.stage("llm", text="x"):
                pass
        gc.collect()
        return len(gc.get_objects())

    voicelog.configure(health_interval_ms=0, brokers=NOBODY, queue_max_messages=10, flush_timeout_ms=0)
    before = dropped(100)
    assert dropped(2000) < before + 100
    voicelog.shutdown(0)
    before = dropped(100)
    assert dropped(2000) < before + 100


# --- interpreter exit -------------------------------------------------------------------------------------------------

BUSY_EXIT = """
    import asyncio, atexit, sys, threading, voicelog

    def late():
        with voicelog.session("late"), voicelog.stage("llm"):
            print("late")

    atexit.register(late)  # runs after voicelog's own: the last that was registered is the first to run
    voicelog.configure(health_interval_ms=0, brokers=sys.argv[1], flush_timeout_ms=200)

    class Last:
        def __del__(self):
            with voicelog.session("last"), voicelog.stage("llm"):
                pass

    def busy():
        while True:
            with voicelog.session("busy"), voicelog.stage("llm"):
                pass

    last = Last()
    for _ in range(2):
        threading.Thread(target=busy, daemon=True).start()

    async def main():
        asyncio.get_running_loop().create_task(asyncio.Event().wait())
        async with voicelog.session("call"):
            async with voicelog.stage("stt"):
                print("own")

    if sys.argv[2] == "uvloop":
        import uvloop
        uvloop.run(main())
    else:
        asyncio.run(main())
    sys.exit(3)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_program_that_ends_while_its_threads_still_work_ends_as_its_own(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    found = run_program(BUSY_EXIT, NOBODY, loop)
    assert (found.stdout, found.returncode) == ("own\nlate\n", 3)
    assert "Traceback" not in found.stderr
    assert "are lost; is the broker reachable?" in found.stderr
