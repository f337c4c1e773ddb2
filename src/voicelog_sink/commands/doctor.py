"""`voicelog-sink doctor`: what is wrong with broker, topics, store, clocks, rights, disk, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import click
from rich.text import Text

from voicelog.settings import Settings
from voicelog_sink import shapes
from voicelog_sink.checkup import Finding, worst
from voicelog_sink.doctor import BROKER, STORE, examine
from voicelog_sink.options import BROKER_SETTINGS, INIT_SETTINGS, STORE_SETTINGS, secrets_epilog, with_settings
from voicelog_sink.render import console, one_line

SETTINGS = (*BROKER_SETTINGS, *STORE_SETTINGS, *INIT_SETTINGS, "group", "ttl_days")
PATIENCE_MS = 5_000
"""How long a server that does not answer is waited for, at most."""
STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "unknown": "dim"}
NAME_WIDTH = 15

EXAMPLE = """\b
Examples:
  voicelog-sink doctor
  voicelog-sink doctor --brokers redpanda:9092 --store "scylla://scylla:9042/voice_ai_ks?local_dc=dc1"
  voicelog-sink doctor --only store --store sqlite:///calls.db
  voicelog-sink doctor --json | jq 'select(.status != "ok")'

"""


@click.command(epilog=EXAMPLE + secrets_epilog(*SETTINGS))
@click.option("--only", type=click.Choice((BROKER, STORE)), help="Only this one; the other need not be there")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line")
@with_settings(*SETTINGS)
def command(settings: Settings, only: str | None, as_json: bool) -> int:
    """Look at broker, topics, group, lag, dead letters, store, schema, clocks, rights and disk; change nothing.

    Says what is wrong and the command that mends it. Status 1 where something failed: a warning is none.
    """
    timeout_ms = min(settings.start_timeout_ms, PATIENCE_MS)
    patient = attrs.evolve(settings, values={**settings.values, "start_timeout_ms": timeout_ms})
    found = list(told(examine(patient, only), as_json))
    return 1 if worst(found) == "failed" else 0


def told(findings: Iterable[Finding], as_json: bool) -> Iterable[Finding]:
    """Print each finding as it comes, and pass it on."""
    out = console()
    for finding in findings:
        if as_json:
            click.echo(shapes.line(shapes.finding_shape(finding)))
        else:
            out.print(line(finding), soft_wrap=True)
        yield finding


def line(finding: Finding) -> Text:
    """Return the line or two for a finding."""
    text = Text()
    text.append(f"{finding.status:8}", STYLES[finding.status])
    text.append(f"{finding.name:{NAME_WIDTH}} ", "bold")
    text.append(one_line(finding.what))
    if finding.remedy:
        text.append(f"\n{'':8}{'':{NAME_WIDTH}} -> {one_line(finding.remedy)}", "dim" if finding.status == "ok" else "")
    return text
