"""How long `voicelog-sink stats` takes over rollups of many days: percentiles of one name, and of all names.

    python benchmarks/stats.py [--store scylla://HOST:PORT/KEYSPACE?local_dc=DC] [--days 90] [--combinations 20]

Makes the rollups that the sink would have made of so many days, with log-normal latencies, `--values` of them a day and
combination: each day's row, and the hours and minutes that a period's edges may touch (the first two days and the last
two). Reads them back by all four dimensions, over whole days and over a period that begins and ends within a minute.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator

from voicelog.settings import load
from voicelog_sink.parts import STAGE, TURN
from voicelog_sink.rollup import Dimensions, Name, Rollup, name_row, names_of
from voicelog_sink.rows import DAY_MS, hour_of
from voicelog_sink.stats import stats
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Row, Store

HOUR_MS = 3_600_000
NAMES = (
    ("stt", STAGE), ("llm", STAGE), ("tts", STAGE), ("tool", STAGE),
    *((f"turn.{figure}", TURN) for figure in (
        "user_bot_latency_ms", "transcription_delay_ms", "end_of_turn_delay_ms", "llm_ttft_ms", "llm_first_sentence_ms",
        "text_aggregation_ms", "tts_ttfb_ms", "playback_latency_ms", "tool_call_ms", "unattributed_ms",
    )),
)  # fmt: skip
BY = ("service", "provider", "model", "variant")
RUNS = 7


def combinations(count: int) -> list[Dimensions]:
    return [
        ("front-desk", f"provider-{n % 5}", f"model-{n % 10}", "ab"[n // 10 % 2] + str(n // 20)) for n in range(count)
    ]


def starts(first_ms: int, days: int) -> Iterator[tuple[str, int, int]]:
    """Yield each tier's times: tier, start, and which part of a day it is (1 / that)."""
    for day in range(days):
        day_ms = first_ms + day * DAY_MS
        yield "day", day_ms, 1
        if 2 <= day < days - 2:
            continue
        for hour in range(24):
            yield "hour", day_ms + hour * HOUR_MS, 24
            for minute in range(60):
                yield "minute", day_ms + hour * HOUR_MS + minute * 60_000, 1440


def rows(first_ms: int, days: int, count: int, values: int, sources: tuple[tuple[str, str], ...]) -> Iterator[Row]:
    draw = random.Random(1)
    month = ""
    for tier, start_ms, part in starts(first_ms, days):
        hour = hour_of(start_ms * 1000)
        for source, kind in sources:
            for name in names_of(source, kind):
                if hour[:7] != month:
                    yield name_row(Name(name, kind, source, "ms"), hour)
                for who in combinations(count):
                    rollup = Rollup()
                    took = [draw.lognormvariate(6, 0.6) for _ in range(max(values // part, 1))]
                    rollup.add(took, [0] * len(took), [0.0001] * len(took))
                    yield rollup.row(name, tier, hour, start_ms, who)
        month = hour[:7]


def fill(store: Store, made: Iterator[Row]) -> int:
    number, some = 0, []
    for row in made:
        some.append(row)
        if len(some) == 2_000:
            store.write(some)
            number, some = number + len(some), []
    store.write(some)
    return number + len(some)


def measure(store: Store, first_ms: int, days: int) -> None:
    until_ms = first_ms + days * DAY_MS
    periods = (("whole days", first_ms, until_ms), ("odd minutes", first_ms + 1234 * 60_000, until_ms - 1234 * 60_000))
    asked = (("one figure", ("turn.user_bot_latency_ms",)), ("one stage", ("llm",)), ("all names", ()))
    for what, only in asked:
        for how, since, until in periods:
            took_ms, cpu_ms = [], []
            for _ in range(RUNS):
                begin, cpu = time.perf_counter(), time.process_time()
                found = stats(store, since, until, BY, only=only)
                took_ms.append((time.perf_counter() - begin) * 1000)
                cpu_ms.append((time.process_time() - cpu) * 1000)
            print(f"{what:>10}, {how:>11}: {len(found):4} rows of the answer, of {sum(row.count for row in found):,}"
                  f" values; median {statistics.median(took_ms):.0f} ms, longest {max(took_ms):.0f} ms; CPU "
                  f"{statistics.median(cpu_ms):.0f} ms")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--combinations", type=int, default=20)
    parser.add_argument("--values", type=int, default=2_000, help="values a day, name and combination")
    parser.add_argument("--names", type=int, default=len(NAMES), help="how many of the 14 sources are made")
    given = parser.parse_args()
    first_ms = (int(time.time() * 1000) // DAY_MS - given.days) * DAY_MS
    sources = tuple(sorted(NAMES, key=lambda one: one[0] not in ("llm", "turn.user_bot_latency_ms"))[: given.names])
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(load({"store": given.store or f"sqlite:///{folder}/stats.db"}, {})[0])
        store.open(30_000)
        store.init()
        begin = time.perf_counter()
        number = fill(store, rows(first_ms, given.days, given.combinations, given.values, sources))
        made = f"{number:,} rows of rollups, made in {time.perf_counter() - begin:.0f} s"
        print(f"{given.days} days of {given.combinations} combinations and {len(sources)} sources: {made}")
        measure(store, first_ms, given.days)
        store.close()


if __name__ == "__main__":
    main()
