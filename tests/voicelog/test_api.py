"""Switching on and off, and the promise that the program is never harmed by it."""

from __future__ import annotations

import gc
import json
import threading
import time
from typing import Any

import pytest
from tests.voicelog.kafka import NOBODY, consume, events_of, run_program

import voicelog
from voicelog.client import state
from voicelog.counters import COUNTERS, MAX_LABELS, OTHERS, Counters
from voicelog.errors import ConfigError
from voicelog.stage import HotStage, Stage
from voicelog.testing import Capture


def one_call(name: str = "call") -> None:
    with voicelog.session(name), voicelog.stage("llm"):
        pass


def test_the_same_settings_again_change_nothing() -> None:
    voicelog.configure(brokers=NOBODY, flush_timeout_ms=0)
    first = state.current
    voicelog.configure(brokers=NOBODY, flush_timeout_ms="0")
    assert state.current is first


def test_other_settings_take_the_place_of_the_first_in_the_middle_of_a_call(mock_broker: str) -> None:
    voicelog.configure(brokers=NOBODY, flush_timeout_ms=0)
    first = state.current
    with voicelog.session("call"), voicelog.turn(), voicelog.stage("llm"):
        voicelog.configure(brokers=mock_broker)
    assert first is not None
    assert first.closed
    assert voicelog.flush(20) == 0
    assert [(e.TYPE, e.seq) for e in events_of(consume(mock_broker, 3))] == [
        ("llm_request", 2), ("turn", 3), ("session_ended", 4),
    ]  # fmt: skip


def test_after_shutdown_events_are_counted_as_closed_until_configured_again(mock_broker: str) -> None:
    voicelog.configure(brokers=mock_broker)
    assert voicelog.shutdown(20) == 0
    one_call()
    assert voicelog.stats()["dropped"] == {"closed": 3}
    assert voicelog.shutdown() == 0
    voicelog.configure(brokers=mock_broker)
    one_call("again")
    assert voicelog.flush(20) == 0
    assert voicelog.stats()["delivered"] == 3
    assert {m.key() for m in consume(mock_broker, 3)} == {b"again"}


def test_enabled_false_is_off() -> None:
    voicelog.configure(enabled=False)
    one_call()
    assert state.current is None
    assert voicelog.stats()["enabled"] is False


def test_a_wrong_name_or_value_given_is_refused_and_nothing_changes() -> None:
    with pytest.raises(ConfigError, match=r"'broker' .* did you mean brokers"):
        voicelog.configure(broker=NOBODY)
    with pytest.raises(ConfigError, match="VOICELOG_BROKERS is 'nowhere': expected host:port"):
        voicelog.configure(brokers="nowhere")
    assert state.current is None


def test_what_is_wrong_in_the_environment_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VOICELOG_LINGER_MS", "soon")
    monkeypatch.setenv("VOICELOG_BROKERS", NOBODY)
    for _ in range(2):
        voicelog.configure(flush_timeout_ms=0)
    assert state.current is not None
    assert state.current.settings.brokers == NOBODY
    (warning,) = [r.getMessage() for r in caplog.records if "LINGER" in r.getMessage()]
    assert warning.startswith("voicelog: VOICELOG_LINGER_MS is 'soon': expected a whole number from 0 on")
    assert warning.endswith("). It is left out.")


def test_privacy_that_can_not_be_read_says_that_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VOICELOG_REDACT", "emial")
    monkeypatch.setenv("VOICELOG_BROKER", NOBODY)
    voicelog.configure(brokers=NOBODY, flush_timeout_ms=0)
    redact, broker = (record.getMessage() for record in caplog.records)
    assert redact.startswith("voicelog: VOICELOG_REDACT is 'emial': expected none, or some of phone, email, card")
    assert redact.endswith("Until it can be read, no text is sent.")
    assert broker.endswith("did you mean brokers (VOICELOG_BROKERS)? It is left out.")


def test_a_setting_of_the_sinks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"store is a setting of voicelog-sink, .*: set VOICELOG_STORE there"):
        voicelog.configure(brokers=NOBODY, store="sqlite:///calls.db")
    assert state.current is None


