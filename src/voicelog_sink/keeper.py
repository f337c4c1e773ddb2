"""The keeper: sees one batch through, into the store and the dead letters, for as long as that takes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from voicelog_sink.backoff import Backoff
from voicelog_sink.breaker import Breaker
from voicelog_sink.deadletter import DeadLetters
from voicelog_sink.derived import Deriver
from voicelog_sink.erasures import REFRESH_S
from voicelog_sink.errors import BrokerUnavailable, Unfinished
from voicelog_sink.metrics import Metrics
from voicelog_sink.pending import ADOPT_AFTER_MS
from voicelog_sink.pipeline import Batch, DeadLetter, Pipeline, count_tables
from voicelog_sink.request_log import RequestLog
from voicelog_sink.status import Status
from voicelog_sink.steady import steady_clock
from voicelog_sink.stores.base import Rejected, Row, Store, StoreMisconfigured, StoreUnavailable
from voicelog_sink.watermark import Ticket

log = logging.getLogger(__name__)

PING_AFTER_S = 10.0
ADOPT_EVERY_S = 60.0
DERIVE_AGAIN_S = 5.0

T = TypeVar("T")


@attrs.frozen(eq=False)
class Parcel:
    """A batch on its way, and its offsets' ticket."""

    batch: Batch
    ticket: Ticket
    taken_s: float
    """When it was taken from the broker, monotonic seconds."""


