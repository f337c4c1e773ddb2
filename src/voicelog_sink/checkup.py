"""What `doctor` makes of what it has found out: a finding each, with what is wrong and what mends it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from voicelog_sink.group import Rights, Standing
from voicelog_sink.stores.base import Difference

Status = Literal["ok", "warning", "failed", "unknown"]

CLOCK_WARN_MS = 2_000
"""Clocks that are further apart make the order of events across machines wrong."""
CLOCK_FAIL_MS = 60_000
"""Clocks that are further apart put rows into wrong minutes, and let them expire at wrong times."""
LAG_WARN = 10_000
"""Events that wait while sinks are there: some seconds' worth for one of them."""
DISK_WARN_BYTES = 2 * 1024**3
DISK_FAIL_BYTES = 200 * 1024**2
TAKES = frozenset({"READ", "DESCRIBE"})
GIVES = frozenset({"WRITE", "DESCRIBE"})
ALL = "ALL"


@attrs.frozen
class Finding:
    """One thing that was looked at. `what` is a sentence, `remedy` what mends it; empty where nothing is wrong.

    `unknown` is what could not be looked at, since something before it failed or the server does not say.
    """

    name: str
    status: Status
    what: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Status:
    """Return `failed` where a finding is, else `warning` where one is, else `ok`."""
    seen = {finding.status for finding in findings}
    return "failed" if "failed" in seen else "warning" if "warning" in seen else "ok"


def of_differences(name: str, found: Sequence[Difference], fine: str) -> list[Finding]:
    """Return a finding for each difference of topics or schema: what is missing stops the sink, the rest does not."""
    return [
        Finding(name, "failed" if _stops(difference) else "warning", difference.what, difference.remedy)
        for difference in found
    ] or [Finding(name, "ok", fine)]


def _stops(difference: Difference) -> bool:
    return difference.what.endswith(("does not exist", "is missing"))


def of_group(group: str, members: int | None, standings: Sequence[Standing]) -> list[Finding]:
    """Return what is to be said of the sinks and of what they have still to read.

    `members` is None where the broker does not know them, as the embedded one.
    """
    lag = sum(standing.lag for standing in standings)
    started = any(standing.committed is not None for standing in standings)
    return [*_lost(group, standings), _sinks(group, members, lag, started), _lag(members, lag)]


def _lost(group: str, standings: Sequence[Standing]) -> list[Finding]:
    return [
        Finding(
            "lag",
            "failed",
            f"{standing.topic}[{standing.partition}]: the broker deleted {standing.lost:,} messages that group "
            f"{group!r} had not read",
            "they are gone; run a sink with VOICELOG_KAFKA_CONFIG=auto.offset.reset=earliest once to go on with the "
            "oldest that is there, and raise VOICELOG_TOPIC_RETENTION_MS",
        )
        for standing in standings
        if standing.lost
    ]


def _sinks(group: str, members: int | None, lag: int, started: bool) -> Finding:
    if members is None:
        so_far = "" if started else "; that group has stored nothing yet"
        return Finding("sinks", "unknown", f"the embedded broker does not say who is in group {group!r}{so_far}")
    if members:
        return Finding("sinks", "ok", f"{members} in group {group!r}")
    what = f"none in group {group!r}" + ("" if started else ", and none was yet")
    return Finding("sinks", "failed" if lag else "warning", what, "start one: voicelog-sink run")


def _lag(members: int | None, lag: int) -> Finding:
    if lag < LAG_WARN or members == 0:
        return Finding("lag", "warning" if members == 0 and lag else "ok", f"{lag:,} events wait to be stored")
    remedy = "look at voicelog_sink_loop_seconds_total in /metrics for what the sink waits for; add sinks or workers"
    return Finding("lag", "warning", f"{lag:,} events wait to be stored", remedy)


def of_dead_letters(topic: str, standings: Sequence[Standing]) -> Finding:
    """Return how many messages could not be stored."""
    count = sum(standing.end - standing.begin for standing in standings if standing.topic == topic)
    if not count:
        return Finding("dead letters", "ok", f"none in {topic}")
    remedy = "voicelog-sink dlq list says why; dlq replay sends them back once that is mended"
    return Finding("dead letters", "warning", f"{count:,} in {topic}", remedy)


def of_rights(rights: Rights, dead_letters: str, group: str) -> list[Finding]:
    """Return what the broker does not let this client do."""
    if not rights.topics:
        return [Finding("rights", "unknown", "there is no topic yet")]
    wanted = {name: GIVES if name == dead_letters else TAKES for name in rights.topics}
    found = [_rights(f"topic {name}", rights.topics[name], wanted[name]) for name in rights.topics]
    found.append(_rights(f"group {group}", rights.group, frozenset({"READ"})))
    wrong = [finding for finding in found if finding.status != "ok"]
    if {finding.status for finding in found} == {"unknown"}:
        return [Finding("rights", "unknown", "the broker does not say what this client may do")]
    return wrong or [Finding("rights", "ok", "may read the topics and write dead letters")]


def _rights(place: str, allowed: frozenset[str] | None, wanted: frozenset[str]) -> Finding:
    if allowed is None:
        return Finding("rights", "unknown", f"{place}: the broker does not say")
    lacking = sorted(wanted - allowed) if ALL not in allowed else []
    if not lacking:
        return Finding("rights", "ok", place)
    names = " and ".join(lacking)
    return Finding("rights", "failed", f"{place}: this client may not {names}", f"grant it {names} there by an ACL")


def of_clock(name: str, ahead_ms: int) -> Finding:
    """Return what is to be said of another clock that is `ahead_ms` ahead of this machine's, or behind it."""
    apart = abs(ahead_ms)
    if apart < CLOCK_WARN_MS:
        return Finding(name, "ok", "agrees with this machine's")
    side = "ahead of" if ahead_ms > 0 else "behind"
    status: Status = "failed" if apart >= CLOCK_FAIL_MS else "warning"
    return Finding(name, status, f"{apart / 1000:,.1f} s {side} this machine's", "set both by NTP (timedatectl status)")


def newest_ms(standings: Iterable[Standing]) -> int | None:
    """Return the newest message's time by the broker's clock."""
    return max((standing.newest_ms for standing in standings if standing.newest_ms is not None), default=None)


def of_disk(folder: str, free_bytes: int) -> Finding:
    """Return whether there is room for SQLite's file."""
    what = f"{free_bytes / 1024**3:,.1f} GiB free in {folder}"
    if free_bytes >= DISK_WARN_BYTES:
        return Finding("disk", "ok", what)
    status: Status = "failed" if free_bytes < DISK_FAIL_BYTES else "warning"
    return Finding("disk", status, what, "make room, lower VOICELOG_TTL_DAYS, or move the file (VOICELOG_STORE)")


def unknown(names: Iterable[str], why: str) -> list[Finding]:
    """Return findings for what could not be looked at, with the reason."""
    return [Finding(name, "unknown", why) for name in names]