def test_what_librdkafka_refuses_is_said_and_the_program_runs_on(caplog: pytest.LogCaptureFixture) -> None:
    voicelog.configure(brokers=NOBODY, security_protocol="NONSENSE")
    one_call()
    assert state.current is None
    assert "voicelog: off, librdkafka refuses the settings" in caplog.text
    assert ': Invalid value "NONSENSE" for configuration property "security.protocol" (_INVALID_ARG). ' in caplog.text
    assert "Check brokers, TLS and kafka_config" in caplog.text


def test_switched_off_there_are_counts_of_zero_and_nothing_to_wait_for() -> None:
    zeros = {row.name: {} if row.label else 0 for row in COUNTERS}
    is_fast = HotStage is not Stage
    assert voicelog.stats() == {"enabled": False, "accelerated": is_fast, "delivered": 0, "queued": 0, **zeros}
    assert (voicelog.flush(1), voicelog.shutdown(1)) == (0, 0)


def test_stats_have_every_row_of_the_table_and_add_up() -> None:
    voicelog.configure(brokers=NOBODY, queue_max_messages=2, flush_timeout_ms=0)
    one_call()
    found = voicelog.stats()
    assert set(found) == {"enabled", "accelerated", "delivered", "queued", *(row.name for row in COUNTERS)}
    assert (found["produced"], found["queued"], found["delivered"]) == (2, 2, 0)
    assert found["dropped"] == {"queue_full": 1}
    assert voicelog.shutdown(0) == 2
    found = voicelog.stats()
    assert found["produced"] == sum(found["failed"].values()) == 2
    assert (found["queued"], found["delivered"]) == (0, 0)


def test_a_value_that_is_no_json_is_cleaned_and_counted(lenient: Capture) -> None:
    with voicelog.session(), voicelog.stage("x", odd={1, 2}, text="a\ud800"):
        pass
    (event,) = lenient.of("stage")
    assert (event.attributes["text"], event.attributes["odd"]) == ("a?", [1, 2])
    assert voicelog.stats()["cleaned"] == 1


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_an_odd_service_makes_events_that_can_be_stored(name: str, lenient: Capture) -> None:
    from voicelog.testing import capture

    with capture(service=name, host=name) as captured:
        voicelog.metric("m", 1)
        one_call()
    assert len(captured.events) == 4
    assert captured.events[0].key == captured.messages[0].key.decode()


def test_labels_from_users_do_not_grow_the_counters() -> None:
    counters = Counters()
    for n in range(MAX_LABELS * 2):
        counters.report("invalid", f"usage.{n}", "said")
    found = counters.snapshot()["invalid"]
    assert len(found) == MAX_LABELS + 1
    assert found[OTHERS] == MAX_LABELS
    assert counters.get("invalid") == MAX_LABELS * 2


def test_labels_of_one_counter_hide_no_other_counter_and_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    for n in range(MAX_LABELS * 2):
        counters.report("invalid", f"usage.{n}", "said")
    counters.report("dropped", "queue_full", "the queue is full")
    assert counters.snapshot()["dropped"] == {"queue_full": 1}
    assert [record.getMessage() for record in caplog.records[MAX_LABELS:]] == ["voicelog: the queue is full"]


def test_counting_while_counting_does_not_wait_for_itself() -> None:
    """A finaliser or signal handler may run in the middle of it, in the same thread."""
    counters = Counters()
    done = threading.Event()

    def count() -> None:
        with counters._lock:
            counters.report("invalid", "a", "said")
        done.set()

    threading.Thread(target=count, daemon=True).start()
    assert done.wait(10)


def test_memory_does_not_grow_with_the_events(captured: Capture) -> None:
    def work(count: int) -> int:
        for _ in range(count):
            with voicelog.turn() as turn:
                turn.mark("playback_start")
                with voicelog.stage("llm", provider="p") as llm:
                    llm.set(response="r")
                voicelog.metric("m", 1)
        captured.messages.clear()
        gc.collect()
        return len(gc.get_objects())

    with voicelog.session():
        before = work(200)
        assert work(3000) < before + 200


# --- in a program of its own ------------------------------------------------------------------------------------------

PROGRAM = """
    import sys, voicelog
    if len(sys.argv) > 1:
        voicelog.configure(brokers=sys.argv[1], flush_timeout_ms=sys.argv[2])
    with voicelog.session("call"), voicelog.stage("llm"):
        print("the program's own output")
    sys.stderr.write("own error\\n")
    sys.exit(3)
"""


