"""The demo: records real calls with voicelog's embedded broker and sink, shows them, and checks the record.

    make demo          sets up what it needs, then runs this

Nothing but pip packages is needed, and no network once they are installed.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SINK = Path(sys.executable).with_name("voicelog-sink")


def run(*command: object) -> None:
    """Run a command with its output where ours goes; ends the demo with its status when it fails."""
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} {command[1]} ended with status {done.returncode}")


def show(store: str, *command: str) -> None:
    """Print a command of the sink as one would type it, and what it prints."""
    print(f"\n$ voicelog-sink {' '.join(command)}\n", flush=True)
    run(SINK, *command, "--store", store)


def stored_events(database: Path) -> int:
    """Return how many events the store holds: those of calls, and those outside of any call."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        (in_calls,) = db.execute("SELECT count(*) FROM voice_interactions").fetchone()
        outside = "SELECT stream_id, seq FROM {} WHERE {}"
        loose = " UNION ".join([
            outside.format("performance_metrics", "session_id IS NULL"),
            outside.format("error_logs", "session_id IS NULL"),
            outside.format("system_health", "stream_id NOT IN (SELECT stream_id FROM voice_interactions)"),
        ])  # fmt: skip
        (outside_calls,) = db.execute(f"SELECT count(*) FROM ({loose})").fetchone()  # noqa: S608
    return int(in_calls + outside_calls)


def main() -> None:
    """Run the example under `voicelog-sink dev`, show what was recorded, compare it with what was produced."""
    parser = argparse.ArgumentParser(description="Record real calls and show them.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="directory of the calls' sound and record")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    database, stats_file = out / "voicelog.db", out / "stats.json"
    for stale in (database, *out.glob("voicelog.db-*"), stats_file):
        stale.unlink(missing_ok=True)
    store = f"sqlite:///{os.path.relpath(database)}"

    began = time.monotonic()
    run(SINK, "dev", "--store", store, "--http", "127.0.0.1:0", "--",
        sys.executable, HERE / "orchestrator.py", "--out", out, "--stats-file", stats_file)  # fmt: skip
    show(store, "sessions")
    show(store, "show", "last")
    show(store, "stats")

    stats = json.loads(stats_file.read_text(encoding="utf-8"))
    stored = stored_events(database)
    print(f"\n{stats['produced']} events produced, {stored} stored, in {time.monotonic() - began:.0f} s.")
    print(f"The calls' sound is in {out}/, their record in {database}. More of it:\n")
    for command in ("sessions --json", "show SESSION --stacks", "stats --by variant", "--help"):
        print(f"    {os.path.relpath(SINK)} {command}" + (f" --store {store}" if command != "--help" else ""))
    if stored != stats["produced"]:
        sys.exit(f"the record is not whole: {stats}")


if __name__ == "__main__":
    main()
