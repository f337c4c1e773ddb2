"""What `--json` prints and the API answers, as plain objects: units in names, numbers as numbers, absent as null.

Moments of a call (`started_at`, `ended_at`) are ISO 8601 texts in UTC, those of an event (`ts_us`, `marks`) epoch
microseconds.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from voicelog.events import Event
from voicelog_sink.anomalies import Anomaly, Found
from voicelog_sink.backup_manifest import Manifest
from voicelog_sink.calls import Call, CallTurn
from voicelog_sink.checkup import Finding
from voicelog_sink.compare import CompareRow
from voicelog_sink.demo import Played
from voicelog_sink.dlq import Counts, LetterRow, Verdict
from voicelog_sink.forget import Erased
from voicelog_sink.letters import Letter, session_of, text_of
from voicelog_sink.queries import Place
from voicelog_sink.restored import Restored
from voicelog_sink.retention import KINDS, Kept, Kind, Rule, Rules
from voicelog_sink.retention_apply import Applied
from voicelog_sink.retention_change import Change
from voicelog_sink.stats import StatsRow
from voicelog_sink.stores.base import Values
from voicelog_sink.summary import Summary
from voicelog_sink.trends import Trend
from voicelog_sink.verify import OUTCOMES, Gap, Ledger

Shape = dict[str, Any]

JSON_COLUMNS = frozenset({"attributes", "details"})
NO_SHAPE = frozenset({"ts", "hour", "day", "shard"})
"""Columns that only place a row; `ts` is in `ts_us`."""


def line(shape: Shape) -> str:
    """Return the shape as one line of JSON."""
    return msgspec.json.encode(shape).decode()


def session_shape(summary: Summary) -> Shape:
    """Return a call's summary: its fields by their names."""
    moments = {name: moment(getattr(summary, name)) for name in ("started_at", "ended_at")}
    return attrs.asdict(summary) | moments


def listed_shape(summary: Summary) -> Shape:
    """Return a call of the list: its summary, and `cursor`, after which the list goes on with `--after`."""
    return session_shape(summary) | {"cursor": Place.of(summary).token}


def row_shape(row: Values) -> Shape:
    """Return a row of performance_metrics, error_logs or system_health: its columns by their names.

    `ts_us` is the moment; JSON columns (`attributes`, `details`) are what their text says, absent columns left out.
    """
    present = {name: value for name, value in row.items() if value is not None and name not in NO_SHAPE}
    return {name: msgspec.Raw(value.encode()) if name in JSON_COLUMNS else value for name, value in present.items()}


def export_shape(table: str, file_format: str, rows: int, file: str, size_bytes: int | None) -> Shape:
    """Return what an export wrote; `bytes` is null for what is no regular file."""
    return {"table": table, "format": file_format, "rows": rows, "file": file, "bytes": size_bytes}


def backup_shape(directory: str, manifest: Manifest, damaged: list[str]) -> Shape:
    """Return what a backup holds: `tables` are rows by table, `damaged` sentences; `since` and `until` null for all."""
    moments = ("began_at", "ended_at", "since", "until")
    return {
        "directory": directory,
        "store": manifest.store,
        **{name: moment(getattr(manifest, name)) for name in moments},
        "tables": manifest.rows,
        "files": len(manifest.files),
        "bytes": manifest.bytes,
        "damaged": damaged,
    }


def restored_shape(directory: str, done: Restored, dry_run: bool) -> Shape:
    """Return what became of a backup's rows.

    `tables` has counts by table, `calls` and `hours` are those that a sink derives anew, `erased` counts rows that the
    store had of what was erased; `damaged` and the first of the `refusals` are sentences.
    """
    return {"directory": directory, "dry_run": dry_run, **attrs.asdict(done)}


def call_shape(call: Call) -> Shape:
    """Return `session`, `turns` (each `turn_id`, `turn`, `stages`, `others`) and `outside`, the events of no turn."""
    return {
        "session": session_shape(call.summary),
        "turns": [_turn_shape(turn) for turn in call.turns],
        "outside": [event_shape(event) for event in call.outside],
    }


def _turn_shape(turn: CallTurn) -> Shape:
    return {
        "turn_id": turn.turn_id,
        "turn": event_shape(turn.event) if turn.event else None,
        "stages": [event_shape(stage) for stage in turn.stages],
        "others": [event_shape(other) for other in turn.others],
    }


def event_shape(event: Event) -> Shape:
    """Return an event: `type`, `event_id`, `ts_us` and the fields of its type."""
    fields = attrs.asdict(event)
    return {"type": event.TYPE, "event_id": event.event_id, "ts_us": fields.pop("ts"), **fields}


def stats_shape(row: StatsRow) -> Shape:
    """Return a row of percentiles: its fields by their names."""
    return attrs.asdict(row)


def letter_row_shape(row: LetterRow) -> Shape:
    """Return a line of the dead letters' list: its fields by their names, `at` as a moment."""
    return attrs.asdict(row) | {"at": moment(row.at)}


def letter_shape(letter: Letter) -> Shape:
    """Return a dead letter whole.

    Its key, its value and each of its headers' have a `..._base64` too, which is null where the text says all.
    """
    names = ("topic", "topic_partition", "topic_offset", "reason", "stage", "error", "message", "stack", "sink_version")
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "at": moment(letter.at_ms),
        **{name: getattr(letter, name) for name in names},
        "session_id": session_of(letter),
        "replays": letter.replays,
        "headers": [{"name": name, **_bytes_shape("value", value)} for name, value in letter.headers],
        **_bytes_shape("key", letter.key),
        "size_bytes": letter.size_bytes,
        **_bytes_shape("value", letter.value),
    }