def test_without_a_broker_output_and_exit_status_are_the_programs_own() -> None:
    alone = run_program(PROGRAM)
    began = time.monotonic()
    with_voicelog = run_program(PROGRAM, NOBODY, "300")
    lasted_s = time.monotonic() - began
    assert (alone.stdout, alone.stderr, alone.returncode) == ("the program's own output\n", "own error\n", 3)
    assert (with_voicelog.stdout, with_voicelog.returncode) == (alone.stdout, 3)
    (remedy,) = [line for line in with_voicelog.stderr.splitlines() if "Check VOICELOG_BROKERS" in line]
    assert [line for line in with_voicelog.stderr.splitlines() if line != remedy] == [
        "own error",
        f"voicelog: 3 events were not acknowledged by {NOBODY} within 0.3 s and are lost; is the broker reachable?",
    ]
    assert lasted_s < 10


def test_at_exit_what_waits_is_sent(mock_broker: str) -> None:
    found = run_program(PROGRAM, mock_broker, "20000")
    assert (found.stderr, found.returncode) == ("own error\n", 3)
    assert [e.TYPE for e in events_of(consume(mock_broker, 3))] == ["session_started", "llm_request", "session_ended"]


def test_never_configured_it_starts_no_thread_and_says_nothing() -> None:
    found = run_program("""
        import threading, warnings
        warnings.simplefilter("error")
        import voicelog
        with voicelog.session(), voicelog.turn() as turn, voicelog.stage("x") as stage:
            stage.set(a=1)
            turn.mark("m")
        voicelog.metric("m", 1); voicelog.log_error(KeyError()); voicelog.flush(); voicelog.shutdown()
        print(threading.active_count(), voicelog.stats()["enabled"])
    """)
    assert (found.stdout, found.stderr, found.returncode) == ("1 False\n", "", 0)


def test_a_program_that_fails_inside_a_call_fails_as_before() -> None:
    found = run_program(
        """
        import sys, voicelog
        voicelog.configure(brokers=sys.argv[1], flush_timeout_ms=0)
        with voicelog.session("call"), voicelog.turn(), voicelog.stage("llm"):
            raise KeyError("own")
        """,
        NOBODY,
    )
    assert found.returncode == 1
    assert "KeyError" in found.stderr
    assert "'own'" in found.stderr


FORKING = """
    import os, sys, voicelog, voicelog.api
    voicelog.api.FORK_WAIT_S = 30  # the machine may be busy
    voicelog.configure(brokers=sys.argv[1], flush_timeout_ms=20000)

    def work(name):
        with voicelog.session(name), voicelog.stage("llm"):
            pass

    {body}
"""

OS_FORK = """
    with voicelog.session("shared"), voicelog.turn():
        with voicelog.stage("before"):
            pass
        pid = os.fork()
        with voicelog.stage("child" if pid == 0 else "parent"):
            pass
        if pid == 0:
            work("own")
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_forked_childs_events_arrive_as_streams_of_its_own(mock_broker: str) -> None:
    found = run_program(FORKING.format(body=OS_FORK), mock_broker)
    assert (found.stderr, found.returncode) == ("", 0)
    events = events_of(consume(mock_broker, 5 + 3 + 3))
    streams: dict[str, list[Any]] = {}
    for event in events:
        streams.setdefault(event.stream_id, []).append(event)
    shapes = {
        (stream[0].session_id, tuple(e.stage or e.TYPE for e in stream)): [e.seq for e in stream]
        for stream in streams.values()
    }
    assert shapes == {
        ("shared", ("session_started", "before", "parent", "turn", "session_ended")): [1, 2, 3, 4, 5],
        ("shared", ("child", "turn", "session_ended")): [1, 2, 3],
        ("own", ("session_started", "llm", "session_ended")): [1, 2, 3],
    }
    totals = {len(stream): stream[-1].events_total for stream in streams.values()}
    assert totals == {5: 5, 3: 3}


def test_exit_ends_a_call_that_was_left_open(mock_broker: str) -> None:
    found = run_program(
        """
        import sys, voicelog
        voicelog.configure(brokers=sys.argv[1], flush_timeout_ms=20000)
        session = voicelog.session("call").start()
        session.start_turn()
        """,
        mock_broker,
    )
    assert (found.stderr, found.returncode) == ("", 0)
    events = events_of(consume(mock_broker, 3))
    assert [event.TYPE for event in events] == ["session_started", "turn", "session_ended"]
    assert events[1].end_reason == "session_closed"
    assert events[2].events_total == 3


POOL = """
    import multiprocessing

    def stage_in(name):
        with voicelog.stage(name):
            pass

    with voicelog.session("call"):
        pool = multiprocessing.get_context("fork").Pool(1)
        pool.map(stage_in, ["one", "two"])
        pool.close()
        pool.join()
