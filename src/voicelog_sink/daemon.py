"""The daemon: consume, sort, store, dead-letter, and only then release. The only place that joins the parts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from voicelog.settings import Settings
from voicelog_sink.backoff import Backoff
from voicelog_sink.consumer import RecordConsumer
from voicelog_sink.deadletter import DeadLetters
from voicelog_sink.derived import Deriver
from voicelog_sink.errors import BrokerUnavailable, Unfinished
from voicelog_sink.metrics import Metrics
from voicelog_sink.opening import store_of, wait_for
from voicelog_sink.pipeline import Batch, DeadLetter, Pipeline, Record, count_tables, refuses_everything
from voicelog_sink.status import Status
from voicelog_sink.stores.base import Rejected, Row, StoreMisconfigured, StoreUnavailable
from voicelog_sink.tables import TABLES, TEXT
from voicelog_sink.topics import TopicAdmin

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 20.0
"""How long a stopping daemon goes on trying to store its last batch: below Kubernetes' grace of 30 seconds."""
DERIVE_AT_STOP_MS = 10_000
CATCH_UP_PATIENCE_S = 30.0
CHECK_EVERY_S = 1.0
PING_AFTER_S = 10.0
ADOPT_EVERY_S = 60.0
DERIVE_AGAIN_S = 5.0

T = TypeVar("T")


