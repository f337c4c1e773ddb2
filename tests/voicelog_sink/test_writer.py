"""The writer's thread: one batch after another, bounded, and nothing counts as seen through that was not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.running import wait_until

from voicelog_sink.writer import Writer


@contextmanager
def running(writer: Writer[int]) -> Iterator[Writer[int]]:
    writer.start()
    try:
        yield writer
    finally:
        assert writer.stop(10)


def test_batches_are_seen_through_in_order_and_told_once() -> None:
    kept: list[int] = []
    with running(Writer(kept.append, lambda: None, max_batches=10, max_bytes=100)) as writer:
        for number in range(5):
            writer.submit(number, 1)
        done: list[int] = []
        wait_until(lambda: (done.extend(writer.done()), len(done) == 5)[1], "five batches", 10)
        assert (done, kept, writer.done(), writer.batches, writer.bytes) == ([0, 1, 2, 3, 4], kept, [], 0, 0)


@pytest.mark.parametrize(("batches", "size_bytes"), [(2, 1), (1, 100)])
def test_it_is_full_by_batches_or_bytes_until_one_is_seen_through(batches: int, size_bytes: int) -> None:
    gate = threading.Semaphore(0)
    with running(Writer(lambda _: gate.acquire(), lambda: None, max_batches=2, max_bytes=100)) as writer:
        assert writer.queued() == []
        for number in range(batches):
            assert writer.has_room()
            writer.submit(number, size_bytes)
        assert (writer.has_room(), writer.done(), writer.queued()[0]) == (False, [], 0)
        gate.release()
        assert writer.wait(10)
        assert (writer.done(), writer.has_room()) == ([0], True)
        gate.release(batches)


def test_what_ends_the_thread_is_raised_after_what_was_done_before_it() -> None:
    def keep(number: int) -> None:
        if number == 2:
            message = "no"
            raise ValueError(message)

    with running(Writer(keep, lambda: None, max_batches=10, max_bytes=100)) as writer:
        for number in range(5):
            writer.submit(number, 1)
        wait_until(lambda: writer.batches == 3 and writer.wait(0), "an end", 10)
        done: list[int] = []

        def ended() -> bool:
            done.extend(writer.done())
            return False

        with pytest.raises(ValueError, match="no"):
            wait_until(ended, "an end", 10)
        assert (done, writer.batches) == ([0, 1], 3)


def test_other_work_is_done_with_and_without_batches_and_in_the_same_thread() -> None:
    threads: list[int] = []
    rested = threading.Semaphore(0)

    def rest() -> None:
        threads.append(threading.get_ident())
        rested.release()

    with running(Writer(lambda _: threads.append(threading.get_ident()), rest, max_batches=2, max_bytes=9)) as writer:
        assert rested.acquire(timeout=10)
        writer.submit(1, 1)
        assert writer.wait(10)
        assert rested.acquire(timeout=10)
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


def test_thread_that_was_stopped_can_be_started_again() -> None:
    kept: list[int] = []
    writer: Writer[int] = Writer(kept.append, lambda: None, max_batches=2, max_bytes=9)
    for number in range(2):
        with running(writer):
            writer.submit(number, 1)
            assert writer.wait(10)
            assert writer.done() == [number]
    assert kept == [0, 1]
