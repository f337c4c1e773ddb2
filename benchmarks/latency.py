"""The steady part: events at a fixed rate, and how long each of some takes until a reader finds it in the store."""

from __future__ import annotations

import threading
import time
from collections import deque

from benchmarks.places import Place
from benchmarks.sink_process import quantile_ms
from benchmarks.traffic import events
from confluent_kafka import Producer

from voicelog import wire
from voicelog.events import Event
from voicelog_sink.stores.base import Store

ACTIVE = 500
TICK_S = 0.01
LOOK_EVERY_S = 0.005
LOOK_AGAIN = 0.2
"""A look that finds nothing comes again after this part of the time it has waited: each answer is so much too long at
most, and looking does not become the load that is measured."""
SAMPLES_PER_S = 10
LINGER_MS = 20
"""As the library has it by default."""
WRITE_P99_WANTED_MS, READABLE_P99_WANTED_MS = 50, 500


class Reader(threading.Thread):
    """Looks for events in the store until it sees them; `taken_ms` is how long that was, from producing."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="reader", daemon=True)
        self._store = store
        self._waiting: deque[tuple[Event, float, float]] = deque()
        self._over = threading.Event()
        self.taken_ms: list[float] = []

    def watch(self, event: Event) -> None:
        """Look for this event, which was produced just now."""
        self._waiting.append((event, time.perf_counter(), 0.0))

    def finish(self) -> list[float]:
        """Return every time, in order, once all were seen."""
        self._over.set()
        self.join(60)
        assert not self._waiting, f"{len(self._waiting)} events were not readable within a minute"
        return sorted(self.taken_ms)

    def run(self) -> None:
        """Look at the oldest event until it is there."""
        while self._waiting or not self._over.is_set():
            for _ in range(len(self._waiting)):
                event, since_s, again_s = self._waiting.popleft()
                if time.perf_counter() < again_s:
                    self._waiting.append((event, since_s, again_s))
                elif self._sees(event):
                    self.taken_ms.append((time.perf_counter() - since_s) * 1000)
                else:
                    now_s = time.perf_counter()
                    self._waiting.append((event, since_s, now_s + LOOK_AGAIN * (now_s - since_s)))
            time.sleep(LOOK_EVERY_S)

    def _sees(self, event: Event) -> bool:
        at_ms = event.ts // 1000
        found = self._store.select(
            "voice_interactions", [{"session_id": event.session_id}], since_ms=at_ms, until_ms=at_ms + 1
        )
        return any((row["stream_id"], row["seq"]) == (event.stream_id, event.seq) for row in found)


def latency(place: Place, rate: int, seconds: float) -> str:
    """Produce `rate` events a second for `seconds`; return the sentence with what the sink and the reader saw."""
    with place.sink() as process, place.reader() as store:
        steady(place, rate, min(3.0, seconds), Reader(store))  # connections, prepared statements, first pages
        process.wait_stored(1)
        before = process.look()
        taken = steady(place, rate, seconds, Reader(store))
        after = process.look()
    p50, p99 = taken[len(taken) // 2], taken[int(len(taken) * 0.99)]
    write_p50, write_p99 = (quantile_ms(before.writes, after.writes, share) for share in (0.5, 0.99))
    cpu = (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s) * 100
    held = "held" if write_p99 < WRITE_P99_WANTED_MS and p99 < READABLE_P99_WANTED_MS else "NOT held"
    return (
        f"{place.store}, {rate:,} events/s for {seconds:.0f} s: readable after {p50:.0f} ms p50, {p99:.0f} ms p99 "
        f"({len(taken)} looked for); a write {write_p50:.0f} ms p50, {write_p99:.0f} ms p99; CPU {cpu:.0f} %; "
        f"p99 below {READABLE_P99_WANTED_MS} and {WRITE_P99_WANTED_MS} ms wanted: {held}"
    )


def steady(place: Place, rate: int, seconds: float, reader: Reader) -> list[float]:
    """Produce at a steady rate; returns the reader's times."""
    producer = Producer({"bootstrap.servers": place.brokers, "linger.ms": LINGER_MS, "log_level": 0})
    reader.start()
    made, begin_s, every = events(ACTIVE, time.time_ns() // 1000, f"l{time.time_ns()}"), time.perf_counter(), 0
    sent = 0
    while sent < rate * seconds:
        due = min(int((time.perf_counter() - begin_s) * rate), int(rate * seconds))
        for _ in range(sent, due):
            event = next(made)
            topic, key, value, _ = wire.encode(event)
            producer.produce(place.prefix + topic, value, key)
            sent += 1
            if event.session_id and sent * SAMPLES_PER_S // rate > every:
                every = sent * SAMPLES_PER_S // rate
                reader.watch(event)
        producer.poll(0)
        time.sleep(TICK_S)
    producer.flush(30)
    return reader.finish()
