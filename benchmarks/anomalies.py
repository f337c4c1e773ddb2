"""How often `anomalies` is wrong, how much it sees, and what it costs.

    PYTHONPATH=src:. python -m benchmarks.anomalies [--parts alarms,power,cost] [--hours 8000] [--store URL]

alarms and power: log-normal latencies (sigma 0.6) that are the same in the long run, hour by hour through the sink's
own rollups; each hour is judged by the 14 days before it. Shares of healthy hours that departed, and of slower ones
that were seen to. cost: 15 days of hour rollups of the recorded calls' names, and 20 combinations of dimensions.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from benchmarks.months import HOUR_MS, dimensions, sources
from benchmarks.recorded import COMBINATIONS, slowness

from voicelog.settings import load
from voicelog_sink.anomalies import anomalies
from voicelog_sink.baseline import DAYS
from voicelog_sink.departure import DEPARTS, Rules, judge
from voicelog_sink.hourly import POINTS, Hour, Measured, measured
from voicelog_sink.measures import TIMES, Measure
from voicelog_sink.rollup import Name, Rollup, name_row, names_of, unpack
from voicelog_sink.rows import hour_of
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Row, Store

SIGMA = 0.6
MEDIAN_MS = 400.0
NOISES = {"alike": (0.0, 0.0), "2 % + 3 %": (0.02, 0.03), "5 % + 8 %": (0.05, 0.08)}
"""By how much days differ, and hours beside it: standard deviations of the logarithm."""
NUMBERS = (30, 100, 1_000)
FACTORS = {"a quarter slower": 1.25, "half as slow again": 1.5, "twice as slow": 2.0}
RULES = {"z 5": Rules(), "z 4": Rules(threshold=4.0), "z 5, 7 days": Rules(days=7)}
FIRST = 24 * 20_000
WHO = ("front-desk", "openai", "gpt-4o", "")
NAME = names_of("llm", "stage")[0]


class Noise(NamedTuple):
    """By how much days and hours differ."""

    days: float
    hours: float


class Hours:
    """Hours of values that are the same in the long run, each made when it is asked for, and kept."""

    def __init__(self, number: int, noise: Noise, seed: int) -> None:
        self._number = number
        self._noise = noise
        self._random = Random(seed)
        self._days: dict[int, float] = {}
        self._hours: dict[int, Hour] = {}

    def get(self, hour: int) -> Hour:
        if hour not in self._hours:
            self._hours[hour] = self.new(hour)
        return self._hours[hour]

    def new(self, hour: int, factor: float = 1.0) -> Hour:
        day = self._days.setdefault(hour // 24, self._random.lognormvariate(0, self._noise.days))
        middle = MEDIAN_MS * factor * day * self._random.lognormvariate(0, self._noise.hours)
        rollup = Rollup()
        took = [middle * self._random.lognormvariate(0, SIGMA) for _ in range(self._number)]
        rollup.add(took, [0] * self._number, [None] * self._number)
        row = rollup.row(NAME, "hour", hour_of(hour * HOUR_MS * 1000), hour * HOUR_MS, WHO)
        return measured([unpack(row.values["sketch"])])


def judged(hours: Hours, count: int, rules: Rules, factor: float = 1.0) -> dict[str, float]:
    """Return the shares of `count` hours that departed, by percentile; of hours slower by `factor`, upwards."""
    departed = dict.fromkeys(POINTS, 0)
    for hour in range(FIRST, FIRST + count):
        now = hours.get(hour) if factor == 1.0 else hours.new(hour, factor)
        for measure in TIMES:
            verdict = judge(hour, _at(hours, hour, now, measure), measure, rules)
            departed[measure.name] += verdict.state == DEPARTS and (factor == 1.0 or verdict.z > 0)
    return {name: number / count for name, number in departed.items()}


def _at(hours: Hours, hour: int, now: Hour, measure: Measure) -> Callable[[int], Measured | None]:
    return lambda other: (now if other == hour else hours.get(other)).get(measure.name)


def show_alarms(count: int) -> None:
    """Print the shares of healthy hours that departed."""
    for told, rules in RULES.items():
        print(f"\nfalse alarms, {told}: share of healthy hours whose p50 / p95 departed")
        print(f"{'values an hour':>16}" + "".join(f"{name:>22}" for name in NOISES) + f"{'hours':>8}")
        for number in NUMBERS:
            hours = _count(count, number)
            found = [judged(Hours(number, Noise(*noise), 1), hours, rules) for noise in NOISES.values()]
            print(f"{number:>16}" + "".join(f"{_shares(one, 2):>22}" for one in found) + f"{hours:>8}", flush=True)


def show_power(count: int) -> None:
    """Print the shares of slower hours that departed."""
    print("\nseen, z 5, days differ by 2 % and hours by 3 % more: share of slower hours whose p50 / p95 departed")
    print(f"{'values an hour':>16}" + "".join(f"{name:>22}" for name in FACTORS) + f"{'hours':>8}")
    for number in NUMBERS:
        tried = _count(count, number) // 4
        hours = Hours(number, Noise(*NOISES["2 % + 3 %"]), 2)
        found = [judged(hours, tried, RULES["z 5"], factor) for factor in FACTORS.values()]
        print(f"{number:>16}" + "".join(f"{_shares(one, 0):>22}" for one in found) + f"{tried:>8}", flush=True)


def _count(count: int, number: int) -> int:
    return count // 4 if number > 500 else count


def _shares(found: dict[str, float], digits: int) -> str:
    return " / ".join(f"{share * 100:.{digits}f} %" for share in found.values())


def show_cost(url: str) -> None:
    """Print what looking takes, by the period that is looked at."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(load({"store": url or f"sqlite:///{folder}/hours.db"}, {})[0])
        store.open(60_000)
        store.init()
        now_ms = int(time.time() * 1000)
        names, rows = _fill(store, now_ms)
        print(f"\ncost: {names} names x {COMBINATIONS} combinations, {DAYS} days, {rows:,} rows of hours")
        for hours in (2, 6, 24):
            began_s, cpu_s = time.perf_counter(), time.process_time()
            found = anomalies(store, now_ms - hours * HOUR_MS, now_ms)
            took = f"{time.perf_counter() - began_s:.2f} s, CPU {time.process_time() - cpu_s:.2f} s"
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{hours:>4} h: {took}; {found.judged} judged, {len(found.anomalies)} depart; RSS at most {rss:.0f} MB"
            )
        store.close()


