"""The sum in which every case ends: what the brokers acknowledged is stored, or dead-lettered, once and unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from confluent_kafka import KafkaException, Message
from tests.chaos.expected import Keyed, counts, error_rows, health_rows, measured, metric_rows, parsed, stage_hour
from tests.chaos.load import EITHER, EXPIRED, STORED
from tests.chaos.producer import Position
from tests.chaos.snapshot import VIEW, snapshot
from tests.chaos.truth import Truth
from tests.real.sinks import Place
from tests.running import committed, ends, read_topic, wait_until

from voicelog.events import Event
from voicelog_sink.rollup import TIERS, unpack
from voicelog_sink.rows import event_of
from voicelog_sink.tables import TABLES

PROMISED_S = 60.0
"""Within so long after a call's last event its summary is complete."""

Log = dict[Position, Message]


@attrs.frozen
class Sum:
    """What was found: events stored, messages dead-lettered, and letters beyond one a message."""

    stored: int
    dead: int
    repeated_letters: int


def audit(place: Place, truth: Truth, summaries_within_s: float | None = PROMISED_S) -> Sum:
    """Check that all of it holds; raises AssertionError that names the first differences.

    The daemon must have committed everything; it may still run, and has to where summaries are not complete yet.
    With None they are not looked at. Rollups are neither then, nor with 0, since a daemon that was stopped may leave
    them to the next one, nor where the database refused a row: of such an event they may count what they were told.
    """
    log = read_log(place)
    check_log(log, truth)
    same(committed(place.brokers, place.group, place.topics()), ends(place.brokers, place.topics()), "committed offset")
    dead, repeated = check_letters(place, log, truth)
    events = [sent.event for at, sent in truth.by_position().items() if sent.event is not None and at not in dead]
    refused = [sent.event for at, sent in truth.by_position().items() if sent.event is not None and at in dead]
    check_tables(place, events, refused)
    if summaries_within_s is not None:
        check_summaries(place, events, summaries_within_s)
        if summaries_within_s and not refused:
            check_rollups(place, events, summaries_within_s)
    expired = sum(sent.fate == EXPIRED for sent in truth.sent)
    kept = sum(sent.event is not None and at not in dead for at, sent in truth.by_position().items())
    assert kept + len(dead) + expired == len(truth.sent), "produced = stored + dead-lettered (+ expired)"
    return Sum(len({_key(event) for event in events}), len(dead), repeated)


def is_done(place: Place) -> bool:
    """Return whether every offset is committed; false while the broker can't say."""
    try:
        return committed(place.brokers, place.group, place.topics()) == ends(place.brokers, place.topics())
    except KafkaException:
        return False


def wait_until_done(place: Place, timeout_s: float = 120.0) -> None:
    """Wait until every offset is committed."""
    wait_until(lambda: is_done(place), "every offset committed", timeout_s, every_s=0.5)


def read_log(place: Place) -> Log:
    """Return every message of the topics that carry events."""
    messages = (message for topic in place.topics() for message in read_topic(place.brokers, topic))
    return {Position(message.topic(), message.partition(), message.offset()): message for message in messages}


def check_log(log: Log, truth: Truth) -> None:
    """See that the broker has what it acknowledged, and nothing else: else it is not the sink that failed."""
    sent = {at: (s.message.value, s.message.key, list(s.message.headers)) for at, s in truth.by_position().items()}
    same({at: (m.value(), m.key(), m.headers() or []) for at, m in log.items()}, sent, "message in the topics")


def check_letters(place: Place, log: Log, truth: Truth) -> tuple[set[Position], int]:
    """See that just the right messages are buried, unchanged; return which, and how many letters repeat another."""
    found: dict[Position, tuple[Any, ...]] = {}
    repeated = 0
    for letter in read_topic(place.brokers, f"{place.prefix}voicelog-dlq"):
        headers = letter.headers() or []
        told = {name: value.decode() for name, value in headers if name.startswith(("__connect.", "voicelog."))}
        at = Position(
            told["__connect.errors.topic"],
            int(told["__connect.errors.partition"]),
            int(told["__connect.errors.offset"]),
        )
        own = [header for header in headers if header[0] not in told]
        repeated += at in found
        found[at] = (told["voicelog.reason"], letter.value(), letter.key(), own, letter.timestamp()[1])
    either = {at for at, sent in truth.by_position().items() if sent.fate == EITHER and at in found}
    expected = {
        at: (found[at][0] if at in either else sent.fate, *_content(log[at]))
        for at, sent in truth.by_position().items()
        if sent.fate not in (STORED, EXPIRED, EITHER) or at in either
    }
    same(found, expected, "dead letter")
    return set(found), repeated


def _content(message: Message) -> tuple[Any, ...]:
    return message.value(), message.key(), message.headers() or [], message.timestamp()[1]