class Daemon:
    """One replica of the sink. Used by one thread; `stop` alone may be called from anywhere."""

    def __init__(self, settings: Settings, metrics: Metrics, status: Status) -> None:
        """Make the parts; nothing is connected yet. Raises ConfigError for a wrong URL."""
        self.settings = settings
        self.metrics = metrics
        self.status = status
        self.store = store_of(settings)
        self.deriver = Deriver(self.store, f"{settings.host}-{os.getpid()}-{uuid4().hex[:8]}")
        self.pipeline = Pipeline(settings.max_message_bytes, settings.ttl_days)
        self.letters = DeadLetters(settings)
        self.consumer = RecordConsumer(settings, self._note_rebalance, self._note_commit)
        self._stop_at_s: float | None = None
        self._next_s = dict.fromkeys(("check", "ping", "adopt", "derive"), 0.0)

    def startup(self) -> None:
        """Wait for broker, topics, store and schema, each up to start_timeout_ms; then ask to join the group.

        Raises BrokerUnavailable, TopicsMissing, StoreUnavailable or StoreMisconfigured with the remedy.
        """
        timeout_ms = self.settings.start_timeout_ms
        TopicAdmin(self.settings).wait_for_topics(timeout_ms)
        wait_for(self.store, self.settings.store, timeout_ms, ready=self._prepare_store)
        self.status.dead_letters_up = True
        self._set_store_up(True)
        self.consumer.subscribe()
        log.info(
            "started: brokers %s, group %s, store %s", self.settings.brokers, self.settings.group, self.settings.store
        )

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Tick until `stop` is called or `until` says so. Raises what makes going on impossible."""
        while not self.is_stopping() and not until():
            self.on_tick()

    def on_tick(self) -> None:
        """Take what there is, see it through, and look after the rest."""
        with self.metrics.in_state("poll"):
            records = self.consumer.poll(self.settings.batch_max_events, max(self.settings.batch_linger_ms, 1) / 1000)
        self.status.beat()
        if records:
            self._see_through(records)
        with self.metrics.in_state("commit"):
            self.consumer.commit_when_due()
        self._when_due("check", CHECK_EVERY_S, self._look)
        self._when_due("ping", PING_AFTER_S, self._ping)
        self._derive()

    def catch_up(self) -> None:
        """Tick until all that the topics hold by now is stored or dead-lettered; raises Unfinished when it stalls."""
        ends = self.consumer.ends()
        left, since_s = -1, time.monotonic()
        while behind := self.consumer.behind(ends):
            if behind != left:
                left, since_s = behind, time.monotonic()
            if time.monotonic() - since_s > CATCH_UP_PATIENCE_S:
                message = f"{behind} events were not stored: no progress for {CATCH_UP_PATIENCE_S:.0f} s"
                raise Unfinished(message)
            self.on_tick()

    def drain(self) -> None:
        """Commit what is released and compute what is pending; what does not succeed another sink takes over."""
        self.status.stopping = True
        self.consumer.commit()
        try:
            self.metrics.count("derived_total", self.deriver.run_all(budget_ms=DERIVE_AT_STOP_MS))
        except StoreUnavailable as exc:
            log.warning("summaries are left to the next sink: %s", exc)

    def stop(self) -> None:
        """Ask the loop to end after its batch; a batch that can't be stored is given up after 20 seconds."""
        self._stop_at_s = self._stop_at_s or time.monotonic()
        self.status.stopping = True

    def is_stopping(self) -> bool:
        """Return whether `stop` was called."""
        return self._stop_at_s is not None

    def close(self) -> None:
        """Leave the group and let go of everything. What was not released is not committed."""
        self.consumer.close()
        self.letters.close()
        self.store.close()

    def _prepare_store(self) -> None:
        if urlsplit(self.settings.store).scheme == "sqlite":
            self.store.init()
        self._probe()

    def _probe(self) -> None:
        """Read from every table, so that a missing one is told at start and not with the first event."""
        for table in TABLES.values():
            nothing = {name: "-" if table.columns[name] == TEXT else 0 for name in table.partition_key}
            list(self.store.select(table.name, [nothing], limit=1))

    def _see_through(self, records: Sequence[Record]) -> None:
        for topic, count in _count_topics(records).items():
            self.metrics.count("consumed_total", count, topic=topic)
        self.metrics.observe("batch_records", len(records))
        now_ms = int(time.time() * 1000)
        with self.metrics.in_state("decode"):
            batch = self.pipeline.sort(records, now_ms)
            rows = [*batch.rows, *self.deriver.pending(batch.events, now_ms)]
        rejected = self._store(rows) if rows else []
        refused = batch.refused(rejected)
        self._bury([*batch.dead, *refused])
        self.consumer.release(records)
        self.metrics.count("events_stored_total", len(batch.events) - len(refused))
        self._note_batch(batch, rows, rejected)

    def _store(self, rows: Sequence[Row]) -> list[Rejected]:
        def write() -> list[Rejected]:
            start_s = time.monotonic()
            with self.metrics.in_state("write"):
                rejected = self.store.write(rows)
            self.metrics.observe("store_write_seconds", time.monotonic() - start_s)
            return rejected

        rejected = self._insist(write, StoreUnavailable, self._note_outage)
        self._set_store_up(True)
        if refuses_everything(len(rows), len(rejected)):
            message = (
                f"the store refuses every one of {len(rows)} rows, first: {rejected[0].message}; nothing was moved to "
                "the dead letters, no offset was moved: `voicelog-sink init --check` says what is wrong with the schema"
            )
            raise StoreMisconfigured(message)
        return rejected

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        left = list(letters)

        def send() -> None:
            nonlocal left
            with self.metrics.in_state("dlq"):
                sent, left, why = self.letters.send(left)
            self._note_buried(sent, left)
            if left:
                message = f"{len(left)} dead letters can't be written to {self.letters.topic} ({why})"
                raise BrokerUnavailable(message)

        if left:
            self._insist(send, BrokerUnavailable, self._note_unburied)

    def _insist(self, action: Callable[[], T], failure: type[Exception], note: Callable[[Exception], None]) -> T:
        """Repeat `action` until it does not raise `failure`, as a living member of the group. Raises Unfinished."""
        backoff, start_s = Backoff(), time.monotonic()
        try:
            while True:
                try:
                    return action()
                except failure as exc:
                    note(exc)
                    self._give_up_when_stopped(exc)
                with self.metrics.in_state("backpressure"):
                    self.consumer.hold(backoff.next_s(), time.monotonic() - start_s)
                self.status.beat()
        finally:
            self.consumer.resume()

    def _give_up_when_stopped(self, exc: Exception) -> None:
        if self._stop_at_s is not None and time.monotonic() - self._stop_at_s > DRAIN_TIMEOUT_S:
            message = f"stopped with events unstored, which stay in the topics: {exc}"
            raise Unfinished(message) from exc

    def _derive(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s["derive"]:
            return
        try:
            with self.metrics.in_state("derive"):
                now_ms = int(time.time() * 1000)
                self._when_due("adopt", ADOPT_EVERY_S, lambda: self.deriver.adopt(now_ms))
                self.metrics.count("derived_total", self.deriver.run_due(now_ms))
        except StoreUnavailable as exc:
            self._next_s["derive"] = now_s + DERIVE_AGAIN_S
            self.metrics.count("derived_failures_total", reason=_kind(exc))
            self._note_outage(exc)

    def _ping(self) -> None:
        try:
            self.store.ping()
        except StoreUnavailable as exc:
            self._note_outage(exc)
        else:
            self._set_store_up(True)

    def _look(self) -> None:
        self.status.joined = self.consumer.is_joined()
        lags = self.consumer.lags()
        self.metrics.set("assigned_partitions", self.consumer.assigned())
        self.metrics.replace("consumer_lag", {(topic, str(number)): lag for (topic, number), lag in lags.items()})

    def _when_due(self, name: str, every_s: float, action: Callable[[], object]) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s[name]:
            self._next_s[name] = now_s + every_s
            action()

    def _set_store_up(self, up: bool) -> None:
        if up:
            self._next_s["ping"] = time.monotonic() + PING_AFTER_S
        self.status.store_up = up
        self.metrics.set("store_up", up)

    def _note_batch(self, batch: Batch, rows: Sequence[Row], rejected: Sequence[Rejected]) -> None:
        tables = count_tables(rows)
        tables.subtract(rows[r.index].table for r in rejected)
        for table, count in tables.items():
            self.metrics.count("store_rows_total", count, table=table)
        self.metrics.count("expired_total", batch.expired)
        for letter in batch.dead:
            self.metrics.count("decode_errors_total", reason=letter.reason)
        stamps_ms = [record.timestamp_ms for record in batch.records if record.timestamp_ms]
        if stamps_ms:
            self.metrics.observe("event_to_store_seconds", max(0.0, time.time() - min(stamps_ms) / 1000))

    def _note_outage(self, exc: Exception) -> None:
        self._set_store_up(False)
        self.metrics.failed()
        self.metrics.count("store_retries_total", reason=_kind(exc))
        log.warning("the store can't be written, its events wait in the topics: %s", exc)

    def _note_buried(self, sent: Sequence[DeadLetter], left: Sequence[DeadLetter]) -> None:
        self.status.dead_letters_up = not left
        self.metrics.set("dlq_pending", len(left))
        for letter in sent:
            self.metrics.count("dlq_produced_total", reason=letter.reason)

    def _note_unburied(self, exc: Exception) -> None:
        self.metrics.failed()
        self.metrics.count("dlq_retries_total")
        log.warning("%s; it is tried again, no offset moves: `voicelog-sink init` makes the topic", exc)

    def _note_rebalance(self, event: str) -> None:
        self.metrics.count("rebalances_total", event=event)

    def _note_commit(self, result: str) -> None:
        self.metrics.count("commits_total", result=result)


def _count_topics(records: Sequence[Record]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        counts[record.topic] = counts.get(record.topic, 0) + 1
    return counts


def _kind(exc: Exception) -> str:
    return type(exc.__cause__ or exc).__name__
