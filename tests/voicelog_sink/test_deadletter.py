"""Dead letters: the record unchanged, and headers that say where it was and why it is here."""

from __future__ import annotations

from tests.running import read_topic

from voicelog.settings import load
from voicelog_sink.deadletter import DeadLetters
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.pipeline import DeadLetter, Record

RECORD = Record(
    "eu-stt-results", 3, 17, b"call", b"\x00 not JSON", [("traceparent", b"00-1-2-01"), ("none", None)], 1_234
)


def test_letter_keeps_key_value_headers_and_timestamp_and_says_why() -> None:
    broker = EmbeddedBroker()
    letters = DeadLetters(load({"brokers": broker.address}, {})[0])
    bare = DeadLetter(
        RECORD._replace(key=None, value=None, headers=(), timestamp_ms=None), "too_large", "decode", "E", "m"
    )
    sent, left, *_ = letters.send([DeadLetter(RECORD, "not_json", "decode", "DecodeError", "not JSON: …"), bare])
    letters.close()
    assert (len(sent), left) == (2, [])
    read = {message.key(): message for message in read_topic(broker.address, "voicelog-dlq")}
    kept = read[b"call"]
    assert (kept.value(), kept.timestamp()[1]) == (RECORD.value, RECORD.timestamp_ms)
    headers = kept.headers()
    assert isinstance(headers, list)
    assert headers[:2] == RECORD.headers
    assert dict(headers[2:]) == {
        "__connect.errors.topic": b"eu-stt-results",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"17",
        "__connect.errors.stage": b"decode",
        "__connect.errors.exception.class.name": b"DecodeError",
        "__connect.errors.exception.message": "not JSON: …".encode(),
        "voicelog.reason": b"not_json",
        "voicelog.sink.version": dict(headers)["voicelog.sink.version"],
    }
    assert read[None].value() is None


def test_letters_without_acknowledgement_are_left_with_the_reason(monkeypatch) -> None:
    monkeypatch.setattr("voicelog_sink.deadletter.DELIVERY_TIMEOUT_MS", 500)
    settings = load({"brokers": "127.0.0.1:1", "kafka_config": "delivery.timeout.ms=500"}, {})[0]
    letters = DeadLetters(settings)
    letter = DeadLetter(RECORD, "not_json", "decode", "E", "m")
    assert letters.send([letter])[:2] == ([], [letter])
    letters.close()
