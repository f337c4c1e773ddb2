"""The heartbeat: a `health` event of the library's own, with the process's queue, drops, memory and event-loop lag."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any, NamedTuple

from voicelog.content import Own
from voicelog.loops import Loops

if TYPE_CHECKING:
    from voicelog.client import Client

COMPONENT = "voicelog"
"""The component of the library's own heartbeats; `service` and `host` say which process's."""

FIGURES: dict[str, str] = {
    "queued": "events that wait for the broker",
    "queue_max_messages": "most that may wait",
    "produced": "events handed to the producer, since configure()",
    "delivered": "of those, acknowledged by the broker",
    "dropped": "events that were not handed to the producer, since configure(), but for sampling",
    "failed": "events that the broker did not acknowledge, since configure()",
    "invalid": "wrong values and calls that were left out, since configure()",
    "faults": "errors inside voicelog itself, since configure()",
    "dropped_since_last": "dropped since the last heartbeat",
    "failed_since_last": "failed since the last heartbeat",
    "pid": "the process",
    "rss_bytes": "its resident memory; absent where there is no /proc",
    "cpu_percent": "its processor time since the last heartbeat, 100 is one core",
    "threads": "its threads that Python knows",
    "open_sessions": "calls that are open in it",
    "open_stages": "stages that are open for less than stage_started_after_ms; absent when that is 0",
    "event_loop_lag_ms": "longest time, since the last heartbeat, that an asyncio loop took to run what was due, also "
    "of one that still hangs; measured once a second in loops that a session or turn was opened in; absent without any",
}
"""What a heartbeat's attributes hold."""

COUNTED = ("produced", "dropped", "failed", "invalid", "faults")
"""The counters that a heartbeat carries, as totals; `dropped` and `failed` also since the last one."""

_STATM = "/proc/self/statm"


class Figures(NamedTuple):
    """What the operating system says of the process; None where it does not."""

    pid: int
    threads: int
    cpu_ns: int
    rss_bytes: int | None


def figures() -> Figures:
    """Return the process's figures now."""
    return Figures(os.getpid(), threading.active_count(), time.process_time_ns(), _rss_bytes())


def _rss_bytes() -> int | None:
    try:
        with open(_STATM, encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # not Linux
        return None


class Heartbeat:
    """Says every `interval_ms` how the process is: ok, or degraded when events were lost or the queue is half full."""

    def __init__(
        self,
        client: Client,
        interval_ms: int,
        sessions: Sized,
        stages: Sized | None,
        read: Callable[[], Figures] = figures,
    ) -> None:
        self.loops = Loops(client.now_ns)
        self._client = client
        self._interval_ns = interval_ms * 1_000_000
        self._sessions, self._stages = sessions, stages
        self._read = read
        self._last = self._counts()
        self._last_cpu_ns = read().cpu_ns
        self._last_ns = client.now_ns()

    def tick(self) -> None:
        """Measure the event loops, and beat when the interval is over. Called about once a second."""
        self.loops.probe()
        if self._client.now_ns() - self._last_ns >= self._interval_ns:
            self.beat()

    def beat(self) -> None:
        """Emit the event, about the time since the last one."""
        queued = self._client.producer.queued()
        counts, last = self._counts(), self._last
        self._last = counts
        lost = {f"{name}_since_last": counts[name] - last[name] for name in ("dropped", "failed")}
        limit = self._client.settings.queue_max_messages
        delivered = max(0, counts["produced"] - counts["failed"] - queued)
        found: dict[str, Any] = {
            "queued": queued, "queue_max_messages": limit, **counts, "delivered": delivered, **lost, **self._process(),
        }  # fmt: skip
        state = "degraded" if any(lost.values()) or queued * 2 > limit else "ok"
        attributes = {name: value for name, value in found.items() if value is not None}
        self._client.emit_loose("health", Own(component=COMPONENT, state=state, attributes=attributes))

    def _counts(self) -> dict[str, int]:
        return {name: self._client.counters.get(name, without="sampled") for name in COUNTED}

    def _process(self) -> dict[str, Any]:
        now_ns, seen = self._client.now_ns(), self._read()
        spent_ns, passed_ns = seen.cpu_ns - self._last_cpu_ns, now_ns - self._last_ns
        self._last_ns, self._last_cpu_ns = now_ns, seen.cpu_ns
        return {
            "pid": seen.pid,
            "rss_bytes": seen.rss_bytes,
            "cpu_percent": round(100 * spent_ns / passed_ns, 2) if passed_ns > 0 else None,
            "threads": seen.threads,
            "open_sessions": len(self._sessions),
            "open_stages": len(self._stages) if self._stages is not None else None,
            "event_loop_lag_ms": self.loops.take_lag_ms(),
        }
