"""How long reading takes with 1,000,000 events and 90 days of rollups stored.

    PYTHONPATH=. python -m benchmarks.reading [--stores sqlite cql] [--events 1000000] [--days 30]

The calls are the recorded ones of `voicelog-sink demo` with other lengths (recorded.py), each with its summary, as the
sink writes them; the rollups have the same values (months.py). Figures are of the read side's functions, in this
process: the least, the median and the longest of some runs, and its processor time; the database's is not in it. The
commands are measured apart, as one calls them.

--url fills or, with --filled, only reads a store of one's own: `--url sqlite:////tmp/reading.db`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

from benchmarks.months import EDGE_MS, rollup_rows
from benchmarks.recorded import RARE_MODEL, RARE_TEXT, calls
from tests.servers import CassandraServer
from tests.servers.cql import cql_session, drop_keyspace, with_keyspace

from voicelog.settings import load
from voicelog_sink.queries import Place, call, sessions_page
from voicelog_sink.rows import DAY_MS, rows_of
from voicelog_sink.stats import stats
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Row, Store
from voicelog_sink.summary import summarise, summary_rows
from voicelog_sink.wanted import Wanted

LIST_MS, STATS_MS = 100, 200
"""The design's limits."""
PAGE = 20
BATCH_ROWS = 6_000
MONTHS_DAYS = 90
BY = ("service", "provider", "model", "variant")
STORES = ("sqlite", "cql")
PARTS = ("lists", "months")


class Asked(NamedTuple):
    """A question: its limit, and what asks it and returns how many rows the answer has."""

    what: str
    limit_ms: float
    ask: Callable[[], int]


# Filling


def rows(events: int, begin_us: int, end_us: int) -> Iterator[Row]:
    """Yield all rows of the calls, as the sink makes them."""
    for one in calls(events, begin_us, end_us):
        for event in one:
            yield from rows_of(event)
        summary = summarise(one)
        if summary:
            yield from summary_rows(summary)


def fill(store: Store, what: str, made: Iterator[Row]) -> None:
    """Write the rows and say how many they were."""
    begin_s, number = time.monotonic(), 0
    while some := list(islice(made, BATCH_ROWS)):
        rejected = store.write(some)
        assert not rejected, rejected[:3]
        number += len(some)
        _tell(f"{what}: {number:,} rows, {time.monotonic() - begin_s:.0f} s")
    _tell("")
    print(f"{what}: {number:,} rows, written in {time.monotonic() - begin_s:.0f} s", flush=True)


def fill_all(store: Store, args: argparse.Namespace) -> None:
    store.init()
    now_ms = _now_ms()
    if "lists" in args.parts:
        begin_ms = now_ms - args.days * DAY_MS
        fill(store, f"{args.events:,} events over {args.days} days", rows(args.events, begin_ms * 1000, now_ms * 1000))
    if "months" in args.parts:
        first_ms = now_ms // DAY_MS * DAY_MS - MONTHS_DAYS * DAY_MS
        fill(store, f"rollups of {MONTHS_DAYS} days", rollup_rows(first_ms, MONTHS_DAYS, args.values))


# Asking


def of_lists(store: Store, days: int) -> Iterator[Asked]:
    """Yield the questions for lists of calls, and for one call."""
    now_ms = _now_ms()
    until_ms, since_ms, all_ms = now_ms + DAY_MS, now_ms - DAY_MS, now_ms - days * DAY_MS
    middle_ms = now_ms - days * DAY_MS // 2
    newest = sessions_page(store, all_ms, until_ms, 10 * PAGE).calls
    user_id = next(summary.user_id for summary in newest[PAGE:])

    def page(what: str, since: int = since_ms, until: int = until_ms, after: str | None = None, **wanted: Any) -> Asked:
        def ask() -> int:
            return len(sessions_page(store, since, until, PAGE, Wanted(**wanted), after).calls)

        return Asked(f"list: {what}", LIST_MS, ask)

    yield page("first page of 24 h")
    yield page(f"first page of {days} days", all_ms)
    yield page("a day in the middle", middle_ms, middle_ms + DAY_MS)
    yield page("11th page", all_ms, after=Place.of(newest[-1]).token)
    yield page("a page in the middle", all_ms, after=Place(middle_ms, "-").token)
    for what, since in (("24 h", since_ms), (f"{days} days", all_ms)):
        yield page(f"a model of ten, {what}", since, model="smollm2-135m-instruct-3")
        yield page(f"a variant of two, {what}", since, variant="b")
        yield page(f"slow from 8 s, {what}", since, slow_ms=8_000.0)
        yield page(f"failed, {what}", since, failed=True)
        yield page(f"failed, b, a service, {what}", since, failed=True, variant="b", service="orders")
        yield page(f"a model of 1 call in 1,000, {what}", since, model=RARE_MODEL)
        yield page(f"a text of every third call, {what}", since, text="free table")
        yield page(f"a user's, {what}", since, user=user_id)
        yield page(f"a user's, by text, {what}", since, text=user_id)
        yield page(f"a text of 1 call in 1,000, {what}", since, text=RARE_TEXT)
    session_id = newest[-1].session_id
    yield Asked("show: one call", LIST_MS, lambda: 1 if call(store, session_id) else 0)


