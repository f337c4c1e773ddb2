"""What departs and since when, read from rollups in a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.builders import sqlite_store
from tests.history import HOUR_MS, MINUTE_MS, MONDAY, WHO, hour_rows, latencies, minute_rows, rollup, write

from voicelog_sink.anomalies import Anomaly, Found, anomalies
from voicelog_sink.departure import Rules
from voicelog_sink.parts import METRIC, TURN
from voicelog_sink.rollup import Rollup
from voicelog_sink.stores.sqlite import SqliteStore

HOUR = MONDAY + 15 * 24 + 14
"""The running hour: a Tuesday's."""
NOW_MS = HOUR * HOUR_MS + 50 * MINUTE_MS
DAY = range(HOUR - 15 * 24, HOUR + 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db", lambda: NOW_MS)
    yield store
    store.close()


@pytest.fixture
def random() -> Random:
    return Random(4)


def look(store: SqliteStore, hours: int = 24, **given: object) -> Found:
    return anomalies(store, (HOUR + 1 - hours) * HOUR_MS, NOW_MS, **given)  # type: ignore[arg-type]


def told(found: Found) -> list[tuple[str, str, float, float | None]]:
    """Return each anomaly's measure and direction, and from when to when it was, in hours from the running one on."""
    return [
        (one.measure, one.direction, one.since_ms / HOUR_MS - HOUR, one.until_ms and one.until_ms / HOUR_MS - HOUR)
        for one in found.anomalies
    ]


def usual(random: Random) -> Rollup:
    return rollup(latencies(random, 60))


def slow(random: Random, factor: float = 2.0, number: int = 60) -> Rollup:
    return rollup(latencies(random, number, 400 * factor))


def test_nothing_stored_departs_from_nothing(store: SqliteStore) -> None:
    assert look(store) == Found(NOW_MS, (HOUR - 23) * HOUR_MS)
    assert anomalies(store, NOW_MS, NOW_MS) == Found(NOW_MS, NOW_MS)


def test_steady_traffic_is_judged_and_usual(store: SqliteStore, random: Random) -> None:
    write(store, hour_rows(DAY, lambda _: usual(random)))
    found = look(store)
    assert (found.anomalies, found.judged, found.no_baseline, found.too_few) == ([], 4, 0, 0)


def test_first_days_have_no_baseline_which_is_counted(store: SqliteStore, random: Random) -> None:
    write(store, hour_rows(range(HOUR - 24, HOUR + 1), lambda _: usual(random)))
    found = look(store)
    assert (found.anomalies, found.judged, found.no_baseline, found.too_few) == ([], 0, 3, 0)


def test_hours_with_too_few_values_are_counted(store: SqliteStore, random: Random) -> None:
    write(store, hour_rows(DAY, lambda _: slow(random, number=29)))
    found = look(store)
    assert (found.anomalies, found.judged, found.no_baseline, found.too_few) == ([], 0, 0, 3)


def test_departure_that_lasts_is_found_with_the_minute_of_its_beginning(store: SqliteStore, random: Random) -> None:
    other = ("front-desk", "groq", "llama", "")
    first = (HOUR - 3) * 60 + 25
    write(
        store,
        hour_rows(DAY, lambda hour: slow(random) if hour > HOUR - 3 else usual(random)),
        hour_rows(DAY, lambda _: usual(random), who=other),
        minute_rows(
            range((HOUR - 4) * 60, HOUR * 60), lambda minute: slow(random, 2.0 if minute >= first else 1.0, number=5)
        ),
    )
    found = look(store, only=("llm",))
    (p50,) = (one for one in found.anomalies if one.measure == "p50")
    assert p50 == Anomaly(
        name="llm", kind="stage", figure="duration_ms", measure="p50", unit="ms",
        group={"provider": "openai", "model": "gpt-4o"}, direction="slower", worse=True,
        value=pytest.approx(800, rel=0.15), median=pytest.approx(400, rel=0.1), spread=pytest.approx(30, rel=0.7),
        z=pytest.approx((p50.value - p50.median) / p50.spread), count=60, days=10,
        since_ms=pytest.approx(first * MINUTE_MS, abs=5 * MINUTE_MS), is_older=False, until_ms=None,
    )  # fmt: skip
    assert {one.group["provider"] for one in found.anomalies} == {"openai"}


def test_departure_that_is_over_has_its_end_and_its_worst_hour(store: SqliteStore, random: Random) -> None:
    factors = {HOUR - 9: 2.0, HOUR - 8: 4.0, HOUR - 7: 2.0}
    write(store, hour_rows(DAY, lambda hour: slow(random, factors.get(hour, 1.0))))
    found = look(store)
    assert [one for one in told(found) if one[0] == "p50"] == [("p50", "slower", -9, -6)]
    (p50,) = (one for one in found.anomalies if one.measure == "p50")
    assert p50.value == pytest.approx(1600, rel=0.15)


def test_what_lasts_comes_before_what_is_over_and_then_the_strongest(store: SqliteStore, random: Random) -> None:
    write(
        store,
        hour_rows(DAY, lambda hour: slow(random, 9.0 if hour == HOUR - 9 else 1.0), who=WHO),
        hour_rows(DAY, lambda hour: slow(random, 2.0 if hour > HOUR - 2 else 1.0), who=("", "a", "", "")),
        hour_rows(DAY, lambda hour: slow(random, 3.0 if hour > HOUR - 2 else 1.0), who=("", "b", "", "")),
    )
    p50 = [one.group["provider"] for one in look(store).anomalies if one.measure == "p50"]
    assert p50 == ["b", "a", "openai"]


def test_beginning_before_the_period_is_looked_for_and_after_a_week_given_up(
    store: SqliteStore, random: Random
) -> None:
    long = range(HOUR - 30 * 24, HOUR + 1)
    write(
        store,
        hour_rows(long, lambda hour: slow(random, 3.0 if hour >= HOUR - 50 else 1.0), source="stt"),
        hour_rows(long, lambda hour: slow(random, 3.0 if hour >= HOUR - 200 else 1.0), source="tts"),
    )
    found = look(store, hours=2, rules=Rules(days=21))
    since = {
        one.name: (one.since_ms // HOUR_MS - HOUR, one.is_older) for one in found.anomalies if one.measure == "p50"
    }
    assert since == {"stt": (-50, False), "tts": (-1 - 7 * 24, True)}


def test_night_without_calls_does_not_end_a_departure(store: SqliteStore, random: Random) -> None:
    day = [hour for hour in DAY if 7 <= hour % 24 < 20]
    write(store, hour_rows(day, lambda hour: slow(random, 3.0 if hour >= HOUR - 24 else 1.0)))
    assert [one for one in told(look(store, hours=30)) if one[0] == "p50"] == [("p50", "slower", -24, None)]


def test_calls_that_stop_are_missing_since_the_last_one(store: SqliteStore, random: Random) -> None:
    last = (HOUR - 1) * 60 + 5
    write(
        store,
        hour_rows(range(DAY[0], HOUR - 1), lambda _: usual(random)),
        hour_rows([HOUR - 1], lambda _: slow(random, 1.0, number=5)),
        minute_rows(range((HOUR - 2) * 60, last), lambda _: slow(random, 1.0, number=1)),
    )
    assert told(look(store)) == [("count", "missing", pytest.approx(-1 + 5 / 60), None)]


@pytest.mark.parametrize(("minutes", "missing"), [(16, []), (17, [("count", "missing", 0, None)])])
def test_running_hour_is_looked_at_for_missing_calls_after_a_quarter_of_it_and_what_may_be_late(
    store: SqliteStore, minutes: int, missing: list[tuple[str, str, float, float | None]]
) -> None:
    write(store, hour_rows([HOUR - 24 * day for day in range(1, 15)], lambda _: rollup([400.0] * 200)))
    found = anomalies(store, HOUR * HOUR_MS, HOUR * HOUR_MS + minutes * MINUTE_MS)
    assert told(found) == missing


def test_failures_and_costs_depart_too(store: SqliteStore, random: Random) -> None:
    def made(hour: int) -> Rollup:
        ill = hour >= HOUR - 1
        return rollup(latencies(random, 60), errors=20 if ill else 1, cost_usd=0.003 if ill else 0.001)

    write(store, hour_rows(DAY, made))
    found = sorted(look(store).anomalies, key=lambda one: one.measure)
    assert [(one.measure, one.unit, one.direction, one.worse, one.value) for one in found] == [
        ("cost_usd", "USD", "dearer", True, pytest.approx(0.003)),
        ("error_rate", "1", "more errors", True, pytest.approx(0.25)),
    ]


def test_metrics_are_higher_or_lower_and_neither_good_nor_bad(store: SqliteStore, random: Random) -> None:
    write(
        store,
        hour_rows(DAY, lambda hour: slow(random, 3.0 if hour == HOUR else 1.0), "queue_depth", METRIC),
        hour_rows(DAY, lambda hour: slow(random, 0.3 if hour == HOUR else 1.0), "turn.llm_ttft_ms", TURN),
    )
    found = {(one.name, one.direction, one.worse, one.figure) for one in look(store).anomalies}
    assert found == {
        ("queue_depth", "higher", None, "value"),
        ("turn.llm_ttft_ms", "faster", False, "value"),
    }


def test_groups_are_told_apart_by_what_is_asked_for(store: SqliteStore, random: Random) -> None:
    for variant in ("a", "b"):
        ill = 3.0 if variant == "b" else 1.0
        made = [slow(random, ill if hour == HOUR else 1.0) for hour in DAY]
        write(store, hour_rows(DAY, lambda hour, made=made: made[hour - DAY[0]], who=(*WHO[:3], variant)))
    assert {one.group["variant"] for one in look(store, by=("stage", "variant")).anomalies} == {"b"}
    assert {tuple(one.group) for one in look(store, by=("stage",)).anomalies} <= {()}


def test_it_ends_early_where_it_is_told_to(store: SqliteStore, random: Random) -> None:
    write(store, *(hour_rows(DAY, lambda _: usual(random), source) for source in ("stt", "llm")))
    answers = iter([True, False])
    assert look(store, going_on=lambda: next(answers)).judged == 4
