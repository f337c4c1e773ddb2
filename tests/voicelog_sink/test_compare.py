"""Two variants, models or periods compared; against a real SQLite file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from tests.builders import START_US, CallBuilder, roll_up, sqlite_store

from voicelog.events import Event, Figure, Metric, Turn
from voicelog_sink.cli import main
from voicelog_sink.commands.compare import show
from voicelog_sink.compare import CompareRow, Pair, Side, compared, judged, pairs
from voicelog_sink.parts import EXCLUDED, FAILED
from voicelog_sink.rolled import Source
from voicelog_sink.rollup import Rollup
from voicelog_sink.stores.sqlite import SqliteStore

NOW = START_US // 1000
DAY_MS = 24 * 3_600_000


def stages(
    name: str, count: int, *, at_ms: int = 0, median_ms: float = 400.0, failed: int = 0, **who: Any
) -> list[Event]:
    """Return stages of log-normal lengths, of which the first few failed."""
    random, call = Random(f"{name} {at_ms} {who}"), CallBuilder(session_id=f"{name}-{at_ms}-{who}")
    for number in range(count):
        took_ms = median_ms * random.lognormvariate(0, 0.3)
        status = "error" if number < failed else "ok"
        call.stage(name, at_ms + number * 100, took_ms, first_item_ms=took_ms / 4, status=status, **who)
    return call.events


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


def of(variant: str, **more: str) -> Side:
    return Side(NOW, NOW + DAY_MS, {"variant": variant, **more})


def by_measure(rows: list[CompareRow]) -> dict[tuple[str, str, str], CompareRow]:
    return {(row.name, row.figure, row.measure): row for row in rows}


def test_each_figure_of_both_sides_has_its_measures_and_sample_sizes(store: SqliteStore) -> None:
    roll_up(store, stages("llm", 500, variant="a") + stages("llm", 400, variant="b", median_ms=800, failed=40)
            + stages("stt", 9, variant="a"))  # fmt: skip
    rows = by_measure(compared(pairs(store, of("a"), of("b"), now_ms=NOW)))
    assert list(rows) == [
        ("llm", "duration_ms", "p50"), ("llm", "duration_ms", "p95"), ("llm", "duration_ms", "error_rate"),
        ("llm", "first_item_ms", "p50"), ("llm", "first_item_ms", "p95"),
    ]  # fmt: skip
    p50, failed = rows["llm", "duration_ms", "p50"], rows["llm", "duration_ms", "error_rate"]
    assert p50 == CompareRow(
        name="llm", kind="stage", figure="duration_ms", measure="p50", unit="ms", a_count=500, b_count=360,
        a=pytest.approx(400, rel=0.05), b=pytest.approx(800, rel=0.05),
        difference=pytest.approx(400, rel=0.15), low=pytest.approx(350, rel=0.15), high=pytest.approx(450, rel=0.15),
        percent=pytest.approx(100, rel=0.15), needed=6, verdict="higher",
    )  # fmt: skip
    assert (failed.a, failed.b, failed.a_count, failed.b_count, failed.unit, failed.percent, failed.verdict) == (
        0.0, 0.1, 500, 400, "1", None, "higher",
    )  # fmt: skip


def test_the_other_way_round_is_the_same_with_the_other_sign(store: SqliteStore) -> None:
    roll_up(store, stages("llm", 200, variant="a", failed=9) + stages("llm", 300, variant="b", median_ms=600))
    there = compared(pairs(store, of("a"), of("b"), now_ms=NOW))
    back = compared(pairs(store, of("b"), of("a"), now_ms=NOW))
    assert [(row.low, row.high, row.b_count) for row in there] == [
        (pytest.approx(-row.high), pytest.approx(-row.low), row.a_count) for row in back
    ]
    assert {row.verdict for row in there} == {"higher", "lower"}


def test_too_few_values_have_no_difference_and_say_how_many_are_needed(store: SqliteStore) -> None:
    roll_up(store, stages("llm", 71, variant="a") + stages("llm", 500, variant="b"))
    p95 = by_measure(compared(pairs(store, of("a"), of("b"), now_ms=NOW)))["llm", "duration_ms", "p95"]
    assert (p95.verdict, p95.needed, p95.a_count, p95.difference, p95.low, p95.high, p95.percent) == (
        "too_few", 72, 71, None, None, None, None,
    )  # fmt: skip
    assert p95.a is not None
    assert p95.b is not None


def test_groups_are_as_narrow_as_asked_for_and_absent_is_a_group(store: SqliteStore) -> None:
    roll_up(store, stages("llm", 20, variant="a", model="m1") + stages("llm", 30, variant="a", model="m2")
            + stages("llm", 40, model="m1") + stages("llm", 50, variant="b", model="m1"))  # fmt: skip

    def counts(a: Side, b: Side) -> list[tuple[int, int]]:
        return [(pair.a.count, pair.b.count) for pair in pairs(store, a, b, now_ms=NOW) if pair.figure == "duration_ms"]

    assert counts(of("a"), of("b")) == [(50, 50)]
    assert counts(of("a", model="m1"), of("b", model="m1")) == [(20, 50)]
    assert counts(of(""), of("a")) == [(40, 50)]
    assert counts(of("a"), of("c")) == []
    assert counts(of("a", model="m2"), of("b", model="m2")) == []


def test_periods_are_compared_over_all_dimensions(store: SqliteStore) -> None:
    roll_up(store, stages("llm", 20, variant="a") + stages("llm", 30, variant="b")
            + stages("llm", 70, at_ms=DAY_MS, variant="a"))  # fmt: skip
    first, second = Side(NOW, NOW + DAY_MS, {}), Side(NOW + DAY_MS, NOW + 2 * DAY_MS, {})
    (duration, _) = pairs(store, first, second, now_ms=NOW + 2 * DAY_MS)
    assert (duration.a.count, duration.b.count) == (50, 70)


def test_regression_is_worse_than_allowed_and_not_by_chance(store: SqliteStore) -> None:
    roll_up(store, stages("llm", 500, variant="a", failed=5) + stages("llm", 500, variant="b", median_ms=480, failed=6)
            + stages("stt", 10, variant="a") + stages("stt", 10, variant="b", median_ms=440))  # fmt: skip
    found = pairs(store, of("a"), of("b"), now_ms=NOW)

    def worse(allowed_percent: float) -> set[tuple[str, str, bool | None]]:
        return {(row.name, row.measure, row.regression) for row in judged(found, allowed_percent)}

    assert worse(5) == {
        ("llm", "p50", True), ("llm", "p95", True), ("llm", "error_rate", False), ("stt", "p50", False),
        ("stt", "p95", None), ("stt", "error_rate", False),
    }  # fmt: skip
    assert not any(regression for _, _, regression in worse(40))
    needed = {row.measure: row.needed for row in judged(found, 5)}
    assert needed == {"p50": 9, "p95": 113, "error_rate": 1}
    better = judged(pairs(store, of("b"), of("a"), now_ms=NOW), 0)
    assert not any(row.regression for row in better)


def test_failures_where_there_were_none_are_a_regression_of_any_percent(store: SqliteStore) -> None:
    roll_up(store, stages("llm", 500, variant="a") + stages("llm", 500, variant="b", failed=60))
    rows = by_measure(judged(pairs(store, of("a"), of("b"), now_ms=NOW), 1000.0))
    assert rows["llm", "duration_ms", "error_rate"].regression is True


def test_of_equal_variants_a_build_seldom_fails_however_many_figures_there_are() -> None:
    """Eight figures with three measures each, 25 times: without the raised confidence about ten of them would fail."""
    random = Random(3)

    def rollup() -> Rollup:
        made = Rollup()
        flags = [EXCLUDED | FAILED if random.random() < 0.2 else 0 for _ in range(100)]
        made.add([random.lognormvariate(6, 2) for _ in flags], flags)
        return made

    failed = 0
    for _ in range(25):
        found = [Pair(Source("stage", f"s{n}", "ms"), "duration_ms", rollup(), rollup()) for n in range(8)]
        failed += any(row.regression for row in judged(found, 0))
    assert failed <= 2


def test_turns_are_judged_and_custom_metrics_are_not(store: SqliteStore) -> None:
    events: list[Event] = []
    for variant, value_ms in (("a", 700.0), ("b", 900.0)):
        call = CallBuilder(session_id=f"call-{variant}", variant=variant)
        for number in range(200):
            call.add(Turn, number, figures={"user_bot_latency_ms": Figure(value_ms=value_ms + number)})
            call.add(Metric, number, name="queue", value=value_ms, unit="1")
        events += call.events
    roll_up(store, events)
    rows = judged(pairs(store, of("a"), of("b"), now_ms=NOW), 5)
    assert [(row.name, row.measure, row.unit, row.verdict, row.regression) for row in rows] == [
        ("turn.user_bot_latency_ms", "p50", "ms", "higher", True),
        ("turn.user_bot_latency_ms", "p95", "ms", "higher", True),
        ("queue", "p50", "1", "higher", None),
        ("queue", "p95", "1", "higher", None),
    ]


# --- the command

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    now_ms = int(time.time() * 1000)
    store = sqlite_store(tmp_path / "calls.db", lambda: now_ms)
    hour_ago = now_ms - NOW - 3_600_000
    roll_up(store, stages("llm", 300, at_ms=hour_ago, variant="calm")
            + stages("llm", 300, at_ms=hour_ago, variant="brisk", median_ms=600, service="desk")
            + stages("llm", 50, at_ms=hour_ago - 3 * DAY_MS, variant="calm")
            + stages("stt", 3, at_ms=hour_ago, variant="calm")
            + stages("stt", 3, at_ms=hour_ago, variant="brisk"))  # fmt: skip
    store.close()

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["compare", *arguments, "--store", f"sqlite:///{tmp_path / 'calls.db'}"])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_compare_prints_a_table_with_sample_sizes_and_what_is_clear(run: Run) -> None:
    status, out, err = run("calm", "brisk")
    lines = out.splitlines()
    assert (status, err, lines[0]) == (0, "", "A is calm, B is brisk")
    heading = "name figure measure A count B count A B difference from to change"
    assert " ".join(lines[2].split()) == heading
    assert [line.split()[:5] for line in lines[3:6]] == [
        ["stt", "duration_ms", "p50", "3", "3"], ["stt", "duration_ms", "p95", "3", "3"],
        ["stt", "duration_ms", "error_rate", "3", "3"],
    ]  # fmt: skip
    assert lines[3].endswith("too few: 6 of each are needed")
    assert lines[5].endswith("no clear difference")
    assert lines[8].split()[:5] == ["llm", "duration_ms", "p50", "300", "300"]
    assert lines[8].endswith("B is higher")
    assert "95 % confidence" in lines[-1]


def test_compare_as_json_has_every_field(run: Run) -> None:
    _, out, _ = run("calm", "brisk", "--json", "--names", "llm")
    shapes = [json.loads(line) for line in out.splitlines()]
    assert all(list(shape) == [field.name for field in attrs.fields(CompareRow)] for shape in shapes)
    assert [(shape["name"], shape["figure"], shape["measure"]) for shape in shapes][:3] == [
        ("llm", "duration_ms", "p50"), ("llm", "duration_ms", "p95"), ("llm", "duration_ms", "error_rate"),
    ]  # fmt: skip


def test_regression_fails_a_build_and_says_what_it_is(run: Run) -> None:
    status, out, err = run("calm", "brisk", "--names", "llm", "--fail-on-regression", "10")
    assert status == 1
    assert err.splitlines()[0].startswith("regression: llm duration_ms p50 is worse by ")
    assert err.splitlines()[0].endswith(" %; 10 % is allowed")
    assert out.count("regression") == len(err.splitlines()) == 4
    assert run("calm", "brisk", "--names", "llm", "--fail-on-regression", "200")[::2] == (0, "")
    assert run("brisk", "calm", "--names", "llm", "--fail-on-regression", "0")[::2] == (0, "")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [("stt", "nothing could be judged: each percentile of 'calm' or 'brisk' has too few values, a p95 needs 72")],
)  # fmt: skip
def test_build_that_can_not_be_judged_fails_with_what_it_lacks(run: Run, names: str, sentence: str) -> None:
    status, _, err = run("calm", "brisk", "--names", names, "--fail-on-regression", "5")
    assert status == 1
    assert err.startswith(f"voicelog-sink: {sentence}")


def test_build_is_told_what_had_too_few_values_to_be_judged(run: Run) -> None:
    status, _, err = run("calm", "brisk", "--fail-on-regression", "200")
    assert (status, err) == (0, "not judged for too few values: 4 of 10 measures\n")


def test_periods_are_given_from_and_to(run: Run) -> None:
    status, out, _ = run("4d..2d", "2d..", "--by", "period", "--names", "llm", "--json")
    first = json.loads(out.splitlines()[0])
    assert (status, first["a_count"], first["b_count"]) == (0, 50, 600)
    narrow = run("4d..2d", "2d..", "--by", "period", "--names", "llm", "--json", "--where", "variant=calm")[1]
    assert json.loads(narrow.splitlines()[0])["b_count"] == 300


def test_minute_between_two_periods_is_in_one_of_them(run: Run) -> None:
    cut = datetime.fromtimestamp(time.time() - 3590, UTC).isoformat()
    _, out, _ = run(f"4d..{cut}", f"{cut}..", "--by", "period", "--names", "llm", "--json")
    rate = next(shape for shape in map(json.loads, out.splitlines()) if shape["measure"] == "error_rate")
    assert rate["a_count"] + rate["b_count"] == 650


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("calm",), "Missing argument 'B'"),
     (("a", "b", "--by", "period"), "'a' is no period such as 14d..7d or 7d..: 'a' is no time: expected"),
     (("7d", "7d..", "--by", "period"), "'7d' is no period: expected SINCE..UNTIL"),
     (("7d..14d", "7d..", "--by", "period"), "'7d..14d' is no period: expected SINCE..UNTIL, the first before"),
     (("a", "b", "--since", "1h", "--until", "2h"), "--since 1h is not before --until 2h: expected the earlier"),
     (("a", "b", "--where", "colour=red"), "'colour=red': expected NAME=VALUE, where NAME is one of service, prov"),
     (("a", "b", "--where", "variant=c"), "--where variant=c: A and B are the variants already; leave it out"),
     (("4d..2d", "2d..", "--by", "period", "--since", "1d"), "--since is not for --by period: A and B are the periods"),
     (("4d..2d", "2d..", "--by", "period", "--until", "1h"), "--until is not for --by period: A and B are the periods"),
     (("calm", "brisk", "--names", "llm,nope"), "no figure 'nope' was measured since 24h; there are: stt, llm"),
     (("4d..2d", "2d..", "--by", "period", "--names", "nope"), "no figure 'nope' was measured in 4d..2d or 2d..;"),
     (("a", "b", "--fail-on-regression", "-1"), "-1.0 is not in the range x>=0")],
)  # fmt: skip
def test_wrong_use_says_what_was_expected(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert sentence in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("calm", "nope"), "'nope' has no values since 24h; variants there: brisk, calm; see what there is with "
      "`voicelog-sink stats --by variant --since 24h`"),
     (("x", "y", "--since", "2d"), "neither 'x' nor 'y' has values since 2d; variants there: brisk, calm; see"),
     (("calm", "brisk", "--since", "4d", "--until", "2d"), "'brisk' has no values since 4d until 2d; variants there: "
      "calm; see what there is with `voicelog-sink stats --by variant --since 4d --until 2d`"),
     (("calm", "brisk", "--where", "service=desk"), "'calm' has no values with service=desk since 24h; variants there: "
      "brisk; see what there is with `voicelog-sink stats --by variant,service --since 24h`"),
     (("gpt-9", "", "--by", "model", "--names", "llm"), "'gpt-9' has no values of llm since 24h; models there: '';"),
     (("calm", "brisk", "--where", "service=x"), "neither 'calm' nor 'brisk' has values with service=x since 24h; no "
      "variant has any; see what"),
     (("9d..5d", "2d..", "--by", "period"), "'9d..5d' has no values; see what there is with `voicelog-sink stats`")],
)  # fmt: skip
def test_nothing_in_common_says_which_side_has_nothing_and_what_there_is(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"voicelog-sink: nothing to compare: {sentence}")


def test_figures_that_only_one_side_has_each_are_none_in_common(run: Run, tmp_path: Path) -> None:
    store = sqlite_store(tmp_path / "calls.db", lambda: int(time.time() * 1000))
    roll_up(store, stages("tts", 9, at_ms=int(time.time() * 1000) - NOW - 3_600_000, variant="new"))
    store.close()
    sentence = "nothing to compare: no figure was measured for both 'calm' and 'new' since 24h; variants there: brisk,"
    assert run("calm", "new")[2].startswith(f"voicelog-sink: {sentence}")


def row(**fields: Any) -> CompareRow:
    blank = dict.fromkeys((field.name for field in attrs.fields(CompareRow)), None)
    usual = {"name": "llm", "kind": "stage", "figure": "duration_ms", "measure": "p50", "verdict": "unclear"}
    return CompareRow(**(blank | usual | {"a_count": 100, "b_count": 100, "needed": 6} | fields))


def printed(capsys: pytest.CaptureFixture[str], *rows: CompareRow) -> list[str]:
    show(rows, "a", "b", as_json=False)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[3:-2]]


def test_small_values_keep_their_digits_and_zero_has_no_sign(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"difference": 0.0042, "low": 0.0011, "high": 0.0073, "percent": 10.5, "verdict": "higher"}
    rate = {"measure": "error_rate", "difference": -0.0028, "low": -0.0057, "high": -0.00001, "percent": -0.01}
    assert printed(
        capsys,
        row(name="turn.playback_latency_ms", kind="turn", figure="value", a=0.0402, b=0.0444, **small),
        row(a=0.0095, b=0.0067, **rate),
        row(a=412.4, b=1130.2, difference=717.8, low=-0.2, high=1400.0, percent=174.1),
        row(a=0.0, b=0.0, difference=0.0, low=0.0, high=0.0),
        row(a=4.125, b=None, verdict="too_few"),
    ) == [
        "playback_latency value p50 100 100 0.0402 0.0444 +0.0042 +0.0011 +0.0073 +10.5 % B is higher",
        "llm duration_ms error_rate 100 100 0.95 % 0.67 % -0.28 % -0.57 % 0.00 % 0.0 % no clear difference",
        "llm duration_ms p50 100 100 412 1130 +718 0 +1400 +174.1 % no clear difference",
        "llm duration_ms p50 100 100 0 0 0 0 0 - no clear difference",
        "llm duration_ms p50 100 100 4.12 - - - - - too few: 6 of each are needed",
    ]