def of_months(store: Store) -> Iterator[Asked]:
    """Yield the questions for percentiles."""
    until_ms = _now_ms() // DAY_MS * DAY_MS
    since_ms = until_ms - MONTHS_DAYS * DAY_MS
    periods = (("whole days", since_ms, until_ms), ("odd minutes", since_ms + EDGE_MS, until_ms - EDGE_MS))
    asked: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("one figure", ("turn.user_bot_latency_ms",)), ("one stage", ("llm",)), ("all names", ())
    )  # fmt: skip
    for what, only in asked:
        for how, since, until in periods:
            for by in (BY, ("model",)):
                name = f"stats: {what}, {how}, by {'all four' if by == BY else 'model'}"
                yield Asked(name, STATS_MS, lambda s=since, u=until, b=by, o=only: len(stats(store, s, u, b, only=o)))


def measure(asked: Asked, runs: int, seconds: float) -> None:
    """Print how long the answer takes: of `runs`, or as many as there are in so many seconds."""
    took_ms, cpu_ms, end_s, found = [], [], time.monotonic() + seconds, 0
    while len(took_ms) < runs and (len(took_ms) < 2 or time.monotonic() < end_s):
        begin_s, cpu_s = time.perf_counter(), time.process_time()
        found = asked.ask()
        cpu_ms.append((time.process_time() - cpu_s) * 1000)
        took_ms.append((time.perf_counter() - begin_s) * 1000)
    held = "held" if median(took_ms) < asked.limit_ms else "held at least" if min(took_ms) < asked.limit_ms else "NOT"
    print(
        f"{asked.what:48}{found:5}{min(took_ms):9.1f}{median(took_ms):9.1f}{max(took_ms):9.1f}{min(cpu_ms):9.1f}"
        f"{median(cpu_ms):9.1f}{asked.limit_ms:7} {held:14}{os.getloadavg()[0]:5.1f}",
        flush=True,
    )


def measure_commands(url: str) -> None:
    """Print how long whole commands take, with the start of Python."""
    for words in (("sessions",), ("show", "last"), ("stats", "--since", "90d", "--names", "llm")):
        took_ms = []
        for _ in range(5):
            begin_s = time.perf_counter()
            command = [sys.executable, "-m", "voicelog_sink", *words, "--store", url]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            took_ms.append((time.perf_counter() - begin_s) * 1000)
        print(f"command: {' '.join(words):39}     {min(took_ms):9.0f}{median(took_ms):9.0f}{max(took_ms):9.0f}")


# Both


@contextmanager
def url_of(kind: str) -> Iterator[str]:
    """Give the URL of a store that is made for the block; VOICELOG_TEST_CQL names a database that is there already."""
    with ExitStack() as stack:
        if kind == "sqlite":
            yield f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='voicelog-bench-'))}/reading.db"
            return
        compiled = ("-XX:TieredStopAtLevel=4",)
        base = os.environ.get("VOICELOG_TEST_CQL")
        base = base or stack.enter_context(CassandraServer(jvm_options=compiled, durable=False)).url()
        keyspace = f"r{secrets.token_hex(3)}"
        try:
            yield with_keyspace(base, keyspace)
        finally:
            with cql_session(base) as session:
                drop_keyspace(session, keyspace)


def run(url: str, args: argparse.Namespace) -> None:
    """Fill a store, unless it is, and ask."""
    store = make_store(load({"store": url}, {})[0])
    store.open(30_000)
    try:
        if not args.filled:
            fill_all(store, args)
        print(f"\n{'ms':48} rows    least   median  longest  CPU, least  median  limit{'load':>19}")
        lists = of_lists(store, args.days) if "lists" in args.parts else ()
        months = of_months(store) if "months" in args.parts else ()
        for asked in (*lists, *months):
            if args.only in asked.what:
                measure(asked, args.runs, args.seconds)
    finally:
        store.close()
    if not args.only:
        measure_commands(url)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tell(text: str) -> None:
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--url", help="a store of one's own, instead of --stores")
    parser.add_argument("--filled", action="store_true", help="the store was filled before, with the same --days")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30, help="over which the events are spread")
    parser.add_argument("--values", type=int, default=2_000, help="values a day, name and combination of the rollups")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=10, help="after which a question is not asked again")
    parser.add_argument("--only", default="", help="only the questions with this text")
    return parser.parse_args(given)


def main() -> None:
    """Measure what was asked for."""
    args = arguments()
    if args.url:
        run(args.url, args)
        return
    for kind in args.stores:
        print(f"\n{kind}, {os.cpu_count()} processors")
        with url_of(kind) as url:
            run(url, args)


if __name__ == "__main__":
    main()