def _fill(store: Store, now_ms: int) -> tuple[int, int]:
    names, count = set(), 0
    batch: list[Row] = []
    for row in _hour_rows(now_ms // HOUR_MS):
        names.add(row.values.get("name"))
        batch.append(row)
        count += 1
        if len(batch) == 1_000:
            assert store.write(batch) == []
            batch = []
    assert store.write(batch) == []
    return len(names), count


def _hour_rows(now: int) -> Iterator[Row]:
    """Yield an hour's row for each name, combination and hour, of 60 values."""
    random = Random(3)
    for source in sources():
        for name, pool in zip(names_of(source.name, source.kind), (source.values, source.firsts), strict=False):
            if not pool:
                continue
            for hour in range(now - 24 * (DAYS + 1), now + 1):
                start = hour_of(hour * HOUR_MS * 1000)
                yield name_row(Name(name, source.kind, source.name, "ms"), start)
                for combination in range(COMBINATIONS):
                    rollup, slow = Rollup(), slowness(combination)
                    took = [random.choice(pool) * slow * random.lognormvariate(0, 0.2) for _ in range(60)]
                    rollup.add(took, [0] * 60, [0.0001] * 60)
                    yield rollup.row(name, "hour", start, hour * HOUR_MS, dimensions(combination))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="alarms,power,cost")
    parser.add_argument("--hours", type=int, default=8_000)
    parser.add_argument("--store", default="")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if "alarms" in parts:
        show_alarms(given.hours)
    if "power" in parts:
        show_power(given.hours)
    if "cost" in parts:
        show_cost(given.store)


if __name__ == "__main__":
    main()
