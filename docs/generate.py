"""Writes docs/reference from the code's own tables. `make docs`; a test fails when a page is not what this writes."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

import attrs
import click

import voicelog
from voicelog import counters, errors, events, figures, genai, heartbeat, latency, redact, settings, testing, usage
from voicelog_sink import cli, metrics, tables

HERE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code. Change the code, then `make docs`. -->\n"
Rows = list[tuple[str, ...]]


def table(head: tuple[str, ...], rows: Rows) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def type_name(annotation: object) -> str:
    """Return a field's type as a reader of JSON would call it."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)] or [annotation]
    base = typing.get_args(parts[0])[0] if hasattr(parts[0], "__metadata__") else parts[0]
    if typing.get_origin(annotation) in (dict, list):
        base = annotation
    origin = typing.get_origin(base)
    names = {str: "text", int: "integer", float: "number", bool: "true/false", dict: "object", list: "list"}
    return names.get(origin or base, getattr(base, "__name__", str(base)))


def event_rows(cls: type[events.Event], skip: frozenset[str]) -> Rows:
    """Return a row a field of an event class."""
    hints = typing.get_type_hints(cls, include_extras=True)
    required = events.required_fields(cls)
    rows = []
    for field in attrs.fields(cls):
        if field.name not in skip and field.metadata.get("wire", True):
            choices = field.metadata["choices"]
            doc = field.metadata["doc"] + (f": {', '.join(choices)}" if choices else "")
            rows.append((f"`{field.name}`", type_name(hints[field.name]), "yes" if field.name in required else "", doc))
    return rows


def events_page() -> str:
    """Return the page of events."""
    common = frozenset(field.name for field in attrs.fields(events.Event))
    head = ("field", "type", "required", "meaning")
    text = [
        "# Events\n",
        NOTE,
        "The value of a message is one JSON object. Its key is the session id, or `~service/host` for an event without "
        "one. What is absent is not sent, or null; never 0 or -1.\n",
        "## Fields of every event\n",
        table(head, [
            ("`v`", "integer", "yes", f"schema version, {events.SCHEMA_VERSION}; another major version is refused"),
            ("`type`", "text", "yes", "one of the types below"),
            ("`event_id`", "text", "", "`stream_id-seq`; derived, not read"),
            *event_rows(events.Event, frozenset()),
        ]),
        f"`session_id` may be absent only in: "
        f"{', '.join(f'`{n}`' for n, c in events.EVENT_TYPES.items() if c.SESSION_OPTIONAL)}.\n",
    ]  # fmt: skip
    for name, cls in events.EVENT_TYPES.items():
        rows = event_rows(cls, common)
        doc = (cls.__doc__ or "").strip()
        text += [f"## `{name}`\n", f"{doc} Topic `{cls.TOPIC}`.\n", table(head, rows) if rows else ""]
    text += [
        "## Dead letters\n",
        f"What can't be stored goes to `{events.TOPIC_DEAD_LETTERS}`, unchanged, with the header `voicelog.reason`:\n",
        table(("reason", "meaning"), [(f"`{reason}`", meaning) for reason, meaning in errors.REASONS.items()]),
    ]
    return "\n".join(text)


def settings_page() -> str:
    """Return the page of settings."""
    rows = []
    for row in settings.SETTINGS:
        default = ",".join(sorted(row.default)) if isinstance(row.default, frozenset) else str(row.default or "")
        default = "false" if row.default is False else "true" if row.default is True else default
        default = "0" if row.default == 0 and row.default is not False and not default else default
        option = "environment only" if row.secret else f"`--{row.name.replace('_', '-')}`"
        where = {"library": f"`configure({row.name}=)`", "sink": option, "both": f"`configure({row.name}=)`, {option}"}
        shown = f"`{default}`" if default and default != "{}" else ""
        rows.append((f"`{row.env}`", where[row.used_by], shown, row.unit, row.help))
    return "\n".join([
        "# Settings\n",
        NOTE,
        "A value given to `configure()` or on the command line wins over the environment's, which wins over the "
        "default. A secret is shown nowhere.\n",
        table(("environment", "or", "default", "unit", "meaning"), rows),
        "## Kinds of content, for `capture_content`\n",
        "What leaves the process, and how to redact it: [Privacy](../how-to/privacy.md).\n",
        table(("kind", "what it is", "by default"), [
            (f"`{kind}`", doc, "sent" if kind in settings.CONTENT_DEFAULT else "not sent")
            for kind, doc in settings.CONTENT_KINDS.items()
        ]),
    ])  # fmt: skip


def figure_row(name: str, row: figures.Definition) -> tuple[str, ...]:
    """Return a figure's row: the marks it lies between, what it means, and what others call it."""
    start = "user_speech_start or interrupted_at" if row.start == figures.ONSET else row.start
    return (f"`{name}`", f"{row.end} - {start}" if row.end else "", row.meaning, row.aligns)


