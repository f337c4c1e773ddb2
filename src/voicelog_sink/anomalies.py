"""What departs from its baseline, and since when: by stage, turn figure or metric and group, from hour rollups."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import attrs

from voicelog_sink.baseline import hours_of
from voicelog_sink.departure import DEPARTS, NO_BASELINE, TOO_FEW, Rules, Verdict, judge, judge_missing, lasts
from voicelog_sink.hourly import COUNT, Hourly, Measured
from voicelog_sink.measures import BY, Measure, Series, is_worse, series_of, unit_of
from voicelog_sink.onset import Onsets
from voicelog_sink.parts import MINUTE_MS, STAGE
from voicelog_sink.rolled import Key, sources
from voicelog_sink.stores.base import Store
from voicelog_sink.tiers import HOUR_MS, readings

LATE_MS = 2 * MINUTE_MS
"""What was measured longer ago is in the rollups, with a minute to spare."""

BACK_HOURS = 7 * 24
"""How far before the period a departure's beginning is looked for: after a week it is half of its own baseline."""


@attrs.frozen(kw_only=True)
class Anomaly:
    """One departure of a measure (p50, p95, error_rate, cost_usd, count) of a figure of one group.

    `value` is that of its latest hour or, where it is over, of its worst one, made of `count` values; `median` and
    `spread` are what is usual at that hour, by `days` days, and `z` says how many spreads it is above. Error rates are
    shares, 0 to 1, costs dollars each. `direction` is slower, faster, higher, lower, more errors, fewer errors, dearer,
    cheaper or missing, and `worse` whether that is bad; None for metrics. It began at `since_ms`, or before where
    `is_older`, and ended at `until_ms`, None while it lasts.
    """

    name: str
    kind: str
    figure: str
    measure: str
    unit: str
    group: dict[str, str | None]
    direction: str
    worse: bool | None
    value: float
    median: float
    spread: float
    z: float
    count: int
    days: int
    since_ms: int
    is_older: bool
    until_ms: int | None


@attrs.define
class Found:
    """What departs, what lasts first, then the strongest first; and how much could be judged, in measures of groups.

    `no_baseline` are those without enough earlier days, `too_few` those with too few values in each hour.
    """

    at_ms: int
    since_ms: int
    judged: int = 0
    no_baseline: int = 0
    too_few: int = 0
    anomalies: list[Anomaly] = attrs.Factory(list)


@attrs.frozen
class _Hours:
    """A measure of a group, hour by hour."""

    series: Series
    key: Key
    hours: Hourly
    rules: Rules
    now_ms: int

    @property
    def measure(self) -> Measure:
        return self.series.measure

    def judge(self, hour: int) -> Verdict:
        if self.measure.name == COUNT:
            return judge_missing(hour, self.at, self._elapsed(hour), self.rules)
        return judge(hour, self.at, self.measure, self.rules)

    def at(self, hour: int) -> Measured | None:
        return self.hours.get(self.key, hour, self.measure.name)

    def _elapsed(self, hour: int) -> float:
        return max(0.0, min(1.0, (self.now_ms - LATE_MS - hour * HOUR_MS) / HOUR_MS))


@attrs.define
class _Run:
    """Hours in a row that depart in one direction; those that can't be judged do not break it."""

    sign: float
    hours: list[Verdict]
    ended: bool = False
    is_older: bool = False


