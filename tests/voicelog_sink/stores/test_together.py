"""Which partitions one request asks for, and whose of them each row is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from voicelog_sink.stores.query import AT_LEAST, EQUAL, HAS, Plan, plan
from voicelog_sink.stores.together import MOST, together


def days(*places: tuple[str, int], **asked: Any) -> list[Plan]:
    return [plan("sessions_by_day", {"day": day, "shard": shard}, **asked) for day, shard in places]


def divided(plans: list[Plan], **given: Any) -> list[int]:
    return [len(each.plans) for each in together(plans, **given)]


SHARDS = [("2026-11-25", shard) for shard in range(16)]


def test_first_rows_of_a_days_shards_are_one_request() -> None:
    plans = days(*SHARDS, limit=32, since_ms=1)
    (asked,) = together(plans)
    assert asked.plans == plans
    assert asked.column == "shard"
    assert asked.values == ["2026-11-25", list(range(16)), 1]
    assert asked.is_whole


def test_other_day_is_another_request() -> None:
    assert divided(days(*SHARDS, *(("2026-11-24", shard) for shard in range(16)), limit=2)) == [16, 16]


def test_partitions_that_may_be_large_go_one_by_one() -> None:
    assert divided(days(*SHARDS)) == [1] * 16
    assert divided(days(*SHARDS, limit=1_000)) == [1] * 16
    for where in (("models", HAS, "m"), ("errors", AT_LEAST, 1)):
        assert divided(days(*SHARDS, limit=32, where=[where])) == [1] * 16


def test_partitions_that_are_said_to_be_small_go_together() -> None:
    plans = [plan("voice_interactions", {"session_id": f"s-{n}"}, names=("text",)) for n in range(3)]
    assert divided(plans) == [1, 1, 1]
    (asked,) = together(plans, small=True)
    assert asked.plans == plans
    assert not asked.is_whole


def test_rows_that_an_index_finds_go_alone() -> None:
    plans = [plan("session_summaries", {"user_id": f"u-{n}"}) for n in range(3)]
    assert divided(plans) == [1, 1, 1]
    where = [("user_id", EQUAL, "u")]
    assert divided([plan("session_summaries", {"session_id": f"s-{n}"}, where=where) for n in range(3)]) == [1, 1, 1]


def test_empty_key_goes_alone() -> None:
    assert divided([plan("session_summaries", {"session_id": name}) for name in ("a", "b", "", "c", "d")]) == [2, 1, 2]


def test_other_limit_is_another_request() -> None:
    assert divided([*days(*SHARDS[:2], limit=2), *days(*SHARDS[2:4], limit=3)]) == [2, 2]


def test_has_is_no_value_of_the_request_and_the_place_is_still_right() -> None:
    plans = [plan("session_summaries", {"session_id": name}, where=[("models", HAS, "m")]) for name in "ab"]
    (asked,) = together(plans)
    assert asked.values == [["a", "b"]]
    assert [(each.values, list(rows)) for each, rows in asked.told_apart(iter([("[m]", "b")]))] == [
        (("a", "m"), []), (("b", "m"), [("[m]",)]),
    ]  # fmt: skip


keys = st.tuples(st.sampled_from("ab"), st.integers(0, 3))


@given(st.lists(keys, max_size=60), st.randoms())
def test_each_plan_gets_its_own_rows_in_order_however_the_answers_are_mixed(places: list[Any], random: Any) -> None:
    plans = days(*places, limit=9)
    held = {(day, shard): [(day, shard, n) for n in range(shard)] for day, shard in places}
    found = []
    for asked in together(plans):
        assert len(asked.plans) <= MOST
        wanted = {each.values[:2] for each in asked.plans}
        rows = [row for key in wanted for row in held[key]]
        if asked.place is not None:
            random.shuffle(rows)
            rows.sort(key=lambda row: row[2])  # partitions mixed, each in its order
            rows = [(*row, row[asked.place]) for row in rows]
        found += [(each, list(mine)) for each, mine in asked.told_apart(iter(rows))]
    assert [each for each, _ in found] == plans
    assert [mine for _, mine in found] == [held[place] for place in places]
