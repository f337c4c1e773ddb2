"""What each step of the sink costs an event, without servers: `python -m benchmarks.steps`.

The same traffic as benchmarks/sink.py. Processor time, the least of several rounds; the driver and the store's own work
are not in it.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import TypeVar

from benchmarks.traffic import sent

from voicelog.wire import read
from voicelog_sink.commands.run import spare_collector
from voicelog_sink.duplicates import Duplicates
from voicelog_sink.parts import measurements
from voicelog_sink.rows import rows_of
from voicelog_sink.stores.cql import UNSET
from voicelog_sink.stores.cql_rows import Encoded, TableEncoder, batches
from voicelog_sink.stores.lifetime import lifetime_ms
from voicelog_sink.tables import TABLES
from voicelog_sink.work import Work

T = TypeVar("T")
TTL_DAYS = 90


def measured(name: str, events: int, rounds: int, step: Callable[[], T]) -> T:
    """Print what the step costs an event, and return what it gave."""
    least_s = float("inf")
    for _ in range(rounds):
        start_s = time.process_time()
        found = step()
        least_s = min(least_s, time.process_time() - start_s)
    print(f"{name:28}{least_s / events * 1e6:8.2f} us an event", flush=True)
    return found


def main() -> None:
    """Measure the steps in the order of an event's way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=2_000, help="events, which are one batch")
    parser.add_argument("--calls", type=int, default=500, help="calls that are active at once")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    now_ms = time.time_ns() // 1_000_000
    values = [s.message.value for s in sent(args.n, args.calls, now_ms * 1000, "steps")]
    spare_collector()

    def step(name: str, work: Callable[[], T]) -> T:
        gc.collect()
        return measured(name, args.n, args.rounds, work)

    events = step("read", lambda: [read(value) for value in values])
    rows = step("rows", lambda: [row for event in events for row in rows_of(event)])
    encoders = {name: TableEncoder(table, lifetime_ms(table, TTL_DAYS), UNSET) for name, table in TABLES.items()}

    def encode() -> dict[str, list[Encoded]]:
        found: dict[str, list[Encoded]] = {}
        for number, (table, columns) in enumerate(rows):
            row = encoders[table].encode(number, columns, now_ms)
            if row is not None:
                found.setdefault(table, []).append(row)
        return found

    encoded = step("encode (CQL)", encode)
    requests = step("batches (CQL)", lambda: [b for of_table in encoded.values() for b in batches(of_table)])
    step("rollups' parts", lambda: measurements(events))
    step("calls to recompute", lambda: Work("steps", 100_000).note(events, now_ms))
    step("duplicates", lambda: Duplicates().note(events))
    columns = sum(len(row.values) for row in rows)
    print(
        f"{len(rows) / args.n:.2f} rows an event of {columns / len(rows):.1f} columns; "
        f"{len(requests) / args.n:.2f} CQL requests an event"
    )


if __name__ == "__main__":
    main()
