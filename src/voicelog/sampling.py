"""Sampling: whole calls or none, by a hash of the session id; calls with an error or a slow turn are always kept.

A call is weighed at its end: one that was kept by chance stands for 1 / sample_rate calls, any other for itself alone.
That holds only if a call is treated alike whether chance chose it or not. So a chosen call takes its share of
sample_hold_max_bytes too, although its events go out at once: whether the hold is full never depends on chance, and
neither does which calls are kept because of it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import finalize

from voicelog.counters import Counters
from voicelog.wire import Headers

Deliver = Callable[[str, bytes, bytes, Headers | None], None]

REASONS = ("error", "slow", "early", "chance")
"""Why a call was kept; where several apply, the first of them."""
OVERHEAD_BYTES = 256
"""What a held message takes beside its value."""
_BY_CHANCE = "chance"
_MARKED = b"voicelog-sample"
_ERROR_LEVELS = frozenset({"ERROR", "CRITICAL", "FATAL"})


def is_chosen(session_id: str, rate: float) -> bool:
    """Return whether chance keeps a call: the same in every process, and independent of other hashes of the id."""
    digest = hashlib.blake2b(session_id.encode("utf-8", "replace"), digest_size=8, person=_MARKED).digest()
    return int.from_bytes(digest) < rate * 2**64


class Sampler:
    """Decides which calls are kept, and bounds what is held of those of which it is not known yet.

    Safe from any thread; never blocks for longer than it takes to hand a call's held messages to librdkafka; raises
    nothing.
    """

    def __init__(
        self, rate: float, hold_max_bytes: int, slow_turn_ms: float, counters: Counters, deliver: Deliver
    ) -> None:
        self.rate = rate
        self.slow_turn_ms = slow_turn_ms
        self.deliver = deliver
        """Takes a message of a call that is kept, and counts what becomes of it."""
        self._max_bytes = hold_max_bytes
        self._counters = counters
        self._used_bytes = 0
        self._lock = threading.RLock()
        self._abandoned: deque[Held] = deque()

    def hold(self, session_id: str, kept: str | None = None) -> Hold:
        """Return the hold of a stream of the call; `kept` is why it is kept already in the process it comes from."""
        hold = Hold(self, is_chosen(session_id, self.rate))
        if kept in REASONS and kept != _BY_CHANCE:
            hold.keep(kept)
        return hold

    def take(self, count: int) -> bool:
        """Take `count` bytes, and return whether there was room for them."""
        with self._lock:
            self._let_go_of_abandoned()
            fits = self._used_bytes + count <= self._max_bytes
            self._used_bytes += count if fits else 0
            return fits

    def give_back(self, count: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._used_bytes -= count

    def used_bytes(self) -> int:
        """Return the bytes that are taken by the calls of which it is not known yet whether they are kept."""
        with self._lock:
            self._let_go_of_abandoned()
            return self._used_bytes

    def drop(self, count: int) -> None:
        """Count events of a call that is not kept."""
        if count:
            self._counters.add("dropped", "sampled", count)

    def abandon(self, held: Held) -> None:
        """Take what a session left that was never ended; called by the collector, in the middle of anything."""
        self._abandoned.append(held)

    def _let_go_of_abandoned(self) -> None:
        while self._abandoned:
            held = self._abandoned.popleft()
            self._used_bytes -= held.taken_bytes
            self.drop(len(held.messages))


class Held:
    """What is held of one stream. Apart from its Hold, since it outlives that by a moment."""

    __slots__ = ("messages", "taken_bytes")

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, bytes, Headers | None]] = []
        self.taken_bytes = 0


class Hold:
    """One stream of a call: holds its messages, or lets them through. Safe from any thread."""

    def __init__(self, sampler: Sampler, chosen: bool) -> None:
        self._sampler = sampler
        self._chosen = chosen
        self._reason: str | None = None
        self._held: Held | None = Held()
        """None once it is decided: the call was kept, or is over."""
        self._open = chosen
        """Whether messages go straight through."""
        self._dropped = False
        self._lock = threading.RLock()
        self._finalizer = finalize(self, sampler.abandon, self._held)
        self._finalizer.atexit = False

    @property
    def reason(self) -> str | None:
        """Why the call is kept, error, slow or early; None as long as chance alone decides."""
        return self._reason

    def see(self, fields: dict[str, Any]) -> None:
        """Look at an event, before it is added, for what keeps the call: an error, or a slow turn."""
        if fields.get("status") == "error" or "error" in fields or fields.get("level") in _ERROR_LEVELS:
            self.keep("error")
        elif (fields.get("user_bot_latency_ms") or 0) >= self._sampler.slow_turn_ms and (
            fields.get("quality") != "clock_suspect"
        ):
            self.keep("slow")

    def add(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> None:
        """Take a message: hold it, or let it through behind those that were held."""
        if self._held is None and self._open:
            self._sampler.deliver(topic, key, value, headers)
            return
        with self._lock:
            self._add(topic, key, value, headers)

    def _add(self, topic: str, key: bytes, value: bytes, headers: Headers | None) -> None:
        held = self._held
        if held is not None:
            size = OVERHEAD_BYTES + len(value) + sum(len(text) for _, text in headers or ())
            if not self._sampler.take(size):
                self.keep("early")
            else:
                held.taken_bytes += size
                if not self._open:
                    held.messages.append((topic, key, value, headers))
                    return
        if self._dropped:
            self._sampler.drop(1)
        else:
            self._sampler.deliver(topic, key, value, headers)

    def keep(self, reason: str) -> None:
        """Keep the call whole, for one of REASONS: what was held goes out in order, and what comes later straight.

        After the call's end it does nothing.
        """
        with self._lock:
            if self._dropped or (self._held is None and self._reason is None):
                return
            if self._reason is None or REASONS.index(reason) < REASONS.index(self._reason):
                self._reason = reason
            for message in self._release():
                self._sampler.deliver(*message)
            self._open = True

    def end(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Decide about the call with the fields of its last event, and return what those get: the call's weight.

        It is empty where the call is dropped; what is added from then on is dropped too.
        """
        with self._lock:
            self.see(fields)
            if self._reason is not None:
                return {"sample_rate": 1.0, "sample_reason": self._reason}
            self._dropped = not self._chosen
            self._sampler.drop(len(self._release()))
            return {"sample_rate": self._sampler.rate, "sample_reason": _BY_CHANCE} if self._chosen else {}

    def _release(self) -> list[tuple[str, bytes, bytes, Headers | None]]:
        held, self._held = self._held, None
        if held is None:
            return []
        self._finalizer.detach()
        self._sampler.give_back(held.taken_bytes)
        messages, held.messages, held.taken_bytes = held.messages, [], 0
        return messages
