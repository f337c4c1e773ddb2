"""Erasing on every store: no row of the call is left, every other row is, and nothing of it is stored again."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.builders import CallBuilder, realistic_call, store_calls, troubled_call
from tests.contracts.store_kit import opened, unique

from voicelog import wire
from voicelog_sink import forget as module
from voicelog_sink.erasures import Erasure, Erasures
from voicelog_sink.errors import SinkError
from voicelog_sink.forget import erase, forget, sessions_of, traces
from voicelog_sink.pipeline import Pipeline, Record
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.base import Row, Store
from voicelog_sink.summary import summarise, summary_rows
from voicelog_sink.tables import TABLES

SECRET = "my card ends in 4711, says Zebedee"
NOT_OF_A_CALL = ("metric_parts", "metric_rollups", "metric_names", "erasures", "derived_pending", "system_health")


def start_us() -> int:
    return int(time.time()) * 1_000_000 - 600_000_000


def secret_call(session_id: str, user_id: str) -> CallBuilder:
    """Return a call with failures that says something that must vanish; in a stream of its own, as all calls are."""
    call = troubled_call(session_id, seed=zlib.crc32(session_id.encode()), start_us=start_us(), user_id=user_id)
    call.events[:] = [wire.decode(wire.encode(event).value) for event in call.events]
    return call


def rows_for(call: CallBuilder) -> list[Row]:
    rows = [row for event in call.events for row in rows_of(event)]
    for row in rows:
        for name in ("transcript", "response", "error_message"):
            if name in row.values:
                row.values[name] = SECRET
    summary = summarise(call.events)
    assert summary is not None
    return [*rows, *summary_rows(summary)]


def everything(store: Store) -> dict[str, list[Any]]:
    """Return every row of every table that calls have rows in, in no order."""
    return {
        name: sorted(
            (sorted(row.items(), key=str) for row in store.select(name, list(store.partitions(name)))), key=str
        )
        for name in TABLES
        if name not in NOT_OF_A_CALL
    }


@pytest.mark.parametrize("chunk", [7, 500])
def test_erased_call_is_in_no_table_and_every_other_row_stays(
    store: Store, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)  # with 7, rows go while the call is still being read
    user = f"user-{unique()}"
    gone, stays = secret_call(f"gone-{unique()}", user), secret_call(f"stays-{unique()}", user)
    store.write(rows_for(stays))
    before = everything(store)
    rows = rows_for(gone)
    assert store.write(rows) == []
    found = traces(store, [gone.session_id])
    assert found.total() == len(rows)
    assert erase(store, [gone.session_id]) == found
    assert traces(store, [gone.session_id]) == {}
    assert everything(store) == before
    assert sessions_of(store, user) == [stays.session_id]


def test_listing_under_a_later_start_goes_too(store: Store) -> None:
    call = realistic_call(f"late-{unique()}", start_us=start_us(), user_id="u")
    early = summarise(call.events[5:])
    assert early is not None
    store.write([*rows_for(call), *summary_rows(early)])
    erase(store, [call.session_id])
    assert call.session_id not in str(everything(store)["sessions_by_day"])


def test_erasing_that_was_cut_short_is_finished_by_the_next(store: Store) -> None:
    call = secret_call(f"cut-{unique()}", "u")
    store.write(rows_for(call))
    written: list[str] = []

    class Dies(Exception):
        pass

    class Dying:
        """The store, until its third deletion."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def delete(self, table: str, keys: Any) -> None:
            written.append(table)
            if len(written) == 3:
                raise Dies
            store.delete(table, keys)

    with pytest.raises(Dies):
        erase(Dying(), [call.session_id])  # type: ignore[arg-type]
    erase(store, [call.session_id])
    assert call.session_id not in str(everything(store))


def test_what_was_erased_is_read_back_and_never_stored_again(store: Store) -> None:
    call = realistic_call(f"again-{unique()}", start_us=start_us(), user_id=f"user-{unique()}")
    at_ms = int(time.time() * 1000)
    forget(store, [call.session_id], None, Erasure("session", "", at_ms, "ticket 1"), settle=lambda: None)
    erasures = Erasures()
    erasures.load(store)
    records = [Record("t", 0, i, None, wire.encode(event).value, (), at_ms) for i, event in enumerate(call.events)]
    batch = Pipeline(10**6, 90, erasures).sort(records, at_ms)
    assert (batch.rows, batch.events, batch.dead, batch.erased) == ([], [], [], len(records))


def test_rows_that_keep_coming_back_are_told_and_it_can_be_done_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = secret_call(f"back-{unique()}", "u")
    like = Erasure("session", "", int(time.time() * 1000))
    monkeypatch.setattr(store, "purge", lambda: store.write(rows_for(call)))
    with pytest.raises(SinkError, match=f"{len(rows_for(call))} rows were written again meanwhile: run it again"):
        forget(store, [call.session_id], None, like, settle=lambda: None)
    monkeypatch.undo()
    forget(store, [call.session_id], None, like, settle=lambda: None)
    assert traces(store, [call.session_id]) == {}


@pytest.mark.parametrize("others", [0, 3])
def test_no_file_of_the_sqlite_store_holds_the_text(tmp_path: Path, others: int) -> None:
    """Nor its write-ahead log, nor a page that is free: the files are searched byte by byte."""
    store = opened(f"sqlite:///{tmp_path}/calls.db")
    store.init()
    store._open_db().execute("PRAGMA secure_delete = OFF")  # type: ignore[attr-defined]  # Debian's SQLite has it on
    store_calls(store, [realistic_call(f"other-{number}", start_us=start_us()) for number in range(others)])
    for number in range(40):
        store.write(rows_for(secret_call(f"secret-{number}", "zebedee@example.org")))
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert SECRET.encode() in held
    sessions = sessions_of(store, "zebedee@example.org")
    assert len(sessions) == 40
    erase(store, sessions)
    store.purge()
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert b"zebedee@example.org" not in content, path
        assert b"secret-1" not in content, path
    assert len(list(store.partitions("voice_interactions"))) == others
    store.close()
