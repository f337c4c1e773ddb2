"""What rollups cost the sink: noting a minute's events, and rolling it up, in microseconds an event.

    python benchmarks/rollups.py [--store scylla://HOST:PORT/KEYSPACE?local_dc=DC] [--events N] [--profile]

The traffic is calls with a turn every eight seconds: three stages and a turn with ten figures. Nothing else is written
than what rollups need. The second run reads every measurement twice, as after a redelivery of all of it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import tempfile
import time
from collections.abc import Sequence

from voicelog.events import Event, Figure, LlmRequest, SttResult, TtsResult, Turn
from voicelog.settings import load
from voicelog_sink.parts import measurements
from voicelog_sink.rollup_work import RollupWork
from voicelog_sink.rollups import Rollups
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import Store

BATCH = 2_000
MINUTE_US = 60_000_000
FIGURES = (
    "user_bot_latency_ms", "transcription_delay_ms", "end_of_turn_delay_ms", "llm_ttft_ms", "llm_first_sentence_ms",
    "text_aggregation_ms", "tts_ttfb_ms", "playback_latency_ms", "tool_call_ms", "unattributed_ms",
)  # fmt: skip


def traffic(count: int, start_us: int) -> list[Event]:
    """Return `count` events of one minute, in the order of their time."""
    draw = random.Random(1)
    events: list[Event] = []
    while len(events) < count:
        number = len(events) // 28
        who = {"session_id": f"call-{number}", "stream_id": f"{number:016x}", "service": "front-desk", "host": "bot-0"}
        for turn in range(7):
            at = start_us + draw.randrange(MINUTE_US)
            first = {**who, "ts": at, "status": "ok", "variant": "ab"[number % 2]}
            took = [draw.lognormvariate(6, 0.5) for _ in range(3)]
            events += [
                SttResult(**first, seq=4 * turn + 1, stage="stt", provider="deepgram", model="nova-3",
                          duration_ms=took[0]),
                LlmRequest(**first, seq=4 * turn + 2, stage="llm", provider="openai", model="gpt-4o-mini",
                           duration_ms=took[1], first_item_ms=took[1] / 3, cost_usd=0.00012),
                TtsResult(**first, seq=4 * turn + 3, stage="tts", provider="cartesia", model="sonic-2",
                          duration_ms=took[2], first_item_ms=took[2] / 4, cost_usd=0.0006),
                Turn(**first, seq=4 * turn + 4, figures={name: Figure(value_ms=draw.lognormvariate(6, 0.5))
                                                        for name in FIGURES}),
            ]  # fmt: skip
    return sorted(events[:count], key=lambda event: event.ts)


def take_in(store: Store, work: RollupWork, events: Sequence[Event], now_ms: int) -> float:
    """Write the parts; return the processor time of making them, seconds."""
    spent_s = 0.0
    for start in range(0, len(events), BATCH):
        begin_s = time.process_time()
        rows = work.note(events[start : start + BATCH], now_ms)
        spent_s += time.process_time() - begin_s
        assert store.write(rows) == []
    return spent_s


def roll_up(store: Store, work: RollupWork, now_ms: int) -> tuple[float, float, float]:
    """Roll everything up; return processor time, time and the longest step, seconds."""
    rollups, steps = Rollups(store, work), []
    work.hurry()
    begin_s, cpu_s = time.perf_counter(), time.process_time()
    while True:
        step_s = time.perf_counter()
        if rollups.step(now_ms) is None:
            return time.process_time() - cpu_s, time.perf_counter() - begin_s, max(steps)
        steps.append(time.perf_counter() - step_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(load({"store": given.store or f"sqlite:///{folder}/rollups.db"}, {})[0])
        store.open(30_000)
        store.init()
        measure(store, given.events, given.profile)
        store.close()


def measure(store: Store, count: int, profiled: bool) -> None:
    start_us = int(time.time() * 1e6) // MINUTE_US * MINUTE_US - 2 * MINUTE_US
    now_ms = start_us // 1000 + 120_000
    events = traffic(count, start_us)
    number = sum(len(rows) for grouped in measurements(events).values() for rows in grouped.values())
    print(f"{count} events of one minute, {number} measurements ({number / count:.2f} an event)")
    for run in ("first", "again"):
        work = RollupWork(f"bench-{run}-{now_ms}", 10)
        noted_s = take_in(store, work, events, now_ms)
        profile = cProfile.Profile()
        if profiled:
            profile.enable()
        cpu_s, took_s, longest_s = roll_up(store, work, now_ms)
        profile.disable()
        print(f"{run}: note {noted_s / count * 1e6:.1f} us an event; roll up {cpu_s / count * 1e6:.1f} us of processor "
              f"and {took_s / count * 1e6:.1f} us in all; longest step {longest_s * 1000:.0f} ms")  # fmt: skip
        if profiled:
            pstats.Stats(profile).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    main()