def ledger_shape(ledger: Ledger, lost: Iterable[Gap]) -> Shape:
    """Return `topics` (counts by outcome), `missing` (the messages that are named) and `gaps` (calls with holes)."""
    return {
        "topics": {topic: {name: counts[name] for name in OUTCOMES} for topic, counts in sorted(ledger.counts.items())},
        "missing": [attrs.asdict(missing) for missing in ledger.missing],
        "gaps": [attrs.asdict(gap) for gap in lost],
    }


def finding_shape(finding: Finding) -> Shape:
    """Return what doctor found: `name`, `status`, `what`, `remedy`."""
    return attrs.asdict(finding)


def erased_shape(erased: Erased, at_ms: int | None, topics_ms: dict[str, int] | None) -> Shape:
    """Return `sessions`, `rows` by table, `erased_at` (null for a dry run), `topics_ms` (null without the broker)."""
    told = {"sessions": list(erased.sessions), "rows": erased.rows}
    return told | {"erased_at": moment(at_ms), "topics_ms": topics_ms}


def played_shape(played: Played) -> Shape:
    """Return what became of the demo's calls: `store`, `sessions`, `produced`, `stored`."""
    return attrs.asdict(played)


def retention_shape(rules: Rules, found: Iterable[Kept], topics_ms: dict[str, int] | None) -> Shape:
    """Return `kinds` (those with a rule have `changed_at` and `changed_by`), `tables`, `topics_ms` (null if not asked).

    `days` is null for a kind without a rule, and for a table that is kept for ever; `rule` names the rule that a
    table's days come from, null by default.
    """
    return {
        "kinds": [_kind_shape(kind, rules.get(kind.name)) for kind in KINDS.values()],
        "tables": [_kept_shape(each) for each in found],
        "topics_ms": topics_ms,
    }


def _kind_shape(kind: Kind, rule: Rule | None) -> Shape:
    told = {"name": kind.name, "days": rule and rule.days, "most_days": kind.most_days, "tables": kind.tables}
    return told | {"changed_at": rule and moment(rule.changed_at), "changed_by": rule and rule.changed_by}


def _kept_shape(each: Kept) -> Shape:
    rules = {"rule": each.rule and each.rule.name, "text_rule": each.text_rule and each.text_rule.name}
    return {"name": each.table.name, "days": each.days, "text_days": each.text_days, **rules}


def retention_change_shape(made: Change, warnings: list[str], applied: Applied | None, dry_run: bool) -> Shape:
    """Return `name`, `days` (null for reset), `dry_run`, `warnings`, `tables` as they are kept after it, `applied`.

    `applied` is null without --apply; else the number of rows deleted (`rows`), without their texts (`texts`) and
    written anew (`written`), by table.
    """
    told = {"name": made.name, "days": made.rule and made.rule.days, "dry_run": dry_run, "warnings": warnings}
    tables = [_kept_shape(each) for each in made.after if each.table.name in made.tables]
    return told | {"tables": tables, "applied": attrs.asdict(applied) if applied else None}


def counts_shape(counts: Counts) -> Shape:
    """Return `total`, and how many by reason and by topic; what no header says is `unknown`."""
    named = {name: {key or "unknown": n for key, n in getattr(counts, name).most_common()} for name in FIELDS_COUNTED}
    return {"total": counts.total, **named}


FIELDS_COUNTED = ("reasons", "topics")


def verdict_shape(letter: Letter, found: Verdict, failure: str | None) -> Shape:
    """Return what a dry run says of a letter: `outcome`, `message`, and `failure` where it can't be sent back."""
    return _replay_shape(letter, letter.replays) | {
        "outcome": found.outcome,
        "message": found.message,
        "failure": failure,
    }


def replay_shape(letter: Letter, failure: str | None) -> Shape:
    """Return what became of a letter: `sent`, or the `failure`; `replays` has this one counted where it was sent."""
    sent = failure is None
    return _replay_shape(letter, letter.replays + sent) | {"sent": sent, "failure": failure}


def _replay_shape(letter: Letter, replays: int) -> Shape:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "topic": letter.topic,
        "session_id": session_of(letter),
        "reason": letter.reason,
        "replays": replays,
    }


def _bytes_shape(name: str, value: bytes | None) -> Shape:
    text = text_of(value)
    encoded = base64.b64encode(value).decode() if value is not None and text is None else None
    return {name: text, f"{name}_base64": encoded}


def compare_shape(row: CompareRow) -> Shape:
    """Return a measure of both sides: its fields by their names; error rates are shares, 0 to 1, of unit 1."""
    return attrs.asdict(row)


def anomalies_shape(found: Found) -> Shape:
    """Return `at`, `since`, how many measures were `judged` or not (`no_baseline`, `too_few`), and `anomalies`."""
    counts = {name: getattr(found, name) for name in ("judged", "no_baseline", "too_few")}
    shown = [_anomaly_shape(one) for one in found.anomalies]
    return {"at": moment(found.at_ms), "since": moment(found.since_ms), **counts, "anomalies": shown}


def _anomaly_shape(one: Anomaly) -> Shape:
    """Return its fields by their names, `since` and `until` (null while it lasts) for the moments."""
    fields = attrs.asdict(one)
    moments = {"since": moment(fields.pop("since_ms")), "until": moment(fields.pop("until_ms"))}
    return fields | moments


def trend_shape(trend: Trend) -> Shape:
    """Return its fields by their names; `weeks` are objects of `since`, `value` and `count`."""
    weeks = [{"since": moment(week.since_ms), "value": week.value, "count": week.count} for week in trend.weeks]
    return attrs.asdict(trend) | {"weeks": weeks}


def moment(at_ms: int | None) -> str | None:
    """Return epoch milliseconds as an ISO 8601 text in UTC."""
    if at_ms is None:
        return None
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