def check_tables(place: Place, events: Sequence[Event], refused: Sequence[Event] = ()) -> None:
    """See that the tables hold exactly these events, each whole and once.

    Of an event that lost a row to the database's refusal, and so is in the dead letters, other rows may be there.
    """
    found = snapshot(place.store, ("voice_interactions", "performance_metrics", "error_logs", "system_health"))
    calls = {_key(event): event for event in events if event.session_id}
    rows = found["voice_interactions"]
    same(_stored(rows), calls, "event in voice_interactions")
    same({_row_key(row): row["stage_hour"] for row in rows}, {k: stage_hour(e) for k, e in calls.items()}, "stage_hour")
    metrics, errors = _keyed("performance_metrics", found), _keyed("error_logs", found, "attributes")
    same(without(metrics, metric_rows(refused)), metric_rows(events), "row of performance_metrics")
    same(without(errors, error_rows(refused)), error_rows(events), "row of error_logs")
    same(_keyed("system_health", found, "details"), health_rows(events), "row of system_health")
    staged = {_key(event) for event in calls.values() if event.stage}
    wait_until(lambda: _viewed(place) == staged, "the view has the rows of its table", every_s=1.0)


def without(found: Keyed, refused: Keyed) -> Keyed:
    """Leave out what may be there or not."""
    return {key: row for key, row in found.items() if key not in refused}


def check_summaries(place: Place, events: Sequence[Event], within_s: float) -> None:
    """See that each call is summed up within the time, and no other, and is listed where its summary says."""
    expected = counts(events)
    asked = ("session_summaries", "sessions_by_day")
    try:
        wait_until(lambda: _counted(snapshot(place.store, asked[:1])) == expected, "summaries", within_s, every_s=2.0)
    except AssertionError:
        same(_counted(snapshot(place.store, asked[:1])), expected, f"summary, {within_s:.0f} s after the last commit")
    found = snapshot(place.store, asked)
    listed = {(row["session_id"], row["started_at"], row["rows_read"]) for row in found["sessions_by_day"]}
    summed = {(row["session_id"], row["started_at"], row["rows_read"]) for row in found["session_summaries"]}
    assert summed <= listed, f"summaries that are not listed: {sorted(summed - listed)[:3]}"


def check_rollups(place: Place, events: Sequence[Event], within_s: float) -> None:
    """See that in each tier every measurement is counted, and none twice."""
    expected = {tier: measured(events) for tier in TIERS}
    try:
        wait_until(lambda: _rolled_up(place) == expected, "rollups", within_s, every_s=2.0)
    except AssertionError:
        found = _rolled_up(place)
        for tier in TIERS:
            same(found[tier], expected[tier], f"{tier} of rollups, {within_s:.0f} s after the summaries")


def _rolled_up(place: Place) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {tier: Counter() for tier in TIERS}
    for row in snapshot(place.store, ["metric_rollups"])["metric_rollups"]:
        if not row["name"].endswith(".first_item_ms"):
            found[row["tier"]][row["name"]] += unpack(row["sketch"]).count
    return found


def same(found: Mapping[Any, Any], expected: Mapping[Any, Any], what: str) -> None:
    """Compare two mappings; raises AssertionError with what is missing, too much and changed, three of each."""
    missing = sorted(expected.keys() - found.keys(), key=repr)
    extra = sorted(found.keys() - expected.keys(), key=repr)
    changed = [key for key in expected.keys() & found.keys() if found[key] != expected[key]]
    if not (missing or extra or changed):
        return
    shown = [*(f"missing: {key}" for key in missing[:3]), *(f"unexpected: {key}: {found[key]}" for key in extra[:3])]
    shown += [f"changed: {key}:\n  is {found[key]}\n  not {expected[key]}" for key in changed[:3]]
    head = f"{what}: {len(missing)} missing, {len(extra)} unexpected, {len(changed)} changed of {len(expected)}"
    raise AssertionError("\n".join([head, *(line[:2000] for line in shown)]))


def _key(event: Event) -> tuple[Any, ...]:
    return (event.session_id, event.ts // 1000, event.stream_id, event.seq)


def _row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["session_id"], row["ts"], row["stream_id"], row["seq"])


def _stored(rows: Iterable[dict[str, Any]]) -> dict[tuple[Any, ...], Event]:
    return {_row_key(row): event_of(row) for row in rows}


def _viewed(place: Place) -> set[tuple[Any, ...]]:
    return {_row_key(row) for row in snapshot(place.store, [VIEW])[VIEW]}


def _keyed(table: str, found: dict[str, list[dict[str, Any]]], *json: str) -> Keyed:
    key = TABLES[table].key
    return {tuple(row[name] for name in key): parsed(row, *json) for row in found[table]}


def _counted(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, int | bool]]:
    names = ("expected", "received", "missing", "rows_read", "turns")
    return {
        row["session_id"]: {**{name: row[name] for name in names}, "complete": row["completeness"] == "complete"}
        for row in found["session_summaries"]
    }
