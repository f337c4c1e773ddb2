"""The gauges of anomalies: one member of the group checks every few minutes, in a process of its own.

What a check reads and computes would take memory and the interpreter's lock from the loop (280 groups: 50 MB, a second
and more); so it is `voicelog-sink anomalies --json` that runs, and its answer that is served.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import IO, Any

import attrs
import msgspec

from voicelog.settings import Settings
from voicelog_sink.metrics import ANOMALY, Metrics

log = logging.getLogger(__name__)

CHECK = (sys.executable, "-m", "voicelog_sink", "anomalies", "--since", "2h", "--json")
"""What lasts shows in the latest hours, however long ago it began."""
FIRST_S = 30.0
"""How long a member has been the one that checks before it first does: a group that starts changes hands at once."""
MOST_S = 300.0
"""A check that runs for longer than this, and than the time between two, is ended and has failed."""
NICENESS = 10
MOST_SHOWN = 200
"""So many anomalies, the strongest, have gauges of their own."""
TOLD_BYTES = 500

Labels = tuple[str, ...]


@attrs.define
class _Check:
    """A check that runs."""

    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]
    started_s: float
    started_at_s: float


class AnomalyGauges:
    """Checks and serves while it leads. Used by one thread; nothing blocks but for the start of a process."""

    def __init__(
        self, settings: Settings, metrics: Metrics, *, command: Sequence[str] = CHECK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Start nothing yet."""
        self._environ = settings.environ
        self._metrics = metrics
        self._command = command
        self._clock = clock
        self._every_s: float = settings.anomalies_every_ms / 1000
        self._check: _Check | None = None
        self._next_s: float | None = None
        self._failing = False

    def on_tick(self, leads: bool) -> None:
        """Start a check when one is due, and serve what one has found that ended; not leading, serve nothing."""
        if not self._every_s:
            return
        if not leads:
            self._step_down()
            return
        now_s = self._clock()
        if self._next_s is None:
            self._next_s = now_s + min(self._every_s, FIRST_S)
        if self._check:
            self._look_at(self._check, now_s)
        elif now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            self._start(now_s)

    def close(self) -> None:
        """End a check that runs."""
        if self._check:
            self._check.process.kill()
            self._check.process.wait()
            self._forget(self._check)

    def _step_down(self) -> None:
        if self._next_s is None:
            return
        self._next_s = None
        self.close()
        self._serve(Served())

    def _start(self, now_s: float) -> None:
        try:
            with ExitStack() as stack:
                out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
                process = subprocess.Popen(  # noqa: S603  # this program
                    self._command, env=self._environ(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
                )
                stack.pop_all()  # they are closed when the check is forgotten
        except OSError as exc:
            self._failed(f"it can't be started: {exc}")
            return
        self._check = _Check(process, out, err, now_s, time.time())
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)

    def _look_at(self, check: _Check, now_s: float) -> None:
        status = check.process.poll()
        if status is None and now_s - check.started_s > max(self._every_s, MOST_S):
            self.close()
            self._failed(f"it has not ended after {now_s - check.started_s:.0f} s")
        elif status is not None:
            self._take(check, status)
            self._forget(check)

    def _take(self, check: _Check, status: int) -> None:
        if status != 0:
            told = _content(check.err).decode(errors="replace").strip()[-TOLD_BYTES:]
            self._failed(f"it ended with status {status}: {told}")
            return
        answer = _content(check.out)
        try:
            self._serve(served(msgspec.json.decode(answer)))
        except (ValueError, KeyError, TypeError) as exc:  # whatever it is, the loop that asked goes on
            self._failed(f"its answer can't be read ({exc!r}): {answer[:TOLD_BYTES]!r}")
            return
        self._failing = False
        self._metrics.set("anomalies_checked_timestamp", check.started_at_s)
        self._metrics.set("anomalies_check_seconds", self._clock() - check.started_s)

    def _serve(self, found: Served) -> None:
        for name, values in found.by_metric.items():
            self._metrics.replace(name, values)
        self._metrics.set("anomalies_judged", found.judged)

    def _failed(self, why: str) -> None:
        self._metrics.count("anomalies_failures_total")
        if not self._failing:
            log.warning("the check for anomalies failed, its gauges stay as they were: %s", why)
        self._failing = True

    def _forget(self, check: _Check) -> None:
        check.out.close()
        check.err.close()
        self._check = None


@attrs.frozen
class Served:
    """What the gauges say, by metric and labels; of nothing by default."""

    judged: int = 0
    not_judged: Mapping[str, int] = attrs.Factory(dict)
    lasting: Sequence[Mapping[str, Any]] = ()

    @property
    def by_metric(self) -> dict[str, dict[Labels, float]]:
        """Return the values of each gauge that has labels, in the table's order."""
        shown = {_labels(one): one for one in self.lasting[:MOST_SHOWN]}
        worse = [(_said(one["worse"]),) for one in self.lasting]
        return {
            "anomalies": {label: float(worse.count(label)) for label in worse},
            "anomaly_z": {labels: one["z"] for labels, one in shown.items()},
            "anomaly_value": {labels: one["value"] for labels, one in shown.items()},
            "anomaly_usual": {labels: one["median"] for labels, one in shown.items()},
            "anomaly_since_timestamp": {labels: _epoch_s(one["since"]) for labels, one in shown.items()},
            "anomalies_not_judged": {(reason,): float(count) for reason, count in self.not_judged.items()},
        }


def served(answer: Mapping[str, Any]) -> Served:
    """Return what the gauges say of an answer of `anomalies --json`: of what lasts. Pure."""
    lasting = [one for one in answer["anomalies"] if one["until"] is None]
    return Served(answer["judged"], {name: answer[name] for name in ("no_baseline", "too_few")}, lasting)


def _labels(one: Mapping[str, Any]) -> Labels:
    fields = {**one, **one["group"], "worse": _said(one["worse"])}
    return tuple(str(fields[name] or "") for name in ANOMALY)


def _said(worse: bool | None) -> str:
    return {True: "true", False: "false", None: ""}[worse]


def _epoch_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