"""


def test_streams_of_forked_workers_have_an_end_so_that_the_call_can_be_complete(mock_broker: str) -> None:
    found = run_program(FORKING.format(body=POOL), mock_broker)
    assert (found.stderr, found.returncode) == ("", 0)
    streams: dict[str, list[Any]] = {}
    for event in events_of(consume(mock_broker, 2 + 3)):
        streams.setdefault(event.stream_id, []).append(event)
    assert sorted([event.stage or event.TYPE for event in stream] for stream in streams.values()) == [
        ["one", "two", "session_ended"],
        ["session_started", "session_ended"],
    ]
    assert all(stream[-1].events_total == len(stream) for stream in streams.values())


MULTIPROCESSING = """
    import multiprocessing
    if __name__ == "__main__":
        child = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=("child",))
        child.start()
        work("parent")
        child.join()
        assert child.exitcode == 0
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_multiprocessing_childs_events_arrive(mock_broker: str, method: str, tmp_path: Any) -> None:
    import textwrap

    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(FORKING).format(body=textwrap.dedent(MULTIPROCESSING)))
    runner = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    found = (
        run_file(str(path), mock_broker, method)
        if method != "fork"
        else run_program(runner, str(path), mock_broker, method)
    )
    assert (found.stderr, found.returncode) == ("", 0)
    events = events_of(consume(mock_broker, 6))
    assert sorted((e.session_id, e.TYPE) for e in events) == [
        (name, kind) for name in ("child", "parent") for kind in ("llm_request", "session_ended", "session_started")
    ]


def run_file(*args: str) -> Any:
    import subprocess
    import sys

    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60, check=False)


def test_a_forked_child_counts_for_itself() -> None:
    found = run_program(
        """
        import json, os, sys, voicelog
        voicelog.configure(brokers=sys.argv[1], flush_timeout_ms=0)
        with voicelog.session("call"):
            pass
        if os.fork() == 0:
            print(json.dumps(voicelog.stats()), flush=True)
            os._exit(0)
        os.wait()
        """,
        NOBODY,
    )
    assert json.loads(found.stdout)["produced"] == 0


def test_a_child_that_could_wait_for_ever_is_off_and_says_what_to_do() -> None:
    """Without a broker the first events do not get away, so librdkafka's young threads are there at the fork."""
    found = run_program(
        """
        import os, sys, voicelog, voicelog.api
        voicelog.api.FORK_WAIT_S = 0.1
        voicelog.configure(brokers=sys.argv[1], flush_timeout_ms=0)
        with voicelog.session("call"):
            pid = os.fork()
            with voicelog.stage("llm"):
                who = "child" if pid == 0 else "parent"
                os.write(1, f"{who} {voicelog.stats()['enabled']}\\n".encode())  # one write: both print at once
        if pid == 0:
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(voicelog.stats()["produced"])
        """,
        NOBODY,
    )
    assert found.returncode == 0
    assert sorted(found.stdout.splitlines()) == ["3", "child False", "parent True"]
    assert found.stderr.count("voicelog: off in this forked process") == 1
    assert "Fork before the first session, or start processes with spawn." in found.stderr


def test_children_of_a_busy_parent_all_leave(mock_broker: str) -> None:
    """The parent's threads and locks are not in the child, in whatever state the fork found them."""
    body = """
    import threading
    stop = threading.Event()

    def busy():
        while not stop.wait(0.001):
            voicelog.metric("m", 1)
            voicelog.health("bot", "ok")

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    pids = []
    for n in range(8):
        pid = os.fork()
        if pid == 0:
            work(f"child-{n}")
            voicelog.shutdown()
            sys.exit(0)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    stop.set()
    for thread in threads:
        thread.join()
    print(statuses)
    """
    import textwrap

    found = run_program(textwrap.dedent(FORKING).format(body=textwrap.dedent(body)), mock_broker)
    assert found.stdout == f"{[0] * 8}\n", found.stderr