def metrics_page() -> str:
    """Return the page of figures: a turn's, the library's counters, the sink's metrics."""
    measured = [figure_row(name, row) for name, row in figures.FIGURES.items()]
    parts = [(f"`{p.start}`", f"`{p.end}`", f"`{p.key}`", p.owner) for p in latency.PARTS]
    counted = [(f"`{row.name}`", row.label, row.help) for row in counters.COUNTERS]
    served = [(f"`{row.name}`", row.kind, ", ".join(row.labels), row.help) for row in metrics.METRICS]
    return "\n".join([
        "# Metrics\n",
        NOTE,
        "## A turn's figures, milliseconds\n",
        "Each has a `quality` and an `anchor`; which marks count, and when a figure is not ok, is in "
        "[Latency](../explanation/latency.md).\n",
        table(("figure", "from the turn's marks", "meaning", "others call it"), measured),
        "## The parts of user_bot_latency_ms\n",
        "They sum exactly to it; the rules are in [Latency](../explanation/latency.md).\n",
        table(("from", "to", "key", "owner"), parts),
        "## What a stage's `usage` counts\n",
        "A whole includes its parts. Other names are kept, and have no price.\n",
        table(("name", "unit", "part of", "meaning"), [
            (f"`{row.name}`", row.unit, ", ".join(f"`{whole}`" for whole in row.part_of), row.help)
            for row in usage.USAGE
        ]),
        "## What the library counts: `voicelog.stats()`\n",
        table(("counter", "by", "meaning"), [
            *counted,
            ("`delivered`", "", "events that the broker acknowledged"),
            ("`queued`", "", "events that wait for it"),
            ("`accelerated`", "", "true where stages run in C: [Overhead](../explanation/overhead.md)"),
        ]),
        "## What a process says of itself\n",
        f"A `health` event of the component `{heartbeat.COMPONENT}`, every `health_interval_ms`; its state is degraded "
        "when events were dropped or failed since the last one, or the queue is over half full.\n",
        table(("attribute", "meaning"), [(f"`{name}`", doc) for name, doc in heartbeat.FIGURES.items()]),
        "## What the sink serves at /metrics\n",
        table(("metric", "kind", "labels", "meaning"), served),
    ])  # fmt: skip


def spans_page() -> str:
    """Return the page of OpenTelemetry's names."""
    operations = [(f"`{stage}`", f"`{o.name}`", o.kind.name, o.output or "") for stage, o in genai.OPERATIONS.items()]
    operations += [("any other", "its own name", "INTERNAL", ""), ("a turn", f"`{genai.INVOKE_AGENT}`", "INTERNAL", "")]
    names = [(f"`{row.field}`", ", ".join(row.stages) or "any", f"`{row.attribute}`") for row in genai.NAMES]
    names += [
        ("session id", "any", f"`{genai.CONVERSATION}`"),
        ("`items`", ", ".join(genai.MODELS), "`gen_ai.request.stream`"),
        ("`end_reason`", "a turn", f"`{genai.END_REASON}`"),
        ("`service`", "a turn", f"`{genai.AGENT}`"),
        ("any other", "any", f"`{genai.OWN}<field>`"),
    ]
    texts = [(f"`{field}`", stage, f"`{attribute}`") for (stage, field), attribute in genai.CONTENT.items()]
    return "\n".join([
        "# Spans\n",
        NOTE,
        f"Version {genai.VERSION} of the table, from {genai.CONVENTIONS}. How to turn spans on: "
        "[OpenTelemetry](../how-to/opentelemetry.md).\n",
        "## Operations\n",
        table(("stage", "`gen_ai.operation.name`", "kind", "`gen_ai.output.type`"), operations),
        "## Attributes\n",
        table(("field", "stages", "attribute"), names),
        "## Texts, when both switches are on\n",
        table(("field", "stage", "attribute"), texts),
    ])  # fmt: skip


def tables_page() -> str:
    """Return the page of tables."""
    text = [
        "# Tables\n",
        NOTE,
        "The same in ScyllaDB (keyspace `voice_ai_ks`) and in SQLite. The CQL is in `cql/`.\n",
        "How long rows and their texts are kept can be changed: [How to set how long things are kept]"
        "(../how-to/retention.md).\n",
    ]
    for t in tables.TABLES.values():
        clustering = [f"`{name}`{' desc' if name in t.descending else ''}" for name in t.clustering]
        days = "as the setting ttl_days says" if t.life is tables.Life.APPENDED else f"{t.lifetime_days} days"
        kept = days if t.life is tables.Life.APPENDED or t.lifetime_days else "until they are deleted"
        texts = f" Text: {', '.join(f'`{n}`' for n in t.texts)}." if t.texts else ""
        text += [
            f"## `{t.name}`\n",
            f"Partition key: {', '.join(f'`{n}`' for n in t.partition_key)}. "
            f"Clustering: {', '.join(clustering) or 'none'}. Rows are {t.life.value}, and kept {kept}."
            + (f" Index: {', '.join(f'`{n}`' for n in t.indexes)}." if t.indexes else "")
            + texts
            + "\n",
            table(("column", "type"), [(f"`{name}`", kind) for name, kind in t.columns.items()]),
        ]
    for view in tables.VIEWS.values():
        text += [
            f"## `{view.name}`\n",
            f"A view of `{view.table}`: partition key {', '.join(f'`{n}`' for n in view.partition_key)}, clustering "
            f"{', '.join(f'`{n}`' for n in view.clustering)}; every column of it but the texts.\n",
        ]
    return "\n".join(text)


