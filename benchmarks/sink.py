"""What the sink stores in a second, beside the bare drivers, and what it takes for it: `make bench-sink`.

The sink is the real daemon in a process of its own, between a real Kafka broker and a real database. For a figure it
is frozen, a backlog is produced, and it is let go: events a second, CPU and writes are counted until all is stored.
In turns with it, in the same run and on the same machine, the bare driver writes the rows of the same events, made
ready beforehand. The ratio decides, since machines differ and this one may be shared. Then events come at a steady
rate, and a reader looks for them in the store until it sees them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.latency import latency
from benchmarks.places import Place
from benchmarks.raw_stores import timed
from benchmarks.rounds import Round, backlog
from benchmarks.traffic import sent
from tests.servers import CassandraServer, KafkaServer

from voicelog_sink.rows import rows_of

RATIO_WANTED, CPU_WANTED_US, RSS_WANTED_MB, SQLITE_WANTED = 0.6, 60, 150, 40_000
DECISIVE = 500
"""Calls at once at which the limits are held; the others are published."""
STORES = ("cql", "sqlite")


@contextmanager
def servers(stores: list[str]) -> Iterator[tuple[str, str]]:
    """Run a broker, and a database if it is asked for, as a server is run; yields the address and the URL.

    VOICELOG_TEST_BROKERS and VOICELOG_TEST_CQL name servers that are there already.
    """
    with ExitStack() as stack:
        compiled = ("-XX:TieredStopAtLevel=4",)
        brokers, cql = os.environ.get("VOICELOG_TEST_BROKERS"), os.environ.get("VOICELOG_TEST_CQL")
        if not brokers:
            brokers = stack.enter_context(KafkaServer(jvm_options=compiled)).bootstrap
        if not cql and "cql" in stores:
            cql = stack.enter_context(CassandraServer(jvm_options=compiled, durable=False)).url()
        yield brokers, cql or ""


def warm(place: Place, seconds: float) -> None:
    """Write with the bare driver until the database has compiled and cached what it needs."""
    end_s, number = time.monotonic() + seconds, 0
    with place.raw() as raw:
        while time.monotonic() < end_s:
            rows = [row for e, _ in sent(5_000, DECISIVE, _now_us(), f"warm{number}") for row in rows_of(e)]
            timed(raw, raw.ready(rows, place.window_rows))
            number += 1


def throughput(place: Place, active: int, args: argparse.Namespace) -> tuple[Round, float]:
    """Measure backlogs of so many calls at once, in turns with the bare driver; returns medians and the peak RSS."""
    with place.raw() as raw, place.sink() as process:
        backlog(place, process, raw, sent(min(args.n, 5_000), active, _now_us(), f"first{active}"))
        rounds = []
        for number in range(args.rounds):
            _tell(f"{place.store}, {active} calls: round {number + 1} of {args.rounds}")
            rounds.append(backlog(place, process, raw, sent(args.n, active, _now_us(), f"r{active}-{number}")))
        _tell("")
        return Round(*(statistics.median(values) for values in zip(*rounds, strict=True))), process.peak_rss_mb()


def compare(place: Place, args: argparse.Namespace) -> None:
    """Measure and print one store's table, a line as soon as it is known, and what is held of the limits."""
    raw = "driver" if place.store == "cql" else "sqlite3"
    print(
        f"\nbroker to {place.store:12}{'events/s':>10}{'rows/s':>10}{'bare ' + raw:>14}{'ratio':>7}{'CPU us':>8}"
        f"{'write p50 ms':>14}{'p99':>7}{'RSS MB':>8}"
    )
    found = {}
    for active in args.calls:
        r, rss_mb = found[active] = throughput(place, active, args)
        print(
            f"{active:8,} calls at once{r.events_per_s:10,.0f}{r.rows_per_s:10,.0f}{r.raw_events_per_s:14,.0f}"
            f"{r.ratio:7.2f}{r.cpu_us:8.1f}{r.write_p50_ms:14.0f}{r.write_p99_ms:7.0f}{rss_mb:8.0f}",
            flush=True,
        )
    if DECISIVE in found:
        print("\n".join(verdicts(place.store, *found[DECISIVE])))


def verdicts(store: str, figures: Round, rss_mb: float) -> list[str]:
    """Return what is held of the limits, a sentence each."""
    speed = (
        (f"of the bare driver's events, {RATIO_WANTED} wanted", figures.ratio, figures.ratio >= RATIO_WANTED)
        if store == "cql"
        else (f"events/s, {SQLITE_WANTED:,} wanted", figures.events_per_s, figures.events_per_s >= SQLITE_WANTED)
    )
    rest = (
        (f"us of CPU an event, at most {CPU_WANTED_US} wanted", figures.cpu_us, figures.cpu_us <= CPU_WANTED_US),
        (f"MB at most, {RSS_WANTED_MB} wanted", rss_mb, rss_mb <= RSS_WANTED_MB),
    )
    return [f"{value:,.2f} {what}: {'held' if held else 'NOT held'}" for what, value, held in (speed, *rest)]


def _now_us() -> int:
    return time.time_ns() // 1000


def _tell(text: str) -> None:
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=60_000, help="events of a backlog")
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 500, 5_000], help="calls that are active at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--parts", nargs="+", choices=("throughput", "latency"), default=["throughput", "latency"])
    parser.add_argument("--rate", type=int, default=1_000, help="events a second of the steady part")
    parser.add_argument("--seconds", type=float, default=60, help="how long the steady part goes on")
    parser.add_argument("--warm-up", type=float, default=60, help="seconds for which the database is written first")
    return parser.parse_args(given)


def main() -> None:
    """Measure what was asked for."""
    args = arguments()
    with servers(args.stores) as (brokers, cql), tempfile.TemporaryDirectory(prefix="voicelog-bench-") as folder:
        for store in args.stores:
            with Place.made(store, brokers, cql, Path(folder)) as place:
                if store == "cql":
                    warm(place, args.warm_up)
                if "throughput" in args.parts:
                    compare(place, args)
                if "latency" in args.parts:
                    print(latency(place, args.rate, args.seconds))
        print(f"\n{os.cpu_count()} processors; load {' '.join(f'{load:.1f}' for load in os.getloadavg())} at the end")


if __name__ == "__main__":
    main()
