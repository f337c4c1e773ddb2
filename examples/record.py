"""Records the example's calls anew as what `voicelog-sink demo` plays: the wire's own messages, one a line.

    make record        sets up what it needs, then runs this

Everything stays as the bot sent it, times and ids too, but for what belongs to the machine: the host is called `demo`,
stack traces have file names without their directories, and a call is called by its name alone.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voicelog.events import TOPICS
from voicelog.settings import load
from voicelog_sink.embedded import EmbeddedBroker, at_broker
from voicelog_sink.topic_reader import TopicReader

HERE = Path(__file__).parent
RECORDED = HERE.parent / "src" / "voicelog_sink" / "demo_calls.jsonl"
DIRECTORY = re.compile(r'(?<=File ")[^"]*/(?=[^"/]+")')
HOST = "demo"


def produced(command: list[str]) -> Iterator[dict[str, Any]]:
    """Run a command with an embedded broker; yield the messages that it sent there."""
    broker = EmbeddedBroker()
    bot = {"VOICELOG_BROKERS": broker.address, "VOICELOG_HEALTH_INTERVAL_MS": "0"}  # heartbeats are no part of a call
    subprocess.run(command, env=os.environ | bot, check=True)
    settings, _ = load({})
    with TopicReader(at_broker(settings, broker.address)) as reader:
        for record in reader.read(reader.spans(TOPICS)):
            yield json.loads(record.value or b"")


def neutral(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a message without what it says of this machine."""
    if (error := fields.get("error")) and error.get("stack"):
        error["stack"] = DIRECTORY.sub("", error["stack"])
    name, _, _ = fields["session_id"].partition("-")
    return fields | {"host": HOST, "session_id": name}


def in_order(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages call after call, each call's as they were counted."""
    began = {message["stream_id"]: message["ts"] for message in messages if message["type"] == "session_started"}
    return sorted(messages, key=lambda message: (began[message["stream_id"]], message["seq"]))


def main() -> None:
    """Record the calls and write them."""
    parser = argparse.ArgumentParser(description="Record the calls that `voicelog-sink demo` plays.")
    parser.add_argument("--to", type=Path, default=RECORDED, help="the file to write")
    to = parser.parse_args().to
    with tempfile.TemporaryDirectory() as sound:
        command = [sys.executable, str(HERE / "orchestrator.py"), "--out", sound]
        messages = in_order([neutral(fields) for fields in produced(command)])
    text = "".join(json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n" for message in messages)
    for mine in (str(HERE.parent), str(Path.home()), sys.prefix):
        if mine in text:
            sys.exit(f"{mine} is in what was recorded: teach `neutral` to take it out")
    to.write_text(text, encoding="utf-8")
    print(
        f"{len(messages)} events of {len({m['session_id'] for m in messages})} calls in {to}, {len(text):,} characters"
    )


if __name__ == "__main__":
    main()
