"""Whether an hour's measure departs from what is usual, and whether calls are missing. Pure.

docs/explanation/anomalies.md has the definition, and how often it is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from voicelog_sink.baseline import DAYS, LEAST_DAYS, THRESHOLD, Baseline, alike, baseline
from voicelog_sink.hourly import COUNT, ERROR_RATE, Measured
from voicelog_sink.measures import Measure

LEAST_VALUES = 30
"""An hour counts, as itself and for a baseline, from so many values on."""

LEAST_ERRORS = 5
"""Fewer failures within an hour are never more than usual."""

MISSING_SHARE = 0.1
"""Calls are missing below so much of the least that there was at that hour on one of the earlier days."""

MISSING_AFTER = 0.25
"""The running hour is looked at for missing calls after so much of it."""

LASTING = 0.5
"""A departure lasts while it is at least so much of the threshold."""


@attrs.frozen
class Rules:
    """When an hour departs: `threshold` spreads from the median of `days` days, and by `change` of it."""

    days: int = DAYS
    threshold: float = THRESHOLD
    change: float = 0.1


@attrs.frozen
class Verdict:
    """What an hour is: usual, departs, or why that can't be said: too_few, no_baseline. `z` is 0 where it can't."""

    hour: int
    state: str
    measured: Measured | None = None
    usual: Baseline | None = None
    z: float = 0.0

    @property
    def is_judged(self) -> bool:
        """Whether there was something to say."""
        return self.usual is not None


USUAL, DEPARTS, TOO_FEW, NO_BASELINE = "usual", "departs", "too_few", "no_baseline"

HourAt = Callable[[int], Measured | None]


def judge(hour: int, at: HourAt, measure: Measure, rules: Rules) -> Verdict:
    """Return what is to be said of an hour's measure, by its own values and those of earlier days."""
    found = at(hour)
    if found is None or found.number < LEAST_VALUES:
        return Verdict(hour, TOO_FEW, found)
    usual = baseline(hour, lambda earlier: _counted(at(earlier)), rules.days, measure.least_spread)
    if usual is None:
        return Verdict(hour, NO_BASELINE, found)
    z = usual.z(found.value)
    is_one = abs(z) >= rules.threshold and _is_far(found, usual, measure, rules) and _is_certain(found, usual, measure)
    return Verdict(hour, DEPARTS if is_one else USUAL, found, usual, z)


def judge_missing(hour: int, at: HourAt, elapsed: float, rules: Rules) -> Verdict:
    """Return whether calls are missing from an hour of which the share `elapsed` is over.

    They are where on each of the LEAST_DAYS latest days, alike where there are enough, there were LEAST_VALUES or more
    (of the share that is over), and now there are less than MISSING_SHARE of the least of them.
    """
    found = at(hour) or Measured(0, 0, 0, 0)
    days = alike(hour, range(1, rules.days + 1))[:LEAST_DAYS]
    earlier = [seen.value if (seen := at(hour - 24 * day)) else 0.0 for day in days]
    least = min(earlier, default=0.0) * elapsed
    if elapsed < MISSING_AFTER or least < LEAST_VALUES:
        return Verdict(hour, TOO_FEW, found)
    usual = baseline(hour, lambda one: _times(at(one), elapsed), rules.days)
    if usual is None:
        return Verdict(hour, NO_BASELINE, found)
    is_one = found.value < MISSING_SHARE * least
    return Verdict(hour, DEPARTS if is_one else USUAL, found, usual, usual.z(found.value))


def lasts(verdict: Verdict, sign: float, measure: Measure, rules: Rules) -> bool:
    """Say whether a departure in the direction of `sign` goes on in that hour."""
    if verdict.state == DEPARTS:
        return math.copysign(1, verdict.z) == sign
    return measure.name != COUNT and verdict.z * sign >= LASTING * rules.threshold


def _counted(found: Measured | None) -> float | None:
    return found.value if found and found.number >= LEAST_VALUES else None


def _times(found: Measured | None, share: float) -> float | None:
    value = _counted(found)
    return None if value is None else value * share


def _is_far(found: Measured, usual: Baseline, measure: Measure, rules: Rules) -> bool:
    apart = abs(found.value - usual.median)
    return apart >= measure.least_change and (not measure.relative or apart >= rules.change * abs(usual.median))


def _is_certain(found: Measured, usual: Baseline, measure: Measure) -> bool:
    """Say whether the hour's own values, however few, leave no doubt that it is on that side of the median."""
    if measure.name == ERROR_RATE and found.value > usual.median:
        return found.low > usual.median and found.value * found.number >= LEAST_ERRORS - 0.5
    return found.low > usual.median or found.high < usual.median
