"""The daemon: consume, sort, have it seen through, and only then release. The only place that joins the parts.

Two threads. The loop, which is the caller's, owns the consumer: it polls, decodes, and commits what is released. The
writer's owns the store: it sees batch after batch through, and computes what is derived between them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit
from uuid import uuid4

from voicelog.settings import Settings
from voicelog_sink.anomaly_gauges import AnomalyGauges
from voicelog_sink.consumer import RecordConsumer
from voicelog_sink.deadletter import DeadLetters
from voicelog_sink.derived import Deriver
from voicelog_sink.duplicates import Duplicates
from voicelog_sink.erasures import Erasures
from voicelog_sink.errors import Unfinished
from voicelog_sink.keeper import Keeper, Parcel
from voicelog_sink.linger import Linger
from voicelog_sink.metrics import Metrics
from voicelog_sink.opening import store_of, wait_for
from voicelog_sink.pipeline import Pipeline, Record
from voicelog_sink.status import Status
from voicelog_sink.stores.base import StoreUnavailable
from voicelog_sink.tables import TABLES, TEXT
from voicelog_sink.topics import TopicAdmin
from voicelog_sink.watermark import Offsets, Place, Watermark
from voicelog_sink.writer import Writer, wait_until

log = logging.getLogger(__name__)

BATCHES = 2
"""Batches that are not seen through at once: the one that is written, and the next."""
IN_FLIGHT_BYTES = 32 * 1024 * 1024
"""Their records' size, at which no more are taken; the last batch may go beyond it."""
REVOKE_DRAIN_S = 15.0
"""How long a partition that goes to another member is waited for: below half of the session timeout."""
DERIVE_AT_STOP_S = 10.0
STUCK_S = 3.0
"""How much longer than its deadline a stopping daemon waits, in all, for a call of the store's that does not return."""
STUCK = "the store does not return from a call"
CATCH_UP_PATIENCE_S = 30.0
CHECK_EVERY_S = 1.0
WAIT_S = 0.05


