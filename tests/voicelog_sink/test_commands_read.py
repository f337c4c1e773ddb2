"""`sessions`, `show` and `stats` as a person and a program call them, against a real SQLite file."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import attrs
import click
import pytest
from tests.builders import CallBuilder, realistic_call, sqlite_store, store_calls, troubled_call
from tests.voicelog_sink.ran import Ran, Run

from voicelog_sink.cli import main
from voicelog_sink.commands.sessions import Search
from voicelog_sink.commands.stats import redraw
from voicelog_sink.naming import listed
from voicelog_sink.queries import Place
from voicelog_sink.shapes import moment
from voicelog_sink.stats import StatsRow
from voicelog_sink.summary import Summary, summarise, summary_rows


def words(text: str) -> list[str]:
    return text.split()


@pytest.fixture
def start_us() -> int:
    return int(time.time() * 1e6) - 600_000_000


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path / "calls.db"


@pytest.fixture
def calls(path: Path, start_us: int) -> Iterator[list[CallBuilder]]:
    calls = [
        realistic_call("call-good", start_us=start_us, variant="b", user_id="okafor"),
        troubled_call("call-trouble", start_us=start_us - 10**6),
    ]
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    store_calls(store, calls)
    store.close()
    return calls


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        status = main([*arguments, "--store", f"sqlite:///{path}"])
        return Ran(status, *capsys.readouterr())

    return run


def test_sessions_lists_calls_newest_first_without_colours_and_uncut_in_a_pipe(
    run: Run, calls: list[CallBuilder]
) -> None:
    ran = run("sessions")
    heading, good, trouble = (line.split() for line in ran.out.splitlines())
    assert (ran.status, ran.err) == (0, "")
    assert heading == (
        words("started (UTC) session service variant user length turns errors cut in slow p50 ms max ms cost events")
    )
    assert good[2:] == words("call-good front-desk b okafor 25.8 s 5 0 0 0 891 1149 $0.0093 complete")
    assert trouble[2:] == words("call-trouble front-desk - - 10.0 s 2 2 1 1 988 2900 $0.0007 1 missing")
    assert "\x1b" not in ran.out


def test_sessions_as_json_are_whole_summaries_a_line(run: Run, calls: list[CallBuilder]) -> None:
    first, second = run("sessions", "--json").objects
    assert list(first) == list(second) == [*(field.name for field in attrs.fields(Summary)), "cursor"]
    summary = summarise(calls[1].events)
    assert summary is not None
    expected = attrs.asdict(summary) | {"started_at": moment(summary.started_at), "ended_at": None}
    expected["cursor"] = f"{summary.started_at}:call-trouble"
    assert second == json.loads(json.dumps(expected))


def test_sessions_are_limited(run: Run, calls: list[CallBuilder]) -> None:
    assert [shape["session_id"] for shape in run("sessions", "--json", "--limit", "1").objects] == ["call-good"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [(("--slow",), ["call-trouble"]),
     (("--slow", "1000"), ["call-good", "call-trouble"]),
     (("--slow", "2901"), []),
     (("--failed", "--interrupted"), ["call-trouble"]),
     (("--variant", "b", "--service", "front-desk", "--provider", "openai"), ["call-good"]),
     (("--model", "gpt"), []),
     (("--text", "parking"), ["call-good"]),
     (("--user", "okafor"), ["call-good"]),
     (("--user", "okafor", "--failed"), []),
     (("--user", "okafo"), []),
     (("--user", "okafor", "--until", "1h"), []),
     (("--user", ""), ["call-trouble"]),
     (("--variant", ""), ["call-trouble"]),
     (("--variant", "", "--user", "okafor"), []),
     (("--service", ""), []),
     (("--provider", "", "--model", ""), []),
     (("--until", "1h"), [])],
)  # fmt: skip
def test_sessions_are_filtered(
    run: Run, calls: list[CallBuilder], filters: tuple[str, ...], expected: list[str]
) -> None:
    assert [shape["session_id"] for shape in run("sessions", *filters, "--json").objects] == expected


def test_slow_without_a_length_is_what_the_setting_says(
    run: Run, calls: list[CallBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*arguments: str) -> list[str]:
        return [shape["session_id"] for shape in run("sessions", "--json", *arguments).objects]

    assert found("--slow", "--slow-turn-ms", "1100") == ["call-good", "call-trouble"]
    assert found("--slow", "--slow-turn-ms", "1200") == ["call-trouble"]
    monkeypatch.setenv("VOICELOG_SLOW_TURN_MS", "2901")
    assert found("--slow") == []
    assert found("--slow", "2900") == ["call-trouble"]


def test_filter_that_nothing_fits_is_named_as_a_reason(run: Run, calls: list[CallBuilder]) -> None:
    assert run("sessions", "--slow", "9000") == (
        0, "", "no calls since 24h for which all of that holds: look elsewhere with --since, such as --since 7d\n",
    )  # fmt: skip
    assert run("sessions", "--user", "nobody").err.endswith("such as --since 400d, which takes no longer\n")
    assert run("sessions", "--user", "nobody", "--since", "400d").err.endswith("as far back as calls are known\n")
    ran = run("sessions", "--seconds", "3")
    assert (ran.status, "expected --text with it" in ran.err) == (2, True)


def test_sessions_go_on_after_a_cursor(run: Run, calls: list[CallBuilder]) -> None:
    first = run("sessions", "--limit", "1")
    (whole,) = run("sessions", "--limit", "1", "--json").objects
    assert first.err == f"there are more: go on with --after {whole['cursor']}, or take a higher --limit\n"
    assert [s["session_id"] for s in run("sessions", "--after", whole["cursor"], "--json").objects] == ["call-trouble"]
    (last,) = run("sessions", "--after", whole["cursor"], "--json").objects
    assert run("sessions", "--after", last["cursor"]) == (0, "", "no more calls since 24h: the list ends here\n")
    gone = f"{last['cursor']}-gone"
    assert run("sessions", "--until", "1s", "--after", gone) == (
        0, "", f"no more calls since 24h until 1s: the list ends here; at {gone!r} itself is no call: it was erased, "
        "or never there\n",
    )  # fmt: skip


@pytest.fixture
def many(path: Path, start_us: int) -> None:
    """Forty calls of which the third and the last one are of the same person; without their events."""
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    for n in range(40):
        call = CallBuilder(f"call-{n:02d}", start_us=start_us - n * 1000, user_id="okafor" if n in (2, 39) else None)
        call.started()
        summary = summarise(call.events)
        assert summary is not None
        store.write(summary_rows(summary))
    store.close()


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_search_whose_time_is_over_says_how_far_it_came(run: Run, many: None, start_us: int, how: tuple[str]) -> None:
    ran = run("sessions", "--text", "okafor", "--seconds", "0", *how)
    reached_ms = start_us // 1000 - 31
    after = f"{reached_ms}:call-31"
    at = f"{datetime.fromtimestamp(reached_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    assert ran.err == f"searched back to {at} UTC and no further: go on with --after {after}\n"
    assert ran.status == 0
    assert "call-02" in ran.out
    assert "call-39" not in ran.out
    (found,) = run("sessions", "--text", "okafor", "--seconds", "0", "--after", after, "--json").objects
    assert found["session_id"] == "call-39"


def test_signal_ends_a_search_with_what_was_found() -> None:
    search, place = Search(0, 100, 60), Place(50, "call-1")
    with search.begun():
        assert search.go_on(place)
        os.kill(os.getpid(), signal.SIGINT)
        assert not search.go_on(place)
    assert search.is_interrupted


def test_no_calls_is_no_failure_and_says_what_to_do_on_stderr(run: Run, calls: list[CallBuilder]) -> None:
    elsewhere = "since 1s: look elsewhere with --since, such as --since 7d"
    latest = "; the last minute's events may not be in yet"
    for command, sentence in (
        ("sessions", f"no calls {elsewhere}"),
        ("stats", f"nothing was measured {elsewhere}{latest}"),
    ):
        for flag in ((), ("--json",)):
            assert run(command, "--since", "1s", *flag) == (0, "", f"{sentence}\n")
    for command in ("stats", "sessions"):
        assert "since 1h until 30m:" in run(command, "--since", "1h", "--until", "30m").err


def test_show_prints_the_call_with_its_waterfall(run: Run, calls: list[CallBuilder]) -> None:
    ran = run("show", "call-good")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("call-good · front-desk · host bot-1 · variant b · user okafor · complete (27 events)\n")
    assert ran.out.count("├") == 5
    assert run("show", "call-g") == ran
    assert run("show", "last") == ran


def test_show_as_json_is_the_whole_call(run: Run, calls: list[CallBuilder]) -> None:
    (shape,) = run("show", "call-trouble", "--json").objects
    assert list(shape) == ["session", "turns", "outside"]
    assert [list(turn) for turn in shape["turns"]] == [["turn_id", "turn", "stages", "others"]] * 2
    assert shape["turns"][1]["turn"]["user_bot_latency_ms"] == 2900.0
    assert sum(part["us"] for part in shape["turns"][1]["turn"]["contributions"]) == 2_900_000
    tool = shape["turns"][1]["stages"][2]
    assert (tool["type"], tool["duration_ms"], tool["first_item_ms"], tool["error"]["type"]) == (
        "stage", 2003.0, None, "TimeoutError",
    )  # fmt: skip
    ids = {event["event_id"] for turn in shape["turns"] for event in [turn["turn"], *turn["stages"], *turn["others"]]}
    assert ids | {event["event_id"] for event in shape["outside"]} == {event.event_id for event in calls[1].events}


def test_show_of_an_unknown_call_fails_with_a_sentence_and_near_ones(run: Run, calls: list[CallBuilder]) -> None:
    assert run("show", "call-trubble") == (
        1, "", "voicelog-sink: no call 'call-trubble' is stored: did you mean call-trouble?\n",
    )  # fmt: skip
    assert run("show", "call-") == (
        1, "", "voicelog-sink: 2 calls begin with 'call-': call-good, call-trouble; give more of the id\n",
    )  # fmt: skip


def test_stats_prints_a_table_each_for_stages_turns_and_metrics(run: Run, calls: list[CallBuilder]) -> None:
    ran = run("stats")
    lines = ran.out.splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert [line for line in lines if line in ("Stages, ms", "Turns, ms", "Metrics")] == [
        "Stages, ms",
        "Turns, ms",
        "Metrics",
    ]
    assert lines[1].split() == words(
        "stage count per min errors excluded took p50 p90 p95 p99 first p50 p90 p95 p99 cost"
    )
    assert lines[2].split()[:5] == ["stt", "7", "<0.01", "0", "0"]
    assert lines[5].split()[:5] == ["tool", "2", "<0.01", "1", "1"]
    assert lines[-1] == "percentiles are within 1 %; the last minute's events may not be in yet"


def test_stats_tell_groups_apart_and_leave_out_those_a_table_has_not(run: Run, calls: list[CallBuilder]) -> None:
    lines = run("stats", "--by", "provider,model").out.splitlines()
    assert lines[1].split()[:3] == ["stage", "provider", "model"]
    assert lines[3].split()[:3] == ["llm", "openai", "gpt-4o-mini"]
    assert next(line for line in lines if line.startswith("figure")).split()[:2] == ["figure", "count"]


def test_stats_as_json_have_every_field(run: Run, calls: list[CallBuilder]) -> None:
    shapes = run("stats", "--json", "--by", "variant").objects
    assert all(list(shape) == [field.name for field in attrs.fields(StatsRow)] for shape in shapes)
    stt = next(shape for shape in shapes if shape["name"] == "stt" and shape["group"] == {"variant": "b"})
    assert (stt["count"], stt["duration_ms"]["count"], stt["value"], stt["unit"]) == (5, 5, None, None)


def test_stats_are_of_the_names_and_the_period_that_were_asked_for(run: Run, calls: list[CallBuilder]) -> None:
    shapes = run("stats", "--json", "--names", "llm, turn.user_bot_latency_ms").objects
    assert [shape["name"] for shape in shapes] == ["llm", "turn.user_bot_latency_ms"]
    until = run("stats", "--json", "--names", "llm", "--since", "1h", "--until", "now").err
    assert "'now' is no time" in until
    (shape,) = run("stats", "--json", "--names", "llm", "--since", "59m", "--until", "1m").objects
    assert shape["per_minute"] == pytest.approx(shape["count"] / 59, rel=0.02)


def test_names_are_taken_as_tables_print_them(run: Run, calls: list[CallBuilder]) -> None:
    printed = run("stats", "--names", "user_bot_latency").out
    assert printed.splitlines()[2].split()[0] == "user_bot_latency"
    for name in ("turn.user_bot_latency_ms", "user_bot_latency_ms", "user_bot_latency,turn.user_bot_latency_ms"):
        assert run("stats", "--names", name).out == printed


@pytest.mark.parametrize("names", ["nope", "llm,nope", "nope,llm"])
def test_unknown_name_is_wrong_use_and_told_with_those_there_are(
    run: Run, calls: list[CallBuilder], names: str
) -> None:
    ran = run("stats", "--names", names, "--until", "1s")
    assert (ran.status, ran.out) == (2, "")
    sentence = "no figure 'nope' was measured since 24h until 1s; there are: stt, llm, tts, tool, user_bot_latency, "
    assert sentence in " ".join(ran.err.split())


def test_without_anything_measured_no_name_is_unknown(run: Run, path: Path) -> None:
    sqlite_store(path, lambda: int(time.time() * 1000)).close()
    ran = run("stats", "--names", "llm,nope")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.startswith("nothing was measured of llm, nope since 24h: look elsewhere with --since")


def test_many_names_are_not_all_listed() -> None:
    assert listed([f"m{n}" for n in range(1032)]).endswith(", m29 and 1,002 more")
    assert listed(["a\x1b", ""]) == "a\N{REPLACEMENT CHARACTER}, ''"


def test_watch_draws_anew_until_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = iter([None, None])

    def pause() -> None:
        if next(drawn, 0) == 0:
            raise KeyboardInterrupt

    redraw(lambda: click.echo("figures"), pause)
    assert capsys.readouterr().out == "figures\n" * 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("stats", "--since", "1h", "--until", "2h"), "--since 1h is not before --until 2h: expected the earlier moment"),
     (("stats", "--watch"), "it redraws a terminal, and stdout is none, or --json is given"),
     (("sessions", "--since", "soon"), "'soon' is no time: expected a length such as 30m, 24h or 7d"),
     (("sessions", "--after", "5"), "'5' is no place in the list: expected a `cursor` that `sessions --json` printed"),
     (("sessions", "--after", "1:2:3"), "'1:2:3' is no place in the list: expected a `cursor` that `sessions --json`"),
     (("sessions", "--slow", "much"), "'much' is not a valid float"),
     (("sessions", "--since", "1h", "--until", "2h"), "--since 1h is not before --until 2h"),
     (("sessions", "--limit", "0"), "0 is not in the range 1<=x<=1000000"),
     (("sessions", "--limit", "99999999999999999999"), "99999999999999999999 is not in the range 1<=x<=1000000"),
     (("sessions", "--slow", "nan"), "'nan': expected a finite number"),
     (("sessions", "--slow", "inf"), "'inf': expected a finite number"),
     (("sessions", "--text", "tea", "--seconds", "nan"), "'nan': expected a finite number"),
     (("compare", "a", "b", "--fail-on-regression", "nan"), "'nan': expected a finite number"),
     (("anomalies", "--threshold", "inf"), "'inf': expected a finite number"),
     (("stats", "--by", "stage,colour"), "'colour' is no group: expected some of stage, provider, model,"),
     (("stats", "--by", ""), "no group is named: expected some of stage, provider, model,"),
     (("stats", "--names", " ,"), "nothing is named: expected some such as llm,user_bot_latency, or leave"),
     (("sessions", "--text", ""), "an empty text; expected what was said, or no --text"),
     (("show", ""), "an empty session id; expected an id, or `last`"),
     (("show",), "Missing argument 'SESSION'")],
)  # fmt: skip
def test_wrong_use_says_what_was_expected(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert sentence in ran.err


READ = [("sessions",), ("show", "last"), ("stats",), ("forget", "call-7", "--dry-run"),
        ("init", "--check", "--only", "store"),
        ("doctor", "--brokers", "127.0.0.1:1", "--start-timeout-ms", "100")]  # fmt: skip


@pytest.mark.parametrize("arguments", READ, ids=lambda arguments: arguments[0])
def test_file_that_is_no_store_is_told_and_stays_as_it_is(run: Run, path: Path, arguments: tuple[str, ...]) -> None:
    path.touch()
    ran = run(*arguments)
    assert ran.status == 1
    assert f"voicelog-sink init --only store --store sqlite:///{path}\n" in ran.out + ran.err
    assert (path.read_bytes(), os.listdir(path.parent)) == (b"", [path.name])
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE a(b)")
    before = path.read_bytes()
    ran = run(*arguments)
    assert ran.status == 1
    assert f"sqlite file '{path}' is no voicelog store (it has tables a): is the path right?\n" in ran.out + ran.err
    assert (path.read_bytes(), os.listdir(path.parent)) == (before, [path.name])


@pytest.mark.parametrize("arguments", READ[:-1], ids=lambda arguments: arguments[0])
def test_store_that_is_not_there_is_told_and_not_made(run: Run, path: Path, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"voicelog-sink: no calls are stored yet: the file {path} does not exist; it is made by")
    assert not path.exists()