def anomalies(
    store: Store,
    since_ms: int,
    now_ms: int,
    by: Sequence[str] = BY,
    *,
    rules: Rules | None = None,
    only: Collection[str] = (),
    going_on: Callable[[], bool] = lambda: True,
) -> Found:
    """Return what departed in some hour from `since_ms` to `now_ms`, told apart by the dimensions in `by`.

    `only` are the names to look at, if not all; where `going_on` says no, it ends early with what it has. Blocks while
    the store reads, for each name, as many hours as the period has and three hours' rows a day of the baseline or
    more; raises StoreError, and SinkError for a rollup that can't be read.
    """
    rules = rules or Rules()
    found = Found(now_ms, since_ms)
    window = range(since_ms // HOUR_MS, (now_ms - 1) // HOUR_MS + 1)
    if not window:
        return found
    dimensions = tuple(name for name in by if name != STAGE)
    first_ms = max(window[0] - 24 * rules.days - 1, 0) * HOUR_MS
    for source in sources(store, readings(first_ms, now_ms), only):
        for number, name in enumerate(source.rollups):
            if not going_on():
                return found
            hours, onsets = Hourly(store, name, dimensions, window[0]), Onsets(store, name, dimensions)
            hours.need(_needed(window, rules))
            for series in series_of(source, number):
                for key in hours.keys:
                    _look(_Hours(series, key, hours, rules, now_ms), window, found, onsets)
    found.anomalies.sort(key=_order)
    return found


def _needed(window: range, rules: Rules) -> set[int]:
    return {*window, *(hour for each in window for hour in hours_of(each, rules.days))}


def _look(watched: _Hours, window: range, found: Found, onsets: Onsets) -> None:
    """Judge the hours of the period, and add what departs and what can't be judged."""
    verdicts = [watched.judge(hour) for hour in window]
    judged = [verdict for verdict in verdicts if verdict.is_judged]
    if judged:
        found.judged += 1
    elif watched.measure.name != COUNT:
        found.no_baseline += any(verdict.state == NO_BASELINE for verdict in verdicts)
        found.too_few += all(v.state == TOO_FEW for v in verdicts) and any(v.measured for v in verdicts)
    for run in _runs(judged, watched):
        if run.hours[0] is judged[0]:
            _go_back(run, watched, window)
        found.anomalies.append(_anomaly(watched, run, judged[-1], onsets))


def _runs(judged: Sequence[Verdict], watched: _Hours) -> list[_Run]:
    runs: list[_Run] = []
    for verdict in judged:
        last = runs[-1] if runs else None
        if last and not last.ended and lasts(verdict, last.sign, watched.measure, watched.rules):
            last.hours.append(verdict)
            continue
        if last:
            last.ended = True
        if verdict.state == DEPARTS:
            runs.append(_Run(math.copysign(1, verdict.z), [verdict]))
    return runs


def _go_back(run: _Run, watched: _Hours, window: range) -> None:
    """Add the hours before the period in which it had departed already."""
    for hour in range(window[0] - 1, window[0] - 1 - BACK_HOURS, -1):
        if (window[0] - 1 - hour) % 24 == 0:
            watched.hours.need(_needed(range(max(hour - 23, 0), hour + 1), watched.rules))
        verdict = watched.judge(hour)
        if not verdict.is_judged:
            continue
        if not lasts(verdict, run.sign, watched.measure, watched.rules):
            return
        run.hours.insert(0, verdict)
    run.is_older = True


def _anomaly(watched: _Hours, run: _Run, latest: Verdict, onsets: Onsets) -> Anomaly:
    lasting = not run.ended and latest.hour >= (watched.now_ms - LATE_MS) // HOUR_MS - 1
    shown = run.hours[-1] if lasting else max(run.hours, key=lambda verdict: abs(verdict.z))
    assert shown.measured is not None
    assert shown.usual is not None
    source, measure = watched.series.source, watched.measure
    return Anomaly(
        name=source.name,
        kind=source.kind,
        figure=watched.series.figure,
        measure=measure.name,
        unit=unit_of(source, measure),
        group={name: value or None for name, value in zip(watched.hours.dimensions, watched.key, strict=True)},
        direction=measure.rising if run.sign > 0 else measure.falling,
        worse=is_worse(source, measure, run.sign),
        value=shown.measured.value,
        median=shown.usual.median,
        spread=shown.usual.spread,
        z=shown.z,
        count=shown.measured.number,
        days=shown.usual.days,
        since_ms=_since_ms(watched, run, onsets),
        is_older=run.is_older,
        until_ms=None if lasting else (run.hours[-1].hour + 1) * HOUR_MS,
    )


def _since_ms(watched: _Hours, run: _Run, onsets: Onsets) -> int:
    first = run.hours[0]
    if run.is_older or first.usual is None:
        return first.hour * HOUR_MS
    if watched.measure.name == COUNT:
        return onsets.stop_ms(watched.key, first.hour)
    return onsets.rise_ms(watched.key, first.hour, watched.measure.name, first.usual.median, run.sign)


def _order(found: Anomaly) -> tuple[bool, float]:
    return found.until_ms is not None, -abs(found.z)
