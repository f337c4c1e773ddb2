"""`anomalies` as a person and a program call it, against a real SQLite file."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import attrs
import pytest
from tests.builders import sqlite_store
from tests.history import HOUR_MS, day_rows, hour_rows, latencies, minute_rows, rollup, write
from tests.voicelog_sink.ran import Ran, Run

from voicelog_sink.anomalies import Anomaly
from voicelog_sink.cli import main
from voicelog_sink.trends import Trend

HOUR = int(time.time() * 1000) // HOUR_MS
EVER = range(HOUR - 24 * 21, HOUR + 2)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    path = tmp_path / "calls.db"
    sqlite_store(path, lambda: int(time.time() * 1000)).close()
    return path


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        status = main(["anomalies", *arguments, "--store", f"sqlite:///{path}"])
        return Ran(status, *capsys.readouterr())

    return run


def fill(path: Path, factor: float) -> None:
    """Write hours of which those since the last whole one are slower by `factor`."""
    random = Random(6)
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    write(
        store,
        hour_rows(EVER, lambda hour: rollup(latencies(random, 60, 400 * (factor if hour >= HOUR - 1 else 1.0)))),
        minute_rows(range((HOUR - 2) * 60, (HOUR - 1) * 60), lambda _: rollup(latencies(random, 3))),
        minute_rows(range((HOUR - 1) * 60, HOUR * 60), lambda _: rollup(latencies(random, 3, 400 * factor))),
    )
    store.close()


def test_slow_model_is_a_line_with_its_beginning(run: Run, path: Path) -> None:
    fill(path, 3.0)
    ran = run()
    heading, first, *_ = (line.split() for line in ran.out.splitlines())
    assert " ".join(heading) == "name provider model figure measure what value usual spread z count since (UTC) for"
    assert first[:6] == ["llm", "openai", "gpt-4o", "duration_ms", "p50", "slower"]
    assert "judged: 4 measures of stages" in ran.out
    assert (ran.status, ran.err, "\x1b" in ran.out) == (0, "", False)


def test_as_json_it_is_one_object_with_every_field(run: Run, path: Path) -> None:
    fill(path, 3.0)
    (found,) = run("--json").objects
    assert list(found) == ["at", "since", "judged", "no_baseline", "too_few", "anomalies"]
    (p50,) = (one for one in found["anomalies"] if one["measure"] == "p50")
    fields = [field.name for field in attrs.fields(Anomaly) if field.name not in ("since_ms", "until_ms")]
    assert list(p50) == [*fields, "since", "until"]
    assert p50["since"].endswith("Z")
    assert (p50["group"], p50["until"]) == ({"provider": "openai", "model": "gpt-4o"}, None)


def test_fail_is_status_1_only_where_something_is_worse(run: Run, path: Path) -> None:
    fill(path, 3.0)
    assert run("--fail", "--since", "2h").status == 1
    assert run("--fail", "--since", "2h", "--threshold", "900").status == 0


def test_faster_is_told_and_no_failure(run: Run, path: Path) -> None:
    fill(path, 0.3)
    ran = run("--fail", "--since", "2h")
    assert ran.status == 0
    assert "faster" in ran.out


def test_healthy_traffic_is_one_green_sentence(run: Run, path: Path) -> None:
    fill(path, 1.0)
    ran = run("--fail", "--since", "2h", "--names", "llm")
    assert ran.out.splitlines() == [
        "nothing departs from earlier days since 2h",
        "judged: 4 measures of stages, figures and metrics by group; the last minute's events may not be in yet",
    ]
    assert ran.status == 0


def test_without_anything_measured_it_says_so(run: Run) -> None:
    assert run().out.startswith("nothing was measured since 24h: look elsewhere with --since")
    assert run("--trend").err.startswith("nothing was measured in these weeks")
    assert run("--json").objects[0]["anomalies"] == []


def test_what_can_t_be_judged_is_told(run: Run, path: Path) -> None:
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    write(
        store,
        hour_rows([HOUR, HOUR - 1], lambda _: rollup([1.0] * 60)),
        hour_rows([HOUR], lambda _: rollup([1.0]), "stt"),
    )
    store.close()
    ran = run("--days", "20")
    assert ran.status == 0
    assert ran.out.splitlines()[1:] == [
        "not judged: 3 without a baseline: of the 20 days before, 7 or more must have 30 values or more in the same "
        "hour (from rollups by hour)",
        "not judged: 3 with fewer than 30 values in every hour",
    ]


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_check_that_can_judge_nothing_fails_and_says_why(run: Run, path: Path, how: tuple[str, ...]) -> None:
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    write(store, hour_rows([HOUR, HOUR - 1], lambda _: rollup([1.0] * 60)))
    store.close()
    ran = run("--fail", "--since", "2h", *how)
    assert ran.status == 1
    assert ran.err.startswith(
        "voicelog-sink: nothing could be judged: 3 without a baseline: of the 14 days before, 7 or"
    )
    assert ran.err.endswith("; wait for as many days, or take fewer dimensions with --by\n")
    assert ran.out.startswith("{" if how else "judged: 0 measures")


def test_check_of_hours_with_too_few_values_fails_and_one_without_any_does_not(run: Run, path: Path) -> None:
    fill(path, 1.0)
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    write(store, hour_rows([HOUR, HOUR - 1], lambda _: rollup([1.0]), "stt"))
    write(store, hour_rows([HOUR - 24 * 3], lambda _: rollup([1.0]), "tts"))
    store.close()
    few = run("--fail", "--since", "2h", "--names", "stt")
    assert few.status == 1
    assert few.err.startswith("voicelog-sink: nothing could be judged: 3 with fewer than 30 values in every hour; take")
    assert run("--fail", "--since", "2h", "--names", "tts").status == 0
    assert run("--fail", "--since", "2h").status == 0


def test_name_that_was_never_measured_is_told_with_those_that_were(run: Run, path: Path) -> None:
    fill(path, 1.0)
    for how, period in (((), "since 24h, nor on the 14 days before"), (("--trend",), "in these weeks")):
        ran = run("--names", "llm,nope", *how)
        assert (ran.status, ran.out) == (2, "")
        assert f"no figure 'nope' was measured {period}; there are: llm" in ran.err


def test_turn_s_figure_is_named_as_stats_has_it(run: Run, path: Path) -> None:
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    rows = hour_rows(EVER, lambda hour: rollup([9.0 if hour >= HOUR - 1 else 1.0] * 60), "turn.llm_ttft_ms", "turn")
    write(store, rows)
    store.close()
    ran = run("--names", "llm_ttft", "--since", "2h")
    assert ran.out.splitlines()[1].split()[:3] == ["llm_ttft", "openai", "gpt-4o"]
    assert run("--names", "llm_ttft", "--json").objects[0]["anomalies"][0]["name"] == "turn.llm_ttft_ms"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--trend", "--fail"), "--fail is for what is worse now, and --trend shows weeks"),
        (("--weeks", "3"), "--weeks 3 is for --trend: add it, or say --since 3w"),
        (("--days", "3"), "3 is not in the range 7<=x<=60"),
        (("--by", "weather"), "'weather' is no group"),
    ],
)
def test_wrong_use_is_told_with_status_2(run: Run, arguments: tuple[str, ...], told: str) -> None:
    ran = run(*arguments)
    assert ran.status == 2
    assert told in ran.err


def test_trend_is_drawn_and_as_json_has_its_weeks(run: Run, path: Path) -> None:
    random = Random(7)
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    today = HOUR // 24
    write(
        store,
        day_rows(
            range(today - 56, today), lambda day: rollup(latencies(random, 200, 100 * 1.1 ** ((day - today) // 7)))
        ),
    )
    store.close()
    rows = [line.split() for line in run("--trend").out.splitlines()]
    assert rows[1][:5] == ["llm", "openai", "gpt-4o", "duration_ms", "p50"]
    assert rows[1][-1] == "rising"
    p50 = next(one for one in run("--trend", "--weeks", "6", "--json").objects if one["measure"] == "p50")
    assert list(p50) == [field.name for field in attrs.fields(Trend)]
    assert [list(week) for week in p50["weeks"]] == [["since", "value", "count"]] * 6
    assert p50["percent"] == pytest.approx(10, rel=0.3)
