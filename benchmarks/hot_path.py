"""What one stage costs the caller, beside its peers: `make bench`.

Each contender runs in a process of its own, in turns, several rounds; a figure is the lowest of the rounds, since what
another load on the machine adds is nobody's cost. There are two ways of running: back to back, one stage after the
other, where background threads compete with the caller for the interpreter, which is what the limits are held in; and
paced, in bursts at a fixed rate, as a busy bot's stages come. CPU is the whole process's, from the first stage to the
end of the flush, less what the bare loop takes. Ratios decide; absolute times inform.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, NOTHING

from servers import servers

BURST = 20
WARM_UP = 500
OURS = "voicelog"
LIMITS = (
    ("p50_us", "p50", "opentelemetry", 8, 5),
    ("p999_us", "p99.9", "opentelemetry", 10, 0),
    ("cpu_us", "CPU", "opentelemetry", 12, 10),
)
"""Figure, its name, the contender beside it, how many times less voicelog shall take, and at most how much."""


def percentile(ordered: list[int], share: float) -> float:
    """Return a percentile in microseconds from ordered nanoseconds."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000


def measure(name: str, kafka: str, http: str, count: int, rate: int) -> dict[str, float]:
    """Run one contender in this process, `rate` stages a second or (0) back to back; returns its figures."""
    operation, flush = CONTENDERS[name](kafka, http)
    for _ in range(WARM_UP):
        operation()
    flush()
    gc.collect()
    taken = [0] * count
    clock = time.perf_counter_ns
    cpu, rss = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin_s = time.perf_counter()
    for first in range(0, count, BURST):
        for index in range(first, min(first + BURST, count)):
            start = clock()
            operation()
            taken[index] = clock() - start
        ahead_s = begin_s + (first + BURST) / rate - time.perf_counter() if rate else 0
        if ahead_s > 0:
            time.sleep(ahead_s)
    lost = flush()
    taken.sort()
    return {
        "p50_us": percentile(taken, 0.5),
        "p99_us": percentile(taken, 0.99),
        "p999_us": percentile(taken, 0.999),
        "cpu_us": (time.process_time() - cpu) / count * 1e6,
        "grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss) / 1024,
        "lost_percent": 100 * (lost or 0) / (count + WARM_UP),
    }


def streaming(kafka: str, http: str, count: int, rate: int) -> dict[str, float]:
    """Measure what decorating an async generator adds to an item, nanoseconds."""
    import voicelog

    CONTENDERS["voicelog"](kafka, http)

    async def bare(items: int) -> Any:
        for item in range(items):
            yield item

    async def consume(stream: Any) -> int:
        start = time.perf_counter_ns()
        async for _ in stream:
            pass
        return time.perf_counter_ns() - start

    async def main() -> float:
        decorated = voicelog.stage("llm")(bare)
        rounds = []
        for _ in range(20):
            plain, timed = await consume(bare(count)), await consume(decorated(count))
            rounds.append((timed - plain) / count)
        return statistics.median(rounds)

    return {"item_ns": asyncio.run(main())}


def memory(kafka: str, http: str, count: int, rate: int) -> dict[str, float]:
    """Measure how much the process grew by between the 100,000th event and the last one, MB."""
    operation, flush = CONTENDERS["voicelog"](kafka, http)
    early = 0
    for index in range(count):
        operation()
        if index % 10_000 == 9_999:
            flush()
        if index == min(100_000, count // 2):
            early = _rss_kb()
    flush()
    return {"grown_mb": (_rss_kb() - early) / 1024}


def _rss_kb() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


PARTS = {"streaming": streaming, "memory": memory}


def in_own_process(name: str, kafka: str, http: str, count: int, rate: int) -> dict[str, float]:
    """Run one measurement in a fresh process."""
    where = ["--kafka", kafka, "--http", http]
    command = [sys.executable, __file__, "--run", name, *where, "-n", str(count), "--rate", str(rate)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(kafka: str, http: str, args: argparse.Namespace, rate: int) -> dict[str, dict[str, float]]:
    """Run every contender in turns; returns the lowest of each figure, CPU less the bare loop's."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(args.rounds):
        for name, found in rounds.items():
            print(f"\r\033[Kround {number + 1} of {args.rounds}: {name}", end="", file=sys.stderr, flush=True)
            found.append(in_own_process(name, kafka, http, args.n if not rate else args.n // 2, rate))
    print("\r\033[K", end="", file=sys.stderr)
    figures = {
        name: {key: min(figures[key] for figures in found) for key in found[0]} for name, found in rounds.items()
    }
    loop = figures.pop(NOTHING)
    for row in figures.values():
        row["cpu_us"] = max(0.0, row["cpu_us"] - loop["cpu_us"])
    return figures


def show(title: str, figures: dict[str, dict[str, float]]) -> None:
    """Print the table and the ratios."""
    head = f"{'p50 us':>9}{'p99 us':>9}{'p99.9 us':>10}{'CPU us':>9}{'grown MB':>10}{'lost %':>8}"
    print(f"{title:28}{head}   times voicelog's p50, p99.9, CPU")
    ours = figures[OURS]
    for name, row in figures.items():
        ratios = "  ".join(f"{row[key] / ours[key]:6.1f}" for key in ("p50_us", "p999_us", "cpu_us"))
        print(
            f"{name:28}{row['p50_us']:9.2f}{row['p99_us']:9.1f}{row['p999_us']:10.1f}{row['cpu_us']:9.1f}"
            f"{row['grown_mb']:10.1f}{row['lost_percent']:8.1f}   {ratios}"
        )
    print()


def judge(figures: dict[str, dict[str, float]]) -> None:
    """Print what is held of the limits: ratios, which decide, and absolute times, which inform."""
    import voicelog

    print(f"{OURS}'s stages run in {'C' if voicelog.stats()['accelerated'] else 'Python: the extension is not built'}")
    for key, name, peer, wanted, at_most_us in LIMITS:
        ours, ratio = figures[OURS][key], figures[peer][key] / figures[OURS][key]
        verdict = "held" if ratio >= wanted else "NOT held"
        absolute = f"; {ours:.1f} us, {at_most_us} us wanted" if at_most_us else ""
        print(f"{name}: 1/{ratio:.1f} of {peer}'s; at most 1/{wanted} wanted: {verdict}{absolute}")


def main() -> None:
    """Measure everything, or one part in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10_000, help="stages a run, half of them in a paced one")
    parser.add_argument("--rate", type=int, default=2_000, help="stages a second of the paced run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000_000, help="events for the memory's part")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--kafka", help=argparse.SUPPRESS)
    parser.add_argument("--http", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        part = PARTS.get(args.run)
        where = (args.kafka, args.http, args.n, args.rate)
        print(json.dumps(part(*where) if part else measure(args.run, *where)))
        return
    with servers() as (kafka, http):
        tight = compare(kafka, http, args, 0)
        show("back to back", tight)
        judge(tight)
        print()
        show(f"paced, {args.rate:,} a second", compare(kafka, http, args, args.rate))
        item_ns = in_own_process("streaming", kafka, http, 10_000, args.rate)["item_ns"]
        print(f"streaming: {item_ns:.0f} ns an item of a decorated async generator, beside the undecorated one")
        grown = in_own_process("memory", kafka, http, args.events, args.rate)["grown_mb"]
        print(f"memory: {grown:+.1f} MB from the 100,000th to the {args.events:,}th event")


if __name__ == "__main__":
    main()