def option_rows(command: click.Command) -> Rows:
    """Return a row an argument or option of a command; settings have a page of their own."""
    rows = []
    for parameter in command.params:
        names = ", ".join(f"`{name}`" for name in parameter.opts)
        if parameter.name in settings.BY_NAME:
            continue
        if isinstance(parameter, click.Option):
            rows.append((names, parameter.help or ""))
        else:
            rows.append((f"`{(parameter.name or '').upper()}`", "argument"))
    taken = [settings.BY_NAME[p.name] for p in command.params if p.name in settings.BY_NAME]
    names = ", ".join(f"`--{row.name.replace('_', '-')}`" for row in taken)
    return [*rows, (names, "as in [Settings](settings.md)")]


def examples(command: click.Command) -> str:
    """Return a command's examples as a block."""
    lines = [line.strip() for line in (command.epilog or "").replace("\b", "").splitlines()]
    commands = [f"    {line}" for line in lines if line.startswith("voicelog-sink")]
    return "\n".join(commands) + "\n" if commands else ""


def commands_page() -> str:
    """Return the page of commands: what each does, its options and examples."""
    text = [
        "# Commands\n",
        NOTE,
        "`voicelog-sink COMMAND --help` says the same. Exit status: 0 done, 1 failed, 2 wrong use; what went wrong is "
        "on stderr.\n",
    ]
    context = click.Context(cli.group, info_name="voicelog-sink")
    for name in cli.group.list_commands(context):
        command = cli.group.get_command(context, name)
        if command is not None:
            text += command_section(name, command)
    return "\n".join(text)


def command_section(name: str, command: click.Command) -> list[str]:
    """Return what a command does, its options and examples; then those of each of its own commands."""
    help_text = inspect.cleandoc((command.help or "").replace("\b", ""))
    text = [f"## `voicelog-sink {name}`\n", help_text + "\n", examples(command)]
    if not isinstance(command, click.Group):
        return [*text, table(("option", "meaning"), option_rows(command))]
    return [
        *text,
        *(part for own, inner in command.commands.items() for part in command_section(f"{name} {own}", inner)),
    ]


def signature(thing: object) -> str:
    """Return a callable's parameters without their annotations."""
    if not callable(thing):
        return ""
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(thing).parameters.values()]
    return str(inspect.Signature([p for p in bare if p.name != "self"]))


def methods(cls: type) -> Rows:
    """Return a row a public method or property of a class, with the effect that its docstring begins with."""
    rows = []
    for name, member in inspect.getmembers(cls):
        doc = inspect.getdoc(member)
        if (
            name.startswith("_")
            or name in INTERNAL
            or not doc
            or not (callable(member) or isinstance(member, property))
        ):
            continue
        shown = name if isinstance(member, property) else f"{name}{signature(member)}"
        rows.append((f"`.{shown}`", doc.splitlines()[0]))
    return rows


INTERNAL = frozenset({
    "begin", "finish", "took_item", "waited", "publish", "started_fields", "place", "stage_mark",
    "count_turn", "turn_closed", "turn_opened", "close", "flush", "produce", "queued", "renew_stream", "live",
    "end_at_exit", "go_on", "span", "attempts", "first_item", "items",
})  # fmt: skip
"""What the library's own files call on each other."""


def api_page() -> str:
    """Return the page of the Python API: the library's public names, with their docstrings."""
    text = ["# Python API\n", NOTE]
    for name in voicelog.__all__:
        thing = getattr(voicelog, name)
        if inspect.isclass(thing):
            own = thing.__name__ in ("Attempt", "Session", "Stage", "Turn")
            rows = methods(thing) if own else []
            text += [f"## `voicelog.{name}`\n", f"{inspect.getdoc(thing)}\n"]
            text += [table(("name", "effect"), rows)] if rows else []
        else:
            text += [f"## `voicelog.{name}{signature(thing)}`\n", f"{inspect.getdoc(thing)}\n"]
    text += ["## `voicelog.redact`\n", f"{inspect.getdoc(redact)}\n"]
    for maker in (redact.email, redact.card, redact.phone):
        text += [f"### `{maker.__name__}{signature(maker)}`\n", f"{inspect.getdoc(maker)}\n"]
    text += ["## `voicelog.testing`\n", f"{inspect.getdoc(testing)}\n"]
    text += [f"### `capture{signature(testing.capture)}`\n", f"{inspect.getdoc(testing.capture)}\n"]
    text += [table(("name", "effect"), methods(testing.Capture))]
    return "\n".join(text)


PAGES = {
    "api.md": api_page,
    "events.md": events_page,
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "spans.md": spans_page,
    "tables.md": tables_page,
    "commands.md": commands_page,
}


def main() -> None:
    """Write every page."""
    HERE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
