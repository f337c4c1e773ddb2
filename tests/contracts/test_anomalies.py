"""What departs and how it moves over weeks, on every store: a group that departs, and one that does not."""

from __future__ import annotations

from random import Random

from tests.contracts.store_kit import NOW_MS, unique
from tests.history import HOUR_MS, MINUTE_MS, WHO, day_rows, hour_rows, latencies, minute_rows, rollup, write

from voicelog_sink.anomalies import anomalies
from voicelog_sink.parts import METRIC
from voicelog_sink.rollup import Rollup
from voicelog_sink.stores.base import Store
from voicelog_sink.trends import trends

HOUR = NOW_MS // HOUR_MS
STEADY = ("front-desk", "groq", "llama", "")


def test_group_that_departs_is_found_with_its_beginning_and_a_steady_one_is_not(store: Store) -> None:
    random, name = Random(8), f"own-{unique()}"
    began = (HOUR - 2) * 60 + 20

    def made(start: int, number: int, ill: bool) -> Rollup:
        return rollup(latencies(random, number, 1200 if ill and start >= began else 400))

    for who in (WHO, STEADY):
        days = range(HOUR - 24 * 15, HOUR + 2)
        write(
            store,
            hour_rows(days, lambda hour, who=who: made(hour * 60 + 59, 50, who == WHO), name, METRIC, who),
            minute_rows(
                range((HOUR - 3) * 60, HOUR * 60), lambda m, who=who: made(m, 3, who == WHO), name, METRIC, who
            ),
        )
    found = anomalies(store, (HOUR - 5) * HOUR_MS, NOW_MS, only=(name,))
    assert {(one.measure, one.group["provider"], one.until_ms) for one in found.anomalies} == {
        ("p50", "openai", None), ("p95", "openai", None),
    }  # fmt: skip
    (p50,) = (one for one in found.anomalies if one.measure == "p50")
    assert abs(p50.since_ms - began * MINUTE_MS) <= 4 * MINUTE_MS
    assert (found.judged, found.no_baseline, found.too_few) == (6, 0, 0)


def test_weeks_are_added_up_from_days(store: Store) -> None:
    random, name = Random(9), f"own-{unique()}"
    today = HOUR // 24
    days = range(today - 56, today)
    write(
        store,
        day_rows(days, lambda day: rollup(latencies(random, 99, 100 * 1.1 ** ((day - today) // 7))), name, METRIC),
    )
    found = {one.measure: one for one in trends(store, NOW_MS, only=(name,))}
    assert (found["p50"].verdict, found["count"].verdict) == ("rising", "unclear")
    assert [week.count for week in found["p50"].weeks] == [7 * 99] * 8
