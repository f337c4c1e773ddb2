"""For tests of users: collects events instead of producing them, with a stepping clock and counting ids.

    def test_my_bot(voicelog_capture):              # a pytest fixture; or: with voicelog.testing.capture() as captured:
        run_my_bot()
        assert [event.stage for event in voicelog_capture.events if event.stage] == ["stt", "llm", "tts"]

Whole events can be compared, because times and ids are the same in each run. What at run time would be counted and
left out, a wrong value or a stage outside of a session, raises here. No thread runs: no heartbeat, no stage_started.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from opentelemetry.trace import TracerProvider

from voicelog import wire
from voicelog.client import Client, state
from voicelog.context import restore, session_var, stage_var
from voicelog.counters import Counters
from voicelog.events import FINISHED_STAGES, Event, Turn
from voicelog.settings import load
from voicelog.wire import Headers, Message

START_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, where a StepClock begins."""


class StepClock:
    """A clock that moves by `step_ms` at each reading, and by `advance`."""

    def __init__(self, step_ms: float = 1.0) -> None:
        self.step_ns = int(step_ms * 1e6)
        self.ns = 0

    def now_ns(self) -> int:
        """Return the time, and move on by one step."""
        self.ns += self.step_ns
        return self.ns

    def wall_us(self) -> int:
        """Return the same time as epoch microseconds; does not move."""
        return START_US + self.ns // 1000

    def advance(self, ms: float) -> None:
        """Move on by `ms` milliseconds."""
        self.ns += int(ms * 1e6)


class CountingIds:
    """Ids that count from 1."""

    def __init__(self) -> None:
        self._sessions, self._streams = count(1), count(1)

    def session(self) -> str:
        """Return session-1, session-2, ..."""
        return f"session-{next(self._sessions)}"

    def stream(self) -> str:
        """Return 16 hex digits that count."""
        return f"{next(self._streams):08x}00000000"


class Capture:
    """A producer that keeps what it is given; `full` makes it refuse, as a full queue does."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.messages: list[Message] = []
        self.full = False
        self.closed = False
        self.counters = Counters()

    @property
    def events(self) -> list[Event]:
        """Every event so far, in order, as a sink would decode it."""
        return [wire.decode(message.value) for message in self.messages]

    def of(self, kind: str) -> list[Any]:
        """Return the events of one type, such as "stt_result"."""
        return [event for event in self.events if kind == event.TYPE]

    @property
    def turns(self) -> list[Turn]:
        """The turns that ended, in that order, with their figures and contributions."""
        return self.of("turn")

    def stages(self, name: str | None = None) -> list[Any]:
        """Return the events of finished stages, in that order; with a name only those of that stage."""
        ended = [event for event in self.events if event.TYPE in FINISHED_STAGES]
        return [event for event in ended if name is None or event.stage == name]

    def session(self, id: str) -> list[Event]:
        """Return the events of one call, in order."""
        return [event for event in self.events if event.session_id == id]

    def clear(self) -> None:
        """Forget the events so far; the clock and the ids go on."""
        self.messages.clear()

    def produce(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> str | None:
        """Keep a message."""
        if self.closed or self.full:
            return "closed" if self.closed else "queue_full"
        self.messages.append(Message(topic, key, value, headers or []))
        return None

    def queued(self) -> int:
        """Return 0: nothing waits."""
        return 0

    def flush(self, timeout_s: float) -> int:
        """Return 0: nothing waits."""
        return 0

    def close(self, timeout_s: float) -> int:
        """Refuse what comes later, as `closed`."""
        self.closed = True
        return 0

    def loss(self, left: int, timeout_s: float) -> str:
        """Return a sentence that is never said: nothing is left."""
        return f"{left} events were left"


@contextmanager
def capture(
    *, step_ms: float = 1.0, strict: bool = True, tracer_provider: TracerProvider | None = None, **settings: Any
) -> Iterator[Capture]:
    """Collect events within the block; what was configured before is back after it.

    `step_ms` is what the clock moves at each reading. With strict=False wrong values are counted, as at run time.
    `tracer_provider` opens OpenTelemetry spans in the place of the global one, which a process can set only once.
    Any setting of voicelog can be given: capture(redact="phone", prices={...}). Raises ConfigError for a wrong one.
    """
    clock = StepClock(step_ms)
    captured = Capture(clock)
    given = {"service": "test", "host": "test-host", **settings}
    loaded, _ = load(given, {})
    client = Client(loaded, captured, captured.counters, clock=clock, ids=CountingIds(), strict=strict, captures=True)
    client.tracer_provider = tracer_provider
    before, state.current = state.current, client
    session_token, stage_token = session_var.set(None), stage_var.set(None)
    try:
        yield captured
    finally:
        state.current = before
        restore(session_var, session_token, session_var.get())
        restore(stage_var, stage_token, stage_var.get())
