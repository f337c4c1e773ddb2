"""The spool: what is written to it arrives, in order, whatever happened to broker, process or disk in between."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.voicelog.kafka import NOBODY, consume, events_of, run_program

import voicelog
from voicelog import spool_home
from voicelog.counters import Counters
from voicelog.settings import load
from voicelog.spool import SpoolProducer
from voicelog.spool_feed import Feed
from voicelog.spool_file import Found, Record, Segment, framed

Make = Callable[..., tuple[SpoolProducer, Counters]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make producers that use one directory, and are closed after the test."""
    made: list[SpoolProducer] = []

    def one(**given: object) -> tuple[SpoolProducer, Counters]:
        counters = Counters()
        settings = load({"linger_ms": 0, "spool_dir": str(tmp_path / "spool"), **given}, {})[0]
        made.append(SpoolProducer(settings, counters))
        return made[-1], counters

    yield one
    for producer in made:
        producer.close(0)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


def produce(producer: SpoolProducer, values: range) -> list[str | None]:
    return [producer.produce("voice-events", b"k", str(n).encode(), None) for n in values]


def numbers(messages: list[Any]) -> list[int]:
    return [int(message.value()) for message in messages]


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.spool"))


# --- files ------------------------------------------------------------------------------------------------------------

RECORDS = st.lists(
    st.builds(
        Record, topic=st.text(max_size=9), key=st.binary(max_size=9), value=st.binary(max_size=600),
        headers=st.none() | st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2),
    ), max_size=9,
)  # fmt: skip


def all_of(segment: Segment) -> list[Found]:
    found: list[Found] = []
    while segment.position < segment.size:
        for one in segment.ahead():
            segment.position = one.end
            found.append(one)
    return found