class Daemon:
    """One replica of the sink. Used by one thread; `stop` alone may be called from anywhere."""

    def __init__(self, settings: Settings, metrics: Metrics, status: Status) -> None:
        """Make the parts; nothing is connected yet. Raises ConfigError for a wrong URL."""
        self.settings = settings
        self.metrics = metrics
        self.status = status
        self.store = store_of(settings)
        sink_id = f"{settings.host}-{os.getpid()}-{uuid4().hex[:8]}"
        self.deriver = Deriver(self.store, sink_id, slow_turn_ms=settings.slow_turn_ms)
        self.erasures = Erasures()
        self.pipeline = Pipeline(settings.max_message_bytes, settings.ttl_days, self.erasures)
        self.letters = DeadLetters(settings)
        self.consumer = RecordConsumer(settings, self._on_rebalance, self._note_commit)
        self.keeper = Keeper(self.store, self.deriver, self.letters, metrics, status, self.pipeline)
        self._writer: Writer[Parcel] = Writer(
            self.keeper.keep, self.keeper.rest, max_batches=BATCHES, max_bytes=IN_FLIGHT_BYTES
        )
        self.anomalies = AnomalyGauges(settings, metrics)
        self._linger = Linger(settings.batch_max_events, max(settings.batch_linger_ms, 1) / 1000)
        self._watermark = Watermark()
        self._duplicates = Duplicates()
        self._stop_at_s: float | None = None
        self._closing = False
        self._is_stuck = False
        self._full_since_s: float | None = None
        self._next_check_s = 0.0

    def startup(self) -> None:
        """Wait for broker, topics, store and schema, each up to start_timeout_ms; then ask to join the group.

        Raises BrokerUnavailable, TopicsMissing, StoreUnavailable or StoreMisconfigured with the remedy.
        """
        timeout_ms = self.settings.start_timeout_ms
        TopicAdmin(self.settings).wait_for_topics(timeout_ms)
        wait_for(self.store, self.settings.store, timeout_ms, ready=self._prepare_store)
        self.status.dead_letters_up = True
        self.keeper.set_store_up(True)
        self.consumer.subscribe()
        log.info(
            "started: brokers %s, group %s, store %s", self.settings.brokers, self.settings.group, self.settings.store
        )

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Tick until `stop` is called or `until` says so. Raises what makes going on impossible."""
        while not self.is_stopping() and not until():
            self.on_tick()

    def on_tick(self) -> None:
        """Take what there is, give it to the writer, release what it has seen through, and look after the rest.

        From the first tick to `drain` the store belongs to the writer's thread.
        """
        self._writer.start()
        if self._writer.has_room():
            self._take()
        else:
            self._hold()
        self._release()
        with self.metrics.in_state("commit"):
            self.consumer.commit_when_due()
        if time.monotonic() >= self._next_check_s:
            self._next_check_s = time.monotonic() + CHECK_EVERY_S
            self._look()

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
        """See through what was taken, commit, and compute what is pending, within drain_timeout_ms from the stop.

        A call of the store's that does not return is left after STUCK_S more. Raises Unfinished for what could not be
        stored: it stays in the topics. What could not be computed is left to another sink. The store is the caller's
        again where no call of it was left.
        """
        self.stop()
        end_s = self._deadline_s()
        self.keeper.give_up_at(end_s)
        wait_until(lambda: not self._writer.batches, self._wait, self._patience_s())
        self._is_stuck = not self._writer.stop(self._patience_s())
        self._release()
        if self._writer.batches:
            why = STUCK if self._is_stuck else "the store is too slow for drain_timeout_ms"
            message = f"stopped with events unstored, which stay in the topics: {why}"
            raise Unfinished(message)
        self.consumer.commit()
        if not self._is_stuck:
            self._derive_rest(max(0.0, min(DERIVE_AT_STOP_S, end_s - time.monotonic())))
        if self._is_stuck:
            log.warning("summaries are left to the next sink: %s", STUCK)

    def stop(self) -> None:
        """Ask the loop to end; what was taken and can't be stored within drain_timeout_ms is given up."""
        self._stop_at_s = self._stop_at_s or time.monotonic()
        self.status.stopping = True
        self.keeper.give_up_at(self._deadline_s())

    def is_stopping(self) -> bool:
        """Return whether `stop` was called."""
        return self._stop_at_s is not None

    def close(self) -> None:
        """Leave the group and let go of everything. What was not released is not committed."""
        self._closing = True
        self.keeper.give_up_at(0.0)
        self.anomalies.close()
        idle = self._writer.stop(self._patience_s())
        self.consumer.close()
        if idle and not self._is_stuck:
            self.letters.close()
            self.store.close()

    def _deadline_s(self) -> float:
        timeout_ms: int = self.settings.drain_timeout_ms
        return (self._stop_at_s or time.monotonic()) + timeout_ms / 1000

    def _is_overdue(self) -> bool:
        return self.is_stopping() and time.monotonic() > self._deadline_s()

    def _patience_s(self) -> float:
        """Return for how long a call of the store's may still be waited for; STUCK_S where nobody asked to stop."""
        deadline_s = self._deadline_s() if self.is_stopping() else time.monotonic()
        return max(0.0, deadline_s + STUCK_S - time.monotonic())

    def _derive_rest(self, budget_s: float) -> None:
        """Compute what is pending, in a thread that can be left where the store does not return."""
        thread = Writer(self._derive_all, lambda: None, max_batches=1, max_bytes=1)
        thread.submit(budget_s, 0)
        thread.start()
        thread.wait(self._patience_s())
        thread.done()
        self._is_stuck = not thread.stop(self._patience_s())

    def _derive_all(self, budget_s: float) -> None:
        try:
            self.metrics.count("derived_total", self.deriver.run_all(self.keeper.now_ms(), budget_s * 1000))
        except StoreUnavailable as exc:
            log.warning("summaries are left to the next sink: %s", exc)

    def _prepare_store(self) -> None:
        if urlsplit(self.settings.store).scheme == "sqlite":
            self.store.init()
        self._probe()

    def _probe(self) -> None:
        """Read from every table, so that a missing one is told at start; and before the first event by what to go."""
        for table in TABLES.values():
            nothing = {name: "-" if table.columns[name] == TEXT else 0 for name in table.partition_key}
            list(self.store.select(table.name, [nothing], limit=1))
        self.pipeline.load(self.store)

    def _take(self) -> None:
        """Poll, decode, and hand a batch to the writer."""
        self._set_full(False)
        with self.metrics.in_state("poll"):
            take = self._linger.next()
            records = self.consumer.poll(take.max_events, take.wait_s)
        self._linger.note(len(records), behind=self._writer.batches > 0)
        self.status.beat("loop")
        if not records:
            return
        for topic, count in _count_topics(records).items():
            self.metrics.count("consumed_total", count, topic=topic)
        self.metrics.observe("batch_records", len(records))
        with self.metrics.in_state("decode"):
            batch = self.pipeline.sort(records, int(time.time() * 1000))
        size_bytes = sum(len(record.value or b"") for record in records)
        self._writer.submit(Parcel(batch, self._watermark.track(records), time.monotonic()), size_bytes)

    def _hold(self) -> None:
        """Let the writer catch up, as a living member of the group."""
        self._set_full(True)
        with self.metrics.in_state("backpressure"):
            self.consumer.hold(self._wait, WAIT_S, time.monotonic() - (self._full_since_s or 0.0))

    def _set_full(self, full: bool) -> None:
        if not full:
            self.consumer.resume()
            self._full_since_s = None
        elif self._full_since_s is None:
            self._full_since_s = time.monotonic()

    def _wait(self, timeout_s: float) -> None:
        self.status.beat("loop")
        self._writer.wait(timeout_s)
        self._release()

    def _release(self) -> None:
        """Release what the writer has seen through; raises what ended it."""
        for parcel in self._writer.done():
            self.consumer.release(self._watermark.finish(parcel.ticket))
            self.metrics.count("duplicates_total", self._duplicates.note(parcel.batch.events))

    def _look(self) -> None:
        now_s = time.monotonic()
        self.status.joined = self.consumer.is_joined()
        self.metrics.set("assigned_partitions", self.consumer.assigned())
        self.metrics.replace("consumer_lag", _by_labels(self.consumer.lags()))
        self.metrics.replace("committed_offset", _by_labels(self.consumer.committed()))
        queued = self._writer.queued()
        self.metrics.set("watermark_age_seconds", now_s - queued[0].taken_s if queued else 0.0)
        self.metrics.set("inflight_rows", sum(len(parcel.batch.rows) for parcel in queued))
        self.metrics.set("inflight_bytes", self._writer.bytes)
        self.metrics.set("paused", self.consumer.is_paused())
        waiting, longest_s = self.deriver.waiting(self.keeper.now_ms())
        self.metrics.set("derived_pending", waiting)
        self.metrics.set("derived_pending_seconds", longest_s)
        self.anomalies.on_tick(leads=self.consumer.leads())

    def _on_rebalance(self, event: str, places: Sequence[Place]) -> None:
        self.metrics.count("rebalances_total", event=event)
        if event == "assigned":
            self._watermark.assign(places)
            self.keeper.adopt_soon()
            return
        if event == "revoked" and not self._closing:
            # What was taken of them is seen through first, so that the new owner need not do it again.
            wait_until(lambda: not self._watermark.is_waiting(places) or self._is_overdue(), self._wait, REVOKE_DRAIN_S)
        self._watermark.forget(places)

    def _note_commit(self, result: str) -> None:
        self.metrics.count("commits_total", result=result)


def _by_labels(values: Offsets) -> dict[tuple[str, ...], float]:
    return {(topic, str(number)): value for (topic, number), value in values.items()}


def _count_topics(records: Sequence[Record]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        counts[record.topic] = counts.get(record.topic, 0) + 1
    return counts
