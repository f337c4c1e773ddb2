"""The sink as a process that is measured from outside: what it has stored, its CPU, its memory, its histograms."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from tests.running import RunningSink, wait_until

TICKS = os.sysconf("SC_CLK_TCK")
STALLED_S = 120.0
LOOK_EVERY_S = 0.5
"""Each look costs the sink some milliseconds: with 0.15 s it was seven hundredths of what it did."""


class Seen(NamedTuple):
    """What the sink shows at one moment; `writes` is the cumulated histogram of the store's writes by upper bound."""

    at_s: float
    stored: float
    rows: float
    dead: float
    writes: dict[float, float]
    cpu_s: float


class SinkProcess:
    """`voicelog-sink run` in a process of its own."""

    def __init__(self, log: Path, settings: Mapping[str, Any]) -> None:
        self._expected = 0
        self._running = RunningSink(log, "run", **{**settings, "http": "127.0.0.1:0"})
        line = self._running.wait_for("serving http")
        self._url = line[line.index("http://") :].partition("/health")[0] + "/metrics"
        self._running.wait_for("assigned: ")

    def look(self) -> Seen:
        """Return what it shows now."""
        with urlopen(self._url, timeout=60) as answer:
            text = answer.read().decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

        def total(name: str) -> float:
            return sum(s.value for s in samples if s.name == f"voicelog_sink_{name}_total")

        bounds = [s for s in samples if s.name == "voicelog_sink_store_write_seconds_bucket"]
        writes = {float(s.labels["le"].replace("+Inf", "inf")): s.value for s in bounds}
        stored, rows, dead = total("events_stored"), total("store_rows"), total("dlq_produced")
        return Seen(time.perf_counter(), stored, rows, dead, writes, self.cpu_s())

    def expected(self, more: int) -> int:
        """Return how many events it must have stored in all once `more` of them are."""
        self._expected += more
        return self._expected

    def wait_stored(self, events: float) -> Seen:
        """Return what it shows once it has stored so many events since its start; fails when it stands still."""
        last, since_s = -1.0, time.monotonic()
        while (seen := self.look()).stored + seen.dead < events:
            if seen.stored > last:
                last, since_s = seen.stored, time.monotonic()
            assert time.monotonic() - since_s < STALLED_S, f"stands at {last:.0f} of {events:.0f}: {self.output()}"
            time.sleep(LOOK_EVERY_S)
        assert not seen.dead, f"{seen.dead:.0f} dead letters: {self.output()}"
        return seen

    def pause(self) -> None:
        """Freeze it, so that a backlog can grow."""
        self._running.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self._stat()[0] == "T", "the sink to stand still")

    def resume(self) -> None:
        """Let it go on."""
        self._running.process.send_signal(signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its threads since its start."""
        stat = self._stat()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def peak_rss_mb(self) -> float:
        """Return the most memory it ever held."""
        status = Path(f"/proc/{self._running.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def output(self) -> str:
        """Return the end of what it has logged."""
        return self._running.output()[-2000:]

    def stop(self) -> None:
        """End it in order."""
        self.resume()
        self._running.stop()

    def kill(self) -> None:
        """End it at once."""
        self._running.kill()

    def _stat(self) -> list[str]:
        stat = Path(f"/proc/{self._running.process.pid}/stat").read_text(encoding="utf-8")
        return stat.rpartition(")")[2].split()


def quantile_ms(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float:
    """Return a quantile of what came between two looks at a cumulated histogram, in milliseconds, interpolated."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    wanted = share * counts[float("inf")]
    lower = below = 0.0
    for bound, count in counts.items():
        if count >= wanted and count > 0:
            upper = bound if bound != float("inf") else lower
            inside = count - below
            return 1000 * (lower + (upper - lower) * ((wanted - below) / inside if inside else 1.0))
        lower, below = bound, count
    return 0.0