def written(path: Path, data: bytes) -> Segment:
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return Segment(path, new=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments") / "1.spool"


@given(records=RECORDS, data=st.data())
def test_what_was_written_is_read_back_but_for_a_torn_end(path: Path, records: list[Record], data: Any) -> None:
    frames = [framed(record) for record in records]
    length = data.draw(st.integers(0, sum(map(len, frames))))
    segment = written(path, b"".join(frames)[:length])
    ends = [sum(map(len, frames[: n + 1])) for n in range(len(frames))]
    whole = [record for record, end in zip(records, ends, strict=True) if end <= length]
    found = all_of(segment)
    assert [one.record for one in found] == whole


@given(records=RECORDS.filter(len), data=st.data())
def test_damage_costs_the_record_it_hits_and_no_other(path: Path, records: list[Record], data: Any) -> None:
    frames = [framed(record) for record in records]
    whole = bytearray(b"".join(frames))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    segment = written(path, bytes(whole))
    starts = [sum(map(len, frames[:n])) for n in range(len(frames))]
    hit = max(n for n, start in enumerate(starts) if start <= place)
    found = all_of(segment)
    assert [one.record for one in found if one.record] == records[:hit] + records[hit + 1 :]
    assert sum(one.record is None for one in found) <= 1
    if hit < len(records) - 1:
        assert [one.record for one in found].index(None) == hit


@pytest.mark.parametrize("value_bytes", [10, 1000, 100_000, 300_000])
def test_records_longer_than_one_read_are_read(path: Path, value_bytes: int) -> None:
    records = [Record("t", b"k", bytes([n]) * value_bytes) for n in range(9)]
    segment = written(path, b"".join(map(framed, records)))
    found = all_of(segment)
    assert [one.record for one in found] == records
    assert [segment.at(one.start) for one in found] == records


def test_a_write_that_fails_in_the_middle_leaves_nothing_half_written(tmp_path: Path) -> None:
    found = run_program(
        """
        import resource, sys
        from pathlib import Path
        from voicelog.spool_file import Record, Segment, framed
        segment = Segment(Path(sys.argv[1]), new=True)
        segment.append([framed(Record("t", b"k", b"first"))])
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            segment.append([framed(Record("t", b"k", b"x" * 9000))])
        except OSError as exc:
            print(exc.strerror)
        segment.append([framed(Record("t", b"k", b"last"))])
        """,
        str(tmp_path / "1.spool"),
    )
    assert (found.stdout, found.stderr) == ("File too large\n", "")
    segment = Segment(tmp_path / "1.spool", new=False)
    assert [one.record and one.record.value for one in all_of(segment)] == [b"first", b"last"]


# --- homes ------------------------------------------------------------------------------------------------------------


def test_a_home_is_one_process_own_while_it_lives_and_anothers_after_it(tmp_path: Path) -> None:
    home = spool_home.create(tmp_path)
    home.new_segment().append([framed(Record("t", b"k", b"v"))])
    assert spool_home.claim(home.path) is None
    assert list(spool_home.orphans(tmp_path)) == []
    home.close()
    (adopted,) = spool_home.orphans(tmp_path)
    assert [one.record for segment in adopted.segments for one in all_of(segment)] == [Record("t", b"k", b"v")]
    adopted.close()
    assert list(tmp_path.iterdir()) == []
    assert spool_home.claim(home.path) is None


def test_only_its_owner_can_look_into_it(tmp_path: Path) -> None:
    home = spool_home.create(tmp_path / "spool")
    segment = home.new_segment()
    assert [oct(p.stat().st_mode & 0o777) for p in (tmp_path / "spool", home.path, segment.path)] == [
        "0o700", "0o700", "0o600",
    ]  # fmt: skip
    home.close()


# --- the producer -----------------------------------------------------------------------------------------------------


def test_what_is_produced_arrives_as_it_was_given_and_its_files_go(
    mock_broker: str, make: Make, tmp_path: Path
) -> None:
    producer, counters = make(brokers=mock_broker, topic_prefix="p-")
    assert producer.produce("voice-events", b"call-1", b"{}", [("traceparent", b"00-1")]) is None
    assert producer.produce("voice-events", b"call-2", b"[]", None) is None
    assert producer.flush(20) == producer.queued() == 0
    found = {(m.topic(), m.key(), m.value(), tuple(m.headers() or ())) for m in consume(mock_broker, 2, "p-")}
    assert found == {
        ("p-voice-events", b"call-1", b"{}", (("traceparent", b"00-1"),)), ("p-voice-events", b"call-2", b"[]", ()),
    }  # fmt: skip
    assert counters.get("spooled") == 2
    assert producer.close(5) == 0
    assert list((tmp_path / "spool").iterdir()) == []
    assert producer.produce("voice-events", b"k", b"v", None) == "closed"


def test_it_begins_with_the_first_message(make: Make, tmp_path: Path) -> None:
    before = threading.active_count()
    producer, _ = make(brokers=NOBODY)
    assert threading.active_count() == before
    assert not (tmp_path / "spool").exists()
    assert (producer.flush(1), producer.queued(), producer.close(1)) == (0, 0, 0)


def test_without_a_broker_events_wait_in_files_for_the_next_program(
    mock_broker: str, make: Make, tmp_path: Path
) -> None:
    first, _ = make(brokers=NOBODY)
    produce(first, range(2500))
    assert first.close(0) == first.queued() == 2500
    directory = tmp_path / "spool"
    assert first.loss(2500, 0) == (
        f"2500 events were not acknowledged by {NOBODY} within 0.0 s: they stay in {directory} and are sent by the "
        "next program that uses it"
    )
    second, counters = make(brokers=mock_broker)
    produce(second, range(2500, 2600))
    assert second.flush(30) == 0
    assert numbers(consume(mock_broker, 2600)) == list(range(2600))
    assert (counters.get("replayed"), counters.get("spooled"), counters.get("failed")) == (2500, 100, 0)
    assert second.close(5) == 0
    assert files(tmp_path) == []


def test_what_dead_processes_left_is_waited_for_too(make: Make) -> None:
    first, _ = make(brokers=NOBODY)
    produce(first, range(5))
    assert first.close(0) == 5
    second, _ = make(brokers=NOBODY)
    produce(second, range(1))
    wait_until(lambda: second.flush(0) == 5 + 1)
    assert second.queued() == 1


KILLED = """
    import os, signal, sys, voicelog
    voicelog.configure(health_interval_ms=0, brokers=sys.argv[1], spool_dir=sys.argv[2], service="killed")
    with voicelog.session("call"):
        for n in range(3000):
            with voicelog.stage("llm", n=n):
                pass
        while voicelog.stats()["spooled"] < 3001:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing_that_was_written_and_its_order_stays(
    mock_broker: str, tmp_path: Path, make: Make
) -> None:
    assert run_program(KILLED, NOBODY, str(tmp_path / "spool")).returncode == -9
    producer, counters = make(brokers=mock_broker)
    produce(producer, range(1))
    assert producer.flush(30) == 0
    messages = [m for m in consume(mock_broker, 3002) if m.key() == b"call"]
    assert [event.seq for event in events_of(messages)] == list(range(1, 3002))
    by_partition: dict[tuple[str, int], list[int]] = {}
    for message in messages:
        by_partition.setdefault((message.topic(), message.partition()), []).append(json.loads(message.value())["seq"])
    assert all(seqs == sorted(seqs) for seqs in by_partition.values())
    assert counters.get("replayed") == 3001


def test_a_live_process_files_are_left_alone(mock_broker: str, make: Make, tmp_path: Path) -> None:
    waiting, _ = make(brokers=NOBODY)
    produce(waiting, range(10))
    wait_until(lambda: len(files(tmp_path)) == 1)
    other, counters = make(brokers=mock_broker)
    produce(other, range(10, 12))
    assert other.flush(20) == 0
    assert other.close(5) == 0
    assert counters.get("replayed") == 0
    assert waiting.queued() == 10
    assert numbers(consume(mock_broker, 2)) == [10, 11]


def test_a_dead_process_damaged_file_is_counted_and_the_rest_of_it_sent(
    mock_broker: str, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = make(brokers=NOBODY)
    produce(first, range(10))
    first.close(0)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\xc4\x014") + 2] = ord("x")  # the value of the fifth message
    path.write_bytes(data[:-3])
    second, counters = make(brokers=mock_broker)
    produce(second, range(10, 11))
    assert second.flush(20) == 0
    assert sorted(numbers(consume(mock_broker, 9))) == [0, 1, 2, 3, 5, 6, 7, 8, 10]
    assert (counters.get("spool_corrupt"), counters.get("replayed")) == (1, 8)
    assert f"the spool file {path} is damaged: a part is skipped" in caplog.text


def test_a_full_spool_drops_the_newest_counts_it_and_says_it_once(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 200_000
    producer, _ = make(brokers=NOBODY, spool_max_bytes=limit)
    reasons = [producer.produce("voice-events", b"k", b"x" * 1000, None) for _ in range(1000)]
    kept = reasons.count(None)
    assert set(reasons[:150]) == {None}
    assert set(reasons[200:]) == {"spool_full"}
    assert 150 < kept < 200
    wait_until(lambda: sum(p.stat().st_size for p in files(tmp_path)) > kept * 1000)
    assert sum(p.stat().st_size for p in files(tmp_path)) <= limit
    (warning,) = [r.getMessage() for r in caplog.records if "spool is full" in r.getMessage()]
    assert f"the spool is full ({limit} bytes in {tmp_path / 'spool'}" in warning
    assert producer.close(0) == kept
    next_one, _ = make(brokers=NOBODY, spool_max_bytes=limit)
    produce(next_one, range(1))
    wait_until(lambda: next_one._disk.used_bytes > kept * 1000)  # what others have left counts too
    assert next_one.produce("voice-events", b"k", b"x" * 60_000, None) == "spool_full"


def test_a_stalled_disk_only_fills_the_memory_and_the_caller_never_waits(
    mock_broker: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, append = threading.Event(), Segment.append

    def stalled(segment: Segment, frames: list[bytes]) -> None:
        assert going_on.wait(30)
        append(segment, frames)

    monkeypatch.setattr(Segment, "append", stalled)
    producer, _ = make(brokers=mock_broker, queue_max_messages=100)
    reasons = produce(producer, range(300))
    assert reasons == [None] * 100 + ["spool_full"] * 200
    going_on.set()
    assert producer.flush(20) == 0
    assert numbers(consume(mock_broker, 100)) == list(range(100))


def test_a_directory_that_can_not_be_made_is_said_once_and_events_go_from_memory(
    mock_broker: str, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    directory = tmp_path / "file" / "spool"
    producer, counters = make(brokers=mock_broker, spool_dir=str(directory))
    produce(producer, range(100))
    assert producer.flush(20) == 0
    assert sorted(numbers(consume(mock_broker, 100))) == list(range(100))
    assert (counters.get("spooled"), counters.get("failed")) == (0, 0)
    assert counters.snapshot()["spool_errors"].keys() == {"ENOTDIR"}
    (warning,) = [r.getMessage() for r in caplog.records if "spool" in r.getMessage()]
    assert warning.startswith(
        f"voicelog: the spool in {directory} can't be used: Not a directory. Your program goes on"
    )


def test_with_neither_disk_nor_broker_the_end_says_that_all_is_lost_and_where(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    directory = tmp_path / "file" / "spool"
    producer, counters = make(brokers=NOBODY, spool_dir=str(directory))
    produce(producer, range(3))
    left = producer.close(0)
    assert producer.loss(left, 0) == (
        f"3 events could neither be written to {directory} nor sent to {NOBODY}, and are lost; check VOICELOG_SPOOL_DIR"
    )
    assert counters.get("failed") == 3


FULL_DISK = """
    import json, resource, sys, voicelog
    voicelog.configure(
        health_interval_ms=0, brokers=sys.argv[1], spool_dir=sys.argv[2], flush_timeout_ms=200, queue_max_messages=500,
    )
    with voicelog.session("call"):
        for n in range(100):
            with voicelog.stage("llm", n=n):
                pass
        while voicelog.stats()["spooled"] < 101:
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for n in range(2000):
            with voicelog.stage("llm", n=n):
                pass
    voicelog.shutdown()
    print(json.dumps(voicelog.stats()))
"""


def test_a_full_disk_leaves_memory_bounded_and_every_event_counted(tmp_path: Path) -> None:
    found = run_program(FULL_DISK, NOBODY, str(tmp_path / "spool"))
    assert found.returncode == 0
    stats = json.loads(found.stdout)
    assert stats["spool_errors"].keys() == {"EFBIG"}
    assert (stats["spooled"], stats["queued"], stats["delivered"]) == (101, 101, 0)
    assert sum(stats["failed"].values()) == stats["produced"] - 101
    assert stats["dropped"].keys() == {"spool_full"}
    assert stats["produced"] + stats["dropped"]["spool_full"] == 2102
    assert "101 events were not acknowledged" in found.stderr
    assert f"{stats['produced'] - 101} could not be written there and are lost" in found.stderr


FORKED = """
    import os, sys, voicelog
    voicelog.configure(health_interval_ms=0, brokers=sys.argv[1], spool_dir=sys.argv[2], flush_timeout_ms=20000)
    with voicelog.session("parent"):
        for n in range(2):
            pid = os.fork()
            if pid == 0:
                with voicelog.session(f"child-{n}"), voicelog.stage("llm"):
                    pass
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
"""


def test_forked_children_have_files_of_their_own_and_all_arrives(mock_broker: str, tmp_path: Path) -> None:
    found = run_program(FORKED, mock_broker, str(tmp_path / "spool"))
    assert (found.stderr, found.returncode) == ("", 0)
    events = {event.event_id: event for event in events_of(consume(mock_broker, 2 + 2 * 4))}.values()
    kinds = Counter((event.session_id, event.TYPE) for event in events)
    whole = {(f"child-{n}", kind): 1 for n in range(2) for kind in ("session_started", "llm_request", "session_ended")}
    assert kinds == {**whole, ("parent", "session_started"): 1, ("parent", "session_ended"): 1 + 2}
    assert files(tmp_path) == []


ORPHANED = """
    import os, signal, sys, voicelog
    voicelog.configure(health_interval_ms=0, brokers=sys.argv[1], spool_dir=sys.argv[2])
    with voicelog.session("parent"):
        while voicelog.stats()["spooled"] < 1:
            pass
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            os.close(1), os.close(2)
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_that_lives_on_does_not_keep_its_dead_parents_files(
    mock_broker: str, make: Make, tmp_path: Path
) -> None:
    found = run_program(ORPHANED, NOBODY, str(tmp_path / "spool"))
    child = int(found.stdout)
    try:
        producer, counters = make(brokers=mock_broker)
        produce(producer, range(1))
        assert producer.flush(20) == 0
        assert counters.get("replayed") == 1
    finally:
        os.kill(child, 9)


def test_a_directory_that_someone_deletes_is_made_anew(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicelog.spool.DISK_RETRY_S", 0.05)
    monkeypatch.setattr("voicelog.spool_feed.WINDOW", 10)  # so that most is only in the files
    producer, counters = make(brokers=NOBODY, spool_max_bytes=64 * 1024 * 8)
    for _ in range(100):  # more than a file takes
        producer.produce("voice-events", b"k", b"x" * 1000, None)
    wait_until(lambda: counters.get("spooled") == 100)
    shutil.rmtree(tmp_path / "spool")
    for _ in range(200):
        producer.produce("voice-events", b"k", b"x" * 1000, None)
    wait_until(lambda: counters.get("spooled") == 300)
    assert counters.snapshot()["spool_errors"].keys() == {"ENOENT"}
    assert len(files(tmp_path)) > 1
    assert counters.get("faults") == 0


@pytest.mark.parametrize("harm", ["damaged", "deleted"])
def test_own_files_that_are_harmed_are_counted_as_failed(
    mock_broker: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    going_on, run = threading.Event(), Feed.run
    monkeypatch.setattr(Feed, "run", lambda feed, segments: going_on.is_set() and run(feed, segments))
    producer, counters = make(brokers=mock_broker, spool_max_bytes=64 * 1024 * 8)
    for n in range(200):
        producer.produce("voice-events", b"k", b"%d" % n * 300, None)
    wait_until(lambda: counters.get("spooled") == 200)
    first = files(tmp_path)[0]
    if harm == "deleted":
        first.unlink()
    else:
        data = bytearray(first.read_bytes())
        data[300] ^= 1
        first.write_bytes(data)
    going_on.set()
    assert producer.flush(20) == producer.queued() == 0
    failed = counters.snapshot()["failed"]
    assert failed.keys() == {"_SPOOL_DAMAGED"}
    assert (failed["_SPOOL_DAMAGED"] == 1) == (harm == "damaged")
    assert len(consume(mock_broker, 200 - counters.get("failed"))) == 200 - counters.get("failed")


def test_files_of_a_waiting_spool_are_not_held_open(make: Make, tmp_path: Path) -> None:
    producer, counters = make(brokers=NOBODY, spool_max_bytes=64 * 1024 * 8)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(400):
        producer.produce("voice-events", b"k", b"x" * 1000, None)
    wait_until(lambda: counters.get("spooled") == 400)
    assert len(files(tmp_path)) >= 3
    wait_until(
        lambda: spool_files_open() == 1
    )  # two for a moment, while the feed looks into a file or a new one begins
    assert len(os.listdir("/proc/self/fd")) < before + 30


def spool_files_open() -> int:
    return sum(".spool" in os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))


def test_stats_add_up_through_files_and_the_exit_says_where_events_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    voicelog.configure(health_interval_ms=0, brokers=NOBODY, spool_dir=str(tmp_path), flush_timeout_ms=0)
    with voicelog.session("call"), voicelog.stage("llm"):
        pass
    assert voicelog.shutdown(0) == 3
    stats = voicelog.stats()
    assert (stats["produced"], stats["queued"], stats["delivered"], stats["spooled"]) == (3, 3, 0, 3)
    assert (stats["failed"], stats["dropped"]) == ({}, {})
    assert f"they stay in {tmp_path} and are sent by the next program that uses it" in caplog.text


def test_events_pass_from_file_to_file_and_all_of_them_go(mock_broker: str, make: Make, tmp_path: Path) -> None:
    producer, counters = make(brokers=mock_broker, spool_max_bytes=2_000_000, queue_max_messages=5000)
    value = b"x" * 2000
    taken = 0
    while taken < 3000:  # three times what the spool holds
        taken += producer.produce("voice-events", b"k", value, None) is None
    assert producer.flush(30) == 0
    assert len(consume(mock_broker, 3000)) >= 2000  # the embedded broker itself keeps 5 MB a partition
    assert counters.get("spooled") == 3000
    wait_until(lambda: sum(p.stat().st_size for p in files(tmp_path)) == 0)
