"""`dlq list`, `show` and `replay` as a person and a program call them, against librdkafka's own broker."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from tests.builders import sqlite_store
from tests.calls import calls
from tests.running import Raw, ends, produce, read_topic
from tests.voicelog_sink.ran import Ran, Run

from voicelog.events import TOPIC_DEAD_LETTERS
from voicelog.settings import load
from voicelog.wire import encode
from voicelog_sink.cli import main
from voicelog_sink.deadletter import DeadLetters
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.erasures import Erasure
from voicelog_sink.pipeline import DeadLetter, Headers, Record
from voicelog_sink.render import escaped
from voicelog_sink.retention import Rule
from voicelog_sink.shapes import moment
from voicelog_sink.stores.sqlite import SqliteStore

NOW_MS = 1_795_659_390_000
GOOD = encode(calls(1, 25)[8])
"""A call's STT result."""


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> EmbeddedBroker:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return EmbeddedBroker()


@pytest.fixture
def run(broker: EmbeddedBroker, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        status = main(["dlq", *arguments, "--brokers", broker.address])
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """The store that the commands read: nothing was erased, and nothing is kept for less than the settings say."""
    monkeypatch.setenv("VOICELOG_STORE", f"sqlite:///{tmp_path}/calls.db")
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


Kill = Callable[..., None]


@pytest.fixture
def kill(broker: EmbeddedBroker) -> Iterator[Kill]:
    """Put messages among the dead letters as the sink does, the age of each `ago_s`."""
    letters = DeadLetters(load({"brokers": broker.address}, {})[0])

    def kill(
        value: bytes | None, reason: str = "not_json", *, topic: str = "stt-results", key: bytes | None = b"call-1",
        headers: Headers = (), ago_s: int = 0, message: str = "not JSON", stack: str | None = None,
    ) -> None:  # fmt: skip
        record = Record(topic, 3, 17, key, value, headers, NOW_MS - ago_s * 1000)
        assert not letters.send([DeadLetter(record, reason, "decode", "voicelog.errors.DecodeError", message, stack)])[
            1
        ]

    yield kill
    letters.close()


def place_of(run: Run, *filters: str) -> str:
    (shape,) = run("list", "--json", *filters).objects
    return f"{shape['partition']}:{shape['offset']}"


def test_list_is_newest_first_with_counts_by_reason(run: Run, kill: Kill) -> None:
    kill(b"\xff", ago_s=30, key=b"call-b")
    kill(b"{}", "not_an_event", ago_s=20, topic="voice-events", key=None, message="JSON, but\n no event")
    kill(b"[", ago_s=10, key=b"call-a")
    ran = run("list")
    total, heading, *rows = ran.out.splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert total == "3 dead letters: 2 not_json, 1 not_an_event"
    assert heading.split() == words("letter came in (UTC) reason topic session bytes replays message")
    assert [row.split()[1:] for row in rows] == [
        [*clock(10), *words("not_json stt-results call-a 1 0 not JSON")],
        [*clock(20), *words("not_an_event voice-events - 2 0 JSON, but no event")],
        [*clock(30), *words("not_json stt-results call-b 1 0 not JSON")],
    ]
    assert [shape["session_id"] for shape in run("list", "--json", "--oldest-first").objects] == [
        "call-b", None, "call-a",
    ]  # fmt: skip


def words(text: str) -> list[str]:
    return text.split()


def clock(ago_s: int) -> list[str]:
    return str(moment(NOW_MS - ago_s * 1000))[:19].split("T")


def test_filters_take_reason_topic_session_and_time_together(run: Run, kill: Kill) -> None:
    kill(b"1", ago_s=30)
    kill(b"2", "too_large", topic="voice-events", key=b"call-2")
    kill(b'{"session_id": "call-3"}', "missing_field", key=b"other")
    for filters, values in (
        (["--reason", "too_large"], [1]),
        (["--reason", "too_large", "--reason", "not_json"], [1, 1]),
        (["--topic", "voice-events"], [1]),
        (["--session", "call-3"], [24]),
        (["--session", "other"], [24]),
        (["--since", moment(NOW_MS - 1000) or ""], [24, 1]),
        (["--since", moment(NOW_MS - 1000) or "", "--topic", "stt-results"], [24]),
        (["--max-replays", "0"], [24, 1, 1]),
    ):
        assert sorted(s["size_bytes"] for s in run("list", "--json", *filters).objects) == sorted(values), filters


def test_pages_go_on_behind_a_letter_and_are_all_letters(run: Run, kill: Kill) -> None:
    for number in range(7):
        kill(b"x", key=b"call-%d" % number, ago_s=number)
    seen: list[str] = []
    after: list[str] = []
    while rows := run("list", "--json", "--limit", "3", *after).objects:
        seen += [row["session_id"] for row in rows]
        after = ["--after", f"{rows[-1]['partition']}:{rows[-1]['offset']}"]
    assert seen == [f"call-{number}" for number in range(7)]
    ran = run("list", "--limit", "3")
    last = ran.out.splitlines()[-1].split()[0]
    assert ran.err == f"3 of 7: --after {last} has the next\n"


def test_counts_alone_are_by_reason_and_topic(run: Run, kill: Kill, broker: EmbeddedBroker) -> None:
    kill(b"1")
    kill(b"2")
    produce(broker.address, [Raw(TOPIC_DEAD_LETTERS, b"not ours")])
    assert run("list", "--counts", "--json").objects == [
        {"total": 3, "reasons": {"not_json": 2, "unknown": 1}, "topics": {"stt-results": 2, "unknown": 1}}
    ]
    lines = [line.split() for line in run("list", "--counts").out.splitlines()]
    assert lines == [
        ["reason", "letters"], ["not_json", "2"], ["unknown", "1"], [],
        ["topic", "letters"], ["stt-results", "2"], ["unknown", "1"],
    ]  # fmt: skip


def test_show_says_all_of_a_letter_and_never_commands_the_terminal(run: Run, kill: Kill) -> None:
    value = "grüß Gott \x1b[2J\x9b31m \u202eevil\nsecond line".encode()
    headers = [("traceparent", b"00-\x1b-01"), ("raw", b"\xff\x00"), ("none", None)]
    kill(value, headers=headers, message="not JSON: \x1b]0;title\x07", stack="Traceback\n  File \x1b[1m\n")
    ran = run("show", place_of(run))
    assert (ran.status, ran.err) == (0, "")
    assert not {char for char in ran.out if char in "\x1b\x9b\x07\x00\u202e"}
    assert ran.out.splitlines() == [
        f"{place_of(run)} · not_json · {' '.join(clock(0))} · {len(value)} bytes",
        "was in   stt-results[3] at offset 17",
        "session  call-1",
        "key      call-1",
        f"error    voicelog.errors.DecodeError in decode, sink {letter_of(run)['sink_version']}",
        r"  not JSON: \x1b]0;title\x07",
        "stack",
        "  Traceback",
        r"    File \x1b[1m",
        "headers",
        r"  traceparent: 00-\x1b-01",
        "  raw: ff 00",
        "  none: -",
        "value, text",
        r"  grüß Gott \x1b[2J\x9b31m \u202eevil",
        "  second line",
    ]


def letter_of(run: Run) -> dict[str, Any]:
    (shape,) = run("show", place_of(run), "--json").objects
    return dict(shape)


def test_what_is_no_text_is_shown_in_hexadecimal_digits_and_bounded(run: Run, kill: Kill) -> None:
    kill(b"\xff\x1b garbage" * 1000)
    lines = run("show", place_of(run), "--bytes", "20").out.splitlines()
    assert lines[-3:] == [
        "value, bytes, the first 20 of 10,000 bytes",
        "  00000000  ff 1b 20 67 61 72 62 61 67 65 ff 1b 20 67 61 72  .. garbage.. gar",
        "  00000010  62 61 67 65                                      bage",
    ]


def test_no_value_and_an_empty_one_are_told_apart(run: Run, kill: Kill) -> None:
    kill(None)
    assert run("show", place_of(run)).out.splitlines()[-1] == "no value"
    kill(b"", "not_an_event")
    assert run("show", place_of(run, "--reason", "not_an_event")).out.splitlines()[-1] == "empty value"


def test_letter_as_json_is_whole(run: Run, kill: Kill) -> None:
    kill(b"\xff\x00" * 5000, headers=[("traceparent", b"00"), ("raw", b"\xff")], stack="s")
    shape = letter_of(run)
    assert base64.b64decode(shape.pop("value_base64")) == b"\xff\x00" * 5000
    assert shape.pop("sink_version")
    assert f"{shape.pop('partition')}:{shape.pop('offset')}" == place_of(run)
    assert shape == {
        "at": moment(NOW_MS), "topic": "stt-results", "topic_partition": 3, "topic_offset": 17, "reason": "not_json",
        "stage": "decode", "error": "voicelog.errors.DecodeError", "message": "not JSON", "stack": "s",
        "session_id": "call-1", "replays": 0, "key": "call-1", "key_base64": None, "size_bytes": 10_000, "value": None,
        "headers": [
            {"name": "traceparent", "value": "00", "value_base64": None},
            {"name": "raw", "value": None, "value_base64": base64.b64encode(b"\xff").decode()},
        ],
    }  # fmt: skip


def test_dry_run_says_of_each_whether_it_would_be_stored_and_sends_nothing(
    run: Run, kill: Kill, broker: EmbeddedBroker
) -> None:
    kill(GOOD.value, "unsupported_version", key=b"a", ago_s=1)
    kill(b"[", key=b"b")
    kill(GOOD.value, key=b"c", topic="payments")
    told = {
        shape["session_id"] + shape["outcome"]: shape for shape in run("replay", "--all", "--dry-run", "--json").objects
    }
    call = str(calls(1, 25)[8].session_id)
    assert sorted(told) == ["bnot_json", f"{call}readable"]
    ran = run("replay", "--all", "--dry-run")
    assert sorted(line.partition("  ")[2] for line in ran.out.splitlines()[:-1]) == [
        f"payments  {call}  not_json  can't be sent back: it was in 'payments', which is none of the topics of events: "
        "stt-results, llm-requests, tts-results, voice-events",
        "stt-results  b  not_json  still not_json: not JSON: Input data was truncated",
        f"stt-results  {call}  unsupported_version  would be stored now",
    ]
    assert ran.out.splitlines()[-1] == "1 of 3 dead letters would be stored now; nothing was sent"
    assert ran.status == 0
    assert ends(broker.address, ["stt-results", "voice-events"]) == {}


def test_dry_run_knows_what_was_erased_and_the_rules_of_retention(run: Run, kill: Kill, store: SqliteStore) -> None:
    good = calls(1, 25)[8]
    kill(GOOD.value)
    store.write([Erasure("session", str(good.session_id), NOW_MS).row])
    ran = run("replay", "--all", "--dry-run")
    why = "of a call or person that was erased (voicelog-sink forget): counted, and not stored"
    assert ran.out.splitlines()[0].endswith(f"would not be stored: {why}")
    assert ran.out.splitlines()[-1] == "0 of 1 dead letter would be stored now; nothing was sent"
    assert [shape["outcome"] for shape in run("replay", "--all", "--dry-run", "--json").objects] == ["erased"]
    assert run("replay", "--all", "--readable").err == "no dead letters that the filters let through\n"
    old = encode(attrs.evolve(good, session_id="another", ts=int((time.time() - 3 * 86_400) * 1e6)))
    kill(old.value, "unsupported_version")
    assert [s["outcome"] for s in run("replay", "--reason", "unsupported_version", "--dry-run", "--json").objects] == [
        "readable"
    ]
    store.write([Rule("kind", "figures", 2).row, Rule("kind", "text", 2).row])
    (shape,) = run("replay", "--reason", "unsupported_version", "--dry-run", "--json").objects
    assert shape["outcome"] == "expired"


def test_dry_run_without_the_store_says_where_it_looked(run: Run, kill: Kill, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(GOOD.value)
    monkeypatch.setenv("VOICELOG_STORE", "sqlite:////nowhere/calls.db")
    ran = run("replay", "--all", "--dry-run")
    assert (ran.status, ran.out) == (1, "")
    assert "/nowhere/calls.db does not exist" in ran.err
    assert run("replay", "--all").status == 0


def test_replay_sends_the_message_back_unchanged_and_says_how_often(
    run: Run, kill: Kill, broker: EmbeddedBroker
) -> None:
    headers = [("traceparent", b"00-1-2-01"), ("voicelog.reason", b"own"), ("none", None), ("voicelog.replayed", b"4")]
    kill(GOOD.value, headers=headers, key=b"\xff")
    kill(None, key=None)
    ran = run("replay", "--all")
    assert ran == (0, "sent 2 messages back: 2 to stt-results\n", "")
    sent = {message.key(): message for message in read_topic(broker.address, "stt-results")}
    assert (sent[b"\xff"].value(), sent[b"\xff"].partition()) == (GOOD.value, 3)
    assert sent[b"\xff"].headers() == [*headers[:-1], ("voicelog.replayed", b"5")]
    assert (sent[None].value(), sent[None].headers()) == (None, [("voicelog.replayed", b"1")])


def test_replay_sends_what_was_asked_for_and_nothing_else(run: Run, kill: Kill, broker: EmbeddedBroker) -> None:
    kill(GOOD.value, "unsupported_version", key=b"readable")
    kill(b"[", "unsupported_version", key=b"broken")
    kill(b"[", "not_json", key=b"other")
    kill(b"[", "unsupported_version", key=b"again", headers=[("voicelog.replayed", b"1")])
    ran = run("replay", "--reason", "unsupported_version", "--max-replays", "0", "--readable", "--json")
    (shape,) = ran.objects
    assert (ran.status, shape["sent"], shape["failure"], shape["replays"]) == (0, True, None, 1)
    other = place_of(run, "--reason", "not_json")
    assert run("replay", other).status == 0
    assert sorted(str(m.key()) for m in read_topic(broker.address, "stt-results")) == ["b'other'", "b'readable'"]


def test_replay_that_can_not_send_all_says_which_and_fails(run: Run, kill: Kill, broker: EmbeddedBroker) -> None:
    kill(GOOD.value)
    produce(broker.address, [Raw(TOPIC_DEAD_LETTERS, b"\x1b not ours")])
    place = next(f"{s['partition']}:{s['offset']}" for s in run("list", "--json").objects if s["reason"] is None)
    ran = run("replay", "--all")
    assert (ran.status, ran.out) == (1, "sent 1 message back: 1 to stt-results\n")
    assert ran.err == (
        f"dead letter {place} of unknown: not sent: no header says which topic it was in: "
        "voicelog-sink did not write it\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay",), "which letters? Expected PARTITION:OFFSET, a filter such as --reason or --since, or --all"),
        (("replay", "--all", "0:1"), "expected one of: letters by PARTITION:OFFSET, filters, --all"),
        (("replay", "--all", "--reason", "not_json"), "expected one of: letters by PARTITION:OFFSET, filters, --all"),
        (("list", "--reason", "bad"), "'bad' is not one of 'not_json'"),
        (("list", "--topic", "payments"), "'payments' is no topic of events: expected one of stt-results"),
        (("list", "--since", "soon"), "'soon' is no time: expected a length such as 30m"),
        (("show", "7"), "'7' is no letter: expected PARTITION:OFFSET such as 2:17"),
        (("list", "--session", ""), "an empty session id; expected a call's whole id"),
        (("burn",), "'burn' is no command of voicelog-sink dlq: expected one of list, replay, show"),
    ],
)
def test_wrong_use_is_status_2_with_what_was_expected(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert said in " ".join(ran.err.split())


def test_letter_that_is_not_there_is_status_1_with_what_is(run: Run, kill: Kill) -> None:
    kill(b"x")
    partition, offset = place_of(run).split(":")
    empty = (int(partition) + 1) % 4
    for place, said in (
        (f"{partition}:{int(offset) + 1}", f"the newest in partition {partition} is {partition}:{offset}"),
        (f"{empty}:0", f"partition {empty} is empty"),
        ("9:0", "it has the partitions 0 to 3"),
    ):
        ran = run("show", place)
        assert (ran.status, ran.out) == (1, "")
        assert f"voicelog-sink: no dead letter {place} in topic voicelog-dlq: {said}" in ran.err


def test_nothing_to_show_is_no_failure(run: Run) -> None:
    assert run("list") == (0, "", "no dead letters\n")
    assert run("list", "--json") == (0, "", "no dead letters\n")
    assert run("replay", "--reason", "not_json") == (0, "", "no dead letters that the filters let through\n")


def test_escaping_keeps_text_and_writes_out_what_commands() -> None:
    assert escaped("grüß\n\x1b[0m\r\x9b\u2066\x00") == "grüß\n\\x1b[0m\\r\\x9b\\u2066\\x00"
