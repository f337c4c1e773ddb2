"""Which events an erasure covers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import sqlite_store

from voicelog.events import Log
from voicelog_sink.erasures import REFRESH_S, Erasure, Erasures, subject

AT_MS = 1_795_341_600_000


def event(session_id: str | None = "call", user_id: str | None = "ann", ts_ms: int = AT_MS) -> Log:
    return Log(stream_id="s", seq=1, ts=ts_ms * 1000, session_id=session_id, user_id=user_id, level="INFO", message="m")


@pytest.mark.parametrize(
    ("erasure", "given", "covered"),
    [
        (Erasure("session", "call", AT_MS), event(), True),
        (Erasure("session", "call", AT_MS), event(ts_ms=AT_MS + 10**9), True),
        (Erasure("session", "other", AT_MS), event(), False),
        (Erasure("session", "ann", AT_MS), event(), False),
        (Erasure("user", "ann", AT_MS), event(session_id=None), True),
        (Erasure("user", "ann", AT_MS), event(ts_ms=AT_MS + 1), False),
        (Erasure("user", "ann", AT_MS), event(user_id=None), False),
        (Erasure("user", "call", AT_MS), event(), False),
    ],
    ids=[
        "its call",
        "its call, later",
        "another",
        "a user's name",
        "person",
        "person, later",
        "nobody",
        "a call's name",
    ],
)
def test_erasure_covers_its_call_for_ever_and_a_person_up_to_then(erasure: Erasure, given: Log, covered: bool) -> None:
    assert Erasures([erasure]).covers(given) is covered


def test_nothing_erased_is_false() -> None:
    assert not Erasures()
    assert Erasures([Erasure("user", "ann", AT_MS)])


def test_row_says_who_when_and_why() -> None:
    assert Erasure("user", "a:b", AT_MS, "ticket").row.values == {
        "subject": "user:a:b", "kind": "user", "erased_at": AT_MS, "reason": "ticket"
    }  # fmt: skip
    assert subject("session", "x") == "session:x"


def test_renewing_reads_anew_when_the_last_time_was_long_enough_ago(tmp_path: Path) -> None:
    store, now_s = sqlite_store(tmp_path / "calls.db"), [100.0]
    erasures = Erasures(clock=lambda: now_s[0])
    erasures.renew(store)
    store.write([Erasure("session", "call", AT_MS).row])
    now_s[0] += REFRESH_S - 0.1
    erasures.renew(store)
    assert not erasures
    now_s[0] += 0.1
    erasures.renew(store)
    assert erasures.of_session("call")
    store.close()
