"""One backlog: the bare driver writes its rows, then the sink is let go on its messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.places import Place
from benchmarks.raw_stores import RawCql, RawSqlite, timed
from benchmarks.sink_process import SinkProcess, quantile_ms
from benchmarks.traffic import Sent
from tests.running import Raw, produce

from voicelog_sink.rows import rows_of


class Round(NamedTuple):
    """The figures of one backlog, or of several as their medians."""

    events_per_s: float
    rows_per_s: float
    raw_events_per_s: float
    ratio: float
    cpu_us: float
    write_p50_ms: float
    write_p99_ms: float


def backlog(place: Place, process: SinkProcess, raw: RawCql | RawSqlite, all_sent: Sequence[Sent]) -> Round:
    """Measure one backlog with both; the sink stands still while the bare driver and the producer work."""
    count = len(all_sent)
    process.pause()
    ready = raw.ready([row for event, _ in all_sent for row in rows_of(event)], place.window_rows)
    raw_per_s = count / timed(raw, ready)
    del ready
    produce(place.brokers, (Raw(m.topic, m.value, m.key) for _, m in all_sent), place.prefix)
    return _drain(process, count, raw_per_s)


def _drain(process: SinkProcess, count: int, raw_per_s: float) -> Round:
    process.resume()
    before = process.look()
    after = process.wait_stored(process.expected(count))
    took_s = after.at_s - before.at_s
    per_s = (after.stored - before.stored) / took_s
    return Round(
        per_s,
        (after.rows - before.rows) / took_s,
        raw_per_s,
        per_s / raw_per_s,
        (after.cpu_s - before.cpu_s) / count * 1e6,
        quantile_ms(before.writes, after.writes, 0.5),
        quantile_ms(before.writes, after.writes, 0.99),
    )
