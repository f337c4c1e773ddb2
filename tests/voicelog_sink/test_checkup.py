"""What doctor says of what it found, and what it calls a failure."""

from __future__ import annotations

import pytest

from voicelog_sink import checkup
from voicelog_sink.checkup import Finding
from voicelog_sink.group import Rights, Standing
from voicelog_sink.stores.base import Difference

READS = frozenset({"READ", "DESCRIBE"})


def standing(begin: int = 0, end: int = 100, committed: int | None = 100, topic: str = "voice-events") -> Standing:
    return Standing(topic, 0, begin, end, committed, None)


def statuses(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.name, finding.status) for finding in found]


def test_nothing_wrong_is_ok_without_a_remedy() -> None:
    found = [
        *checkup.of_differences("topics", [], "all there"),
        *checkup.of_group("sink", 2, [standing()]),
        checkup.of_dead_letters("voicelog-dlq", [standing()]),
        checkup.of_clock("store's clock", -1_999),
        checkup.of_disk("/data", 100 * 1024**3),
        *checkup.of_rights(
            Rights({"voice-events": READS, "dlq": frozenset({"WRITE", "DESCRIBE"})}, frozenset({"READ"})), "dlq", "sink"
        ),
    ]
    assert {finding.status for finding in found} == {"ok"}
    assert {finding.remedy for finding in found} == {""}
    assert checkup.worst(found) == "ok"


def test_missing_topic_fails_and_another_difference_warns() -> None:
    missing = Difference("topic stt-results does not exist", "voicelog-sink init")
    other = Difference("topic stt-results has retention.ms=1, expected 2", "voicelog-sink init")
    found = checkup.of_differences("topics", [missing, other], "")
    assert found == [
        Finding("topics", "failed", missing.what, missing.remedy),
        Finding("topics", "warning", other.what, other.remedy),
    ]
    assert checkup.worst(found) == "failed"


def test_events_that_wait_while_no_sink_runs_are_a_failure() -> None:
    assert statuses(checkup.of_group("sink", 0, [standing(committed=90)])) == [("sinks", "failed"), ("lag", "warning")]


def test_no_sink_and_nothing_to_do_is_a_warning() -> None:
    found = checkup.of_group("sink", 0, [standing(end=0, committed=None)])
    assert found[0] == Finding(
        "sinks", "warning", "none in group 'sink', and none was yet", "start one: voicelog-sink run"
    )


def test_members_that_the_embedded_broker_does_not_tell_are_unknown_and_no_failure() -> None:
    found = checkup.of_group("sink", None, [standing(committed=90)])
    assert found == [
        Finding("sinks", "unknown", "the embedded broker does not say who is in group 'sink'"),
        Finding("lag", "ok", "10 events wait to be stored"),
    ]
    assert statuses(checkup.of_group("sink", None, [standing(end=20_000)])) == [
        ("sinks", "unknown"),
        ("lag", "warning"),
    ]
    assert "has stored nothing yet" in checkup.of_group("sink", None, [standing(committed=None)])[0].what


def test_much_lag_is_a_warning_while_sinks_run() -> None:
    found = checkup.of_group("sink", 1, [standing(end=20_000, committed=1)])
    assert statuses(found) == [("sinks", "ok"), ("lag", "warning")]


def test_messages_that_the_broker_deleted_before_they_were_read_are_a_failure() -> None:
    found = checkup.of_group("sink", 1, [standing(begin=50, committed=20)])
    assert statuses(found) == [("lag", "failed"), ("sinks", "ok"), ("lag", "ok")]
    assert "deleted 30 messages" in found[0].what


def test_group_that_has_read_nothing_lags_by_what_is_there() -> None:
    assert standing(begin=10, end=100, committed=None).lag == 90
    assert standing(begin=10, end=100, committed=None).lost == 0


@pytest.mark.parametrize(
    ("ahead_ms", "status"),
    [(1_999, "ok"), (2_000, "warning"), (-2_000, "warning"), (60_000, "failed"), (-60_000, "failed")],
)
def test_clock_that_differs_warns_and_by_a_minute_fails(ahead_ms: int, status: str) -> None:
    assert checkup.of_clock("store's clock", ahead_ms).status == status


@pytest.mark.parametrize(("free_bytes", "status"), [(2 * 1024**3, "ok"), (1024**3, "warning"), (1024**2, "failed")])
def test_disk_that_is_nearly_full_warns_and_then_fails(free_bytes: int, status: str) -> None:
    assert checkup.of_disk("/data", free_bytes).status == status


def test_right_that_is_lacking_is_named_with_its_place() -> None:
    rights = Rights({"voice-events": frozenset({"DESCRIBE"}), "dlq": frozenset({"ALL"})}, frozenset({"READ"}))
    assert checkup.of_rights(rights, "dlq", "sink") == [
        Finding("rights", "failed", "topic voice-events: this client may not READ", "grant it READ there by an ACL")
    ]


def test_broker_that_does_not_tell_rights_is_no_failure() -> None:
    rights = Rights({"voice-events": None}, None)
    assert statuses(checkup.of_rights(rights, "dlq", "sink")) == [("rights", "unknown")]
    assert statuses(checkup.of_rights(Rights({}, None), "dlq", "sink")) == [("rights", "unknown")]


def test_dead_letters_are_counted_in_their_topic_alone() -> None:
    letters = standing(begin=3, end=10, topic="voicelog-dlq")
    assert "7 in voicelog-dlq" in checkup.of_dead_letters("voicelog-dlq", [standing(), letters]).what