class Keeper:
    """Owns the store while the writer's thread runs; `give_up_at` and `adopt_soon` alone are for another one."""

    def __init__(
        self,
        store: Store,
        deriver: Deriver,
        letters: DeadLetters,
        metrics: Metrics,
        status: Status,
        pipeline: Pipeline,
    ) -> None:
        """Join the parts; does nothing yet."""
        self._store = store
        self._deriver = deriver
        self._letters = letters
        self._metrics = metrics
        self._status = status
        self._pipeline = pipeline
        self._breaker = Breaker()
        self._requests = RequestLog(metrics, lambda: status.beat("writer"))
        store.on_asked = self._requests.note
        self.now_ms = steady_clock()
        """Epoch milliseconds by which recomputes are due; a machine's clock that is set does not move it."""
        self._give_up_s: float | None = None
        self._adopt_again_s = math.inf
        self._is_idle = False
        self._next_s = dict.fromkeys(("ping", "adopt", "derive", "erasures"), 0.0)

    def give_up_at(self, at_s: float) -> None:
        """Set when, on the monotonic clock, a batch that can't be seen through is given up."""
        self._give_up_s = at_s

    def adopt_soon(self) -> None:
        """Look for what a dead sink has left once its rows are old enough, after it lost partitions to this one."""
        self._adopt_again_s = time.monotonic() + ADOPT_AFTER_MS / 1000

    def keep(self, parcel: Parcel) -> None:
        """Store the rows and deliver the dead letters; blocks until both are acknowledged.

        Raises StoreMisconfigured for what an operator must mend, and Unfinished when it is time to give up.
        """
        self._is_idle = False
        batch, rows, rejected = self._store_batch(self._pipeline.again(parcel.batch, _wall_ms()))
        refused = batch.refused(rejected)
        self._note_underived([r for r in rejected if r.index >= len(batch.rows)])
        self._bury([*batch.dead, *refused])
        self._metrics.count("events_stored_total", len(batch.events) - len(refused))
        self._note_batch(batch, rows, rejected)

    def rest(self) -> None:
        """Do what is due between batches: recompute, adopt, see whether the store is there.

        Called twice without a batch between, it counts as idle.
        """
        self._status.beat("writer")
        self._when_due("ping", PING_AFTER_S, self._ping)
        self._when_due("erasures", REFRESH_S, self._load_erasures)
        self._derive()
        self._is_idle = True
        self._requests.report()

    def set_store_up(self, up: bool) -> None:
        """Say whether the store took or answered the last thing it was asked."""
        if up:
            self._next_s["ping"] = time.monotonic() + PING_AFTER_S
        self._status.store_up = up
        self._metrics.set("store_up", up)

    def _store_batch(self, batch: Batch) -> tuple[Batch, list[Row], list[Rejected]]:
        """Write what the batch became, and what is derived from it; return it as it was written, the rows, the refused.

        What is erased while the store is away is not in it any more.
        """
        with self._metrics.in_state("derive"):
            # Here and not when it was taken: until the next `rest` all that is announced is written.
            pending = self._deriver.pending(batch.events, self.now_ms())

        def write() -> tuple[Batch, list[Row], list[Rejected]]:
            nonlocal batch
            if not self._status.store_up:
                self._pipeline.load(self._store)  # also one question, before it gets everything at once
                batch = self._pipeline.again(batch, _wall_ms())
            rows = [*batch.rows, *pending]
            return batch, rows, self._write(rows)

        batch, rows, rejected = self._insist(write, StoreUnavailable, self._note_outage)
        self._check_breaker(rows, rejected)
        return batch, rows, rejected

    def _write(self, rows: Sequence[Row]) -> list[Rejected]:
        if not rows:
            return []
        self._metrics.count("store_attempts_total")
        start_s = time.monotonic()
        try:
            with self._metrics.in_state("write"):
                rejected = self._store.write(rows)
        finally:
            self._requests.report()
        self._metrics.observe("store_write_seconds", time.monotonic() - start_s)
        self.set_store_up(True)
        return rejected

    def _check_breaker(self, rows: Sequence[Row], rejected: Sequence[Rejected]) -> None:
        sentence = self._breaker.note(rows, rejected)
        if sentence is not None:
            raise StoreMisconfigured(sentence)

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        left = list(letters)

        def send() -> None:
            nonlocal left
            with self._metrics.in_state("dlq"):
                sent, left, why, kind = self._letters.send(left)
            self._note_buried(sent, left)
            if left:
                self._metrics.count("dlq_failed_total", len(left), reason=kind)
                message = f"{len(left)} dead letters can't be written to {self._letters.topic} ({why})"
                raise BrokerUnavailable(message)

        if left:
            self._insist(send, BrokerUnavailable, self._note_unburied)

    def _insist(self, action: Callable[[], T], failure: type[Exception], note: Callable[[Exception], None]) -> T:
        """Repeat `action` until it does not raise `failure`. Raises Unfinished when it is time to give up."""
        backoff = Backoff()
        while True:
            self._status.beat("writer")
            try:
                return action()
            except failure as exc:
                note(exc)
                self._give_up_if_due(exc)
            with self._metrics.in_state("retry_wait"):
                time.sleep(backoff.next_s())

    def _give_up_if_due(self, exc: Exception) -> None:
        if self._give_up_s is not None and time.monotonic() > self._give_up_s:
            message = f"stopped with events unstored, which stay in the topics: {exc}"
            raise Unfinished(message) from exc

    def _derive(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s["derive"]:
            return
        try:
            with self._metrics.in_state("derive"):
                now_ms = self.now_ms()
                if now_s >= self._adopt_again_s:
                    self._adopt_again_s, self._next_s["adopt"] = math.inf, 0.0
                self._when_due("adopt", ADOPT_EVERY_S, lambda: self._deriver.adopt(now_ms))
                self._metrics.count("derived_total", self._deriver.run_due(now_ms, idle=self._is_idle))
        except StoreUnavailable as exc:
            self._next_s["derive"] = now_s + DERIVE_AGAIN_S
            self._metrics.count("derived_failures_total", reason=_kind(exc))
            self._note_outage(exc)

    def _ping(self) -> None:
        try:
            self._store.ping()
        except StoreUnavailable as exc:
            self._note_outage(exc)
        else:
            self.set_store_up(True)

    def _load_erasures(self) -> None:
        try:
            self._pipeline.load(self._store)
        except StoreUnavailable as exc:
            self._note_outage(exc)

    def _when_due(self, name: str, every_s: float, action: Callable[[], object]) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s[name]:
            self._next_s[name] = now_s + every_s
            action()

    def _note_batch(self, batch: Batch, rows: Sequence[Row], rejected: Sequence[Rejected]) -> None:
        tables = count_tables(rows)
        tables.subtract(rows[r.index].table for r in rejected)
        for table, count in tables.items():
            self._metrics.count("store_rows_total", count, table=table)
        self._metrics.count("expired_total", batch.expired)
        self._metrics.count("erased_total", batch.erased)
        for letter in batch.dead:
            self._metrics.count("decode_errors_total", reason=letter.reason)
        stamps_ms = [record.timestamp_ms for record in batch.records if record.timestamp_ms]
        if stamps_ms:
            self._metrics.observe("event_to_store_seconds", max(0.0, time.time() - min(stamps_ms) / 1000))

    def _note_underived(self, rejected: Sequence[Rejected]) -> None:
        """Count rows that only what is derived is made from: their events are stored, and are no dead letters."""
        if rejected:
            self._metrics.failed()
            self._metrics.count("derived_refused_total", len(rejected))
            log.warning("%d rows that rollups are made from were refused: %s", len(rejected), rejected[0].message)

    def _note_outage(self, exc: Exception) -> None:
        self.set_store_up(False)
        self._metrics.failed()
        self._metrics.count("store_retries_total", reason=_kind(exc))
        log.warning("the store can't be written, its events wait in the topics: %s", exc)

    def _note_buried(self, sent: Sequence[DeadLetter], left: Sequence[DeadLetter]) -> None:
        self._status.dead_letters_up = not left
        self._metrics.set("dlq_pending", len(left))
        for letter in sent:
            self._metrics.count("dlq_produced_total", reason=letter.reason)

    def _note_unburied(self, exc: Exception) -> None:
        self._metrics.failed()
        self._metrics.count("dlq_retries_total")
        log.warning("%s; it is tried again, no offset moves: `voicelog-sink init` makes the topic", exc)


def _wall_ms() -> int:
    return int(time.time() * 1000)


def _kind(exc: Exception) -> str:
    return type(exc.__cause__ or exc).__name__
