"""Poison among good events, on real servers: each good one is stored, each bad one dead-lettered, unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from tests.calls import calls, messages
from tests.real.sinks import Place, by_call, stored
from tests.running import Raw, committed, ends, produce, read_topic, running_sink, wait_until

from voicelog.wire import decode

pytestmark = pytest.mark.real

LONG = "um, " * 1_300_000


def poison() -> dict[str, list[Raw]]:
    """Return bad messages by the reason that each must get."""
    good = json.loads(messages(calls(1, 25))[5].value or b"")
    stt = {**good, "type": "stt_result", "transcript": "hello"}

    def changed(**fields: object) -> bytes:
        return json.dumps({**stt, **fields}).encode()

    no_session = {name: value for name, value in stt.items() if name != "session_id"}
    headers = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("empty", b"")]
    return {
        "not_json": [
            Raw("stt-results", b"\x00\xff\xfe garbage \x80", b"call-0", headers),
            Raw("voice-events", b"", b"call-0"),
            Raw("voice-events", None, b"call-0"),
            Raw("tts-results", b'{"v": 1, "type": "tts_res', None),
        ],
        "not_an_event": [Raw("llm-requests", b'{"order": 7}', b"x"), Raw("llm-requests", b"[1, 2, 3]", b"x")],
        "missing_field": [Raw("stt-results", json.dumps(no_session).encode(), b"call-0")],
        "invalid_field": [
            Raw("stt-results", changed(seq="first"), b"call-0"),
            Raw("stt-results", changed(ts=12), b"c"),
        ],
        "unknown_type": [Raw("voice-events", changed(type="dance"), b"call-0")],
        "unsupported_version": [Raw("voice-events", changed(v=99), b"call-0")],
        "too_large": [Raw("stt-results", changed(transcript=LONG), b"call-0", headers)],
    }


def test_each_good_event_is_stored_and_each_bad_one_dead_lettered_with_its_reason(
    brokers: str, topic_prefix: str, cql_url: str, tmp_path: Path
) -> None:
    place = Place(brokers, topic_prefix, cql_url)
    place.init()
    good, bad = calls(10, 25), poison()
    mixed = messages(good)
    for number, message in enumerate(message for group in bad.values() for message in group):
        mixed.insert(number * 20, message)
    produce(brokers, mixed, topic_prefix)
    with running_sink(tmp_path / "log", "run", **place.settings()) as running:
        wait_until(
            lambda: committed(brokers, place.group, place.topics()) == ends(brokers, place.topics()),
            "every offset",
            120,
        )
        assert running.stop() == 0
        assert "Traceback" not in running.output()
    with place.opened() as store:
        assert stored(store, by_call(good)) == by_call(good)
    letters = read_topic(brokers, f"{topic_prefix}voicelog-dlq")
    found = sorted(
        (dict(m.headers() or [])["voicelog.reason"].decode(), m.value() or b"", m.key() or b"") for m in letters
    )
    assert found == sorted((reason, m.value or b"", m.key or b"") for reason, group in bad.items() for m in group)
    for letter in letters:
        check_headers(letter, topic_prefix)


def check_headers(letter, prefix: str) -> None:
    """See that a dead letter says where it came from, and kept its own headers before that."""
    headers = letter.headers()
    told = dict(headers)
    origin = told["__connect.errors.topic"].decode()
    assert origin.startswith(prefix)
    assert int(told["__connect.errors.partition"]) in range(4)
    assert int(told["__connect.errors.offset"]) >= 0
    assert told["__connect.errors.stage"] == b"decode"
    assert told["__connect.errors.exception.class.name"] == b"voicelog.errors.DecodeError"
    assert told["__connect.errors.exception.message"]
    own = [name for name, _ in headers if not name.startswith(("__connect.", "voicelog."))]
    assert own in ([], ["traceparent", "empty"])


def test_dead_letter_that_cannot_be_written_holds_every_offset_until_it_can(
    brokers: str, topic_prefix: str, tmp_path: Path
) -> None:
    place = Place(brokers, topic_prefix, f"sqlite:///{tmp_path}/calls.db")
    place.init()
    dead_letters = f"{topic_prefix}voicelog-dlq"
    with running_sink(tmp_path / "log", "run", **place.settings(http="127.0.0.1:0")) as running:
        running.wait_for(f"assigned: {topic_prefix}")
        admin = AdminClient({"bootstrap.servers": brokers})
        admin.delete_topics([dead_letters])[dead_letters].result()
        produce(brokers, [Raw("stt-results", b"garbage", b"k"), *messages(calls(2, 25))], topic_prefix)
        line = running.wait_for(f"dead letters can't be written to {dead_letters}", 120)
        assert "`voicelog-sink init` makes the topic" in line
        (held,) = [m for m in read_topic(brokers, f"{topic_prefix}stt-results") if m.value() == b"garbage"]
        # What was taken in a batch before it may be committed; of its own partition nothing from it on.
        upto = committed(brokers, place.group, place.topics()).get((held.topic(), held.partition()), 0)
        assert upto <= held.offset()
        place.init()
        wait_until(
            lambda: committed(brokers, place.group, place.topics()) == ends(brokers, place.topics()),
            "every offset",
            120,
        )
        assert running.stop() == 0
    (letter,) = read_topic(brokers, dead_letters)
    assert letter.value() == b"garbage"


def test_poison_is_what_it_is_said_to_be() -> None:
    (long,) = poison()["too_large"]
    assert len(long.value or b"") > 5_000_000
    assert decode(long.value).TYPE == "stt_result"
