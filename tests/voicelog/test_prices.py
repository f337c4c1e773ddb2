"""The price table: what it takes, and that a cost is exact, or absent, and never a part."""

from __future__ import annotations

import decimal
import json
import logging
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import voicelog
from voicelog.client import state
from voicelog.counters import Counters
from voicelog.errors import ConfigError
from voicelog.prices import Prices
from voicelog.testing import capture
from voicelog.usage import USAGE

NOBODY = "127.0.0.1:9"

LLM: dict[str, Any] = {
    "provider": "openai", "model": "gpt-4o-mini",
    "usd_per_million": {"input_tokens": 0.15, "cache_read_input_tokens": 0.075, "output_tokens": 0.60},
}  # fmt: skip
STT = {"provider": "deepgram", "model": "nova-3", "usd_per_audio_minute": 0.0043}
TTS = {"provider": "elevenlabs", "usd_per_million": {"characters_count": 30}}
TOOL = {"provider": "search", "usd_per_request": 0.005}
TABLE = {"version": "v1", "prices": [LLM, STT, TTS, TOOL]}

TOML = """
version = "v1"

[[prices]]
provider = "openai"
model = "gpt-4o-mini"
usd_per_million = { input_tokens = 0.15, cache_read_input_tokens = 0.075, output_tokens = 0.60 }

[[prices]]
provider = "deepgram"
model = "nova-3"
usd_per_audio_minute = 0.0043

[[prices]]
provider = "elevenlabs"
usd_per_million = { characters_count = 30 }

[[prices]]
provider = "search"
usd_per_request = 0.005
"""


def table(*entries: dict[str, Any], counters: Counters | None = None) -> Prices:
    found = Prices.load({"version": "v1", "prices": list(entries)}, counters)
    assert found is not None
    return found


def priced(prices: Prices, **fields: Any) -> tuple[float | None, str | None]:
    """Return cost and version that a finished stage gets."""
    given_fields = {"status": "ok", **fields}
    prices.apply(given_fields)
    assert {name: given_fields[name] for name in fields} == fields
    return given_fields.get("cost_usd"), given_fields.get("price_version")


def openai(**usage: Any) -> dict[str, Any]:
    return {"provider": "openai", "model": "gpt-4o-mini", "usage": usage}


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        (openai(input_tokens=1_000_000), 0.15),
        (openai(input_tokens=1_000_000, cache_read_input_tokens=1_000_000), 0.075),
        (openai(input_tokens=2000, cache_read_input_tokens=1500, output_tokens=300), 0.0003675),
        (openai(input_tokens=1000, output_tokens=500, reasoning_tokens=400), 0.00045),
        (openai(input_tokens=1000, audio_seconds=9, images=3), 0.00015),
        (openai(input_tokens=0, output_tokens=0), 0.0),
        ({"provider": "deepgram", "model": "nova-3", "usage": {"audio_seconds": 90}}, 0.00645),
        ({"provider": "deepgram", "model": "nova-3", "audio_ms": 90_000.0}, 0.00645),
        ({"provider": "deepgram", "model": "nova-3", "audio_ms": 1.0, "usage": {"audio_seconds": 90}}, 0.00645),
        ({"provider": "elevenlabs", "usage": {"characters_count": 100}, "text": "hi"}, 0.003),
        ({"provider": "elevenlabs", "model": "flash", "characters": 100, "text": "hi"}, 0.003),
        ({"provider": "elevenlabs", "text": "a" * 100}, 0.003),
        ({"provider": "elevenlabs", "text": "a" * 100, "status": "cancelled"}, 0.003),
        ({"provider": "search"}, 0.005),
    ],
)  # fmt: skip
def test_a_stage_costs_what_the_table_says(fields: dict[str, Any], cost: float) -> None:
    counters = Counters()
    assert priced(table(*TABLE["prices"], counters=counters), **fields) == (cost, "v1")
    assert counters.get("unpriced") == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"provider": "openai", "model": "gpt-4o-mini"},
        {"provider": "openai", "model": "gpt-4o-mini", "usage": {}},
        {"stage": "vad"},
        {"provider": "unheard", "model": "of"},
        {"provider": "deepgram", "model": "nova-3", "audio_ms": 90.0, "status": "error"},
        {"provider": "deepgram", "model": "nova-3", "audio_ms": 90.0, "is_final": False},
        {"provider": "deepgram", "model": "nova-3", "audio_ms": -90.0},
        {"provider": "elevenlabs", "text": "hi", "status": "error"},
        {"provider": "search", "status": "error"},
        {"provider": "search", "status": "cancelled"},
    ],
)
def test_without_usage_there_is_no_cost_and_nothing_is_counted(fields: dict[str, Any]) -> None:
    counters = Counters()
    assert priced(table(*TABLE["prices"], counters=counters), **fields) == (None, None)
    assert counters.get("unpriced") == 0


@pytest.mark.parametrize(
    ("fields", "label", "why"),
    [
        (openai(input_tokens=10, input_audio_tokens=5), "openai/gpt-4o-mini", "no price for input_audio_tokens"),
        (openai(input_tokens=10, cache_creation_input_tokens=5), "openai/gpt-4o-mini", "cache_creation_input_tokens"),
        (openai(input_tokens=10, cache_read_input_tokens=500), "openai/gpt-4o-mini", "parts of input_tokens are more"),
        (openai(output_tokens=10, reasoning_tokens=11), "openai/gpt-4o-mini", "parts of output_tokens are more"),
        (openai(audio_seconds=3), "openai/gpt-4o-mini", "none of input_tokens, cache_read_input_tokens, output_tokens"),
        ({"provider": "openai", "model": "gpt-5", "usage": {"input_tokens": 1}}, "openai/gpt-5", "no entry"),
        ({"provider": "piper", "model": "x", "text": "hi"}, "piper/x", "no entry"),
        ({"usage": {"input_tokens": 1}}, "/", "a stage that names no provider"),
    ],
)
def test_a_missing_price_leaves_the_cost_absent_counts_each_and_warns_once(
    fields: dict[str, Any], label: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    prices = table(*TABLE["prices"], counters=counters)
    with caplog.at_level(logging.WARNING, "voicelog"):
        found = [priced(prices, **fields) for _ in range(3)]
    assert found == [(None, None)] * 3
    assert counters.snapshot()["unpriced"] == {label: 3}
    (warning,) = caplog.messages
    assert "no cost_usd for" in warning
    assert why in warning
    assert "price table 'v1'" in warning


def test_a_count_beyond_all_measure_has_no_cost() -> None:
    dear = table({"provider": "p", "usd_per_million": {"input_tokens": 1_000_000}}, counters=Counters())
    assert priced(dear, provider="p", usage={"input_tokens": 1e308}) == (1e308, "v1")
    assert priced(
        table({"provider": "p", "usd_per_audio_minute": 1_000_000}), provider="p", usage={"audio_seconds": 1e308}
    ) == (None, None)


def test_a_cost_that_the_user_gave_stays() -> None:
    assert priced(table(LLM), **openai(input_tokens=10), cost_usd=7.0) == (7.0, None)


def test_the_most_specific_entry_counts() -> None:
    names = ["*", "gpt*", "gpt-4o*", "gpt-4o-mini*", "gpt-4o-mini"]
    entries = [
        {"provider": "p", "model": name, "usd_per_million": {"input_tokens": n}} for n, name in enumerate(names, 1)
    ]
    for order in (entries, entries[::-1]):
        prices = table(*order)
        for model, price in [
            ("o3", 1), (None, 1), ("gpt-5", 2), ("gpt-4o", 3), ("gpt-4o-mini-2024-07-18", 4), ("gpt-4o-mini", 5),
        ]:  # fmt: skip
            assert priced(prices, provider="p", model=model, usage={"input_tokens": 1_000_000}) == (price, "v1")


def test_file_and_dict_give_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(TOML, encoding="utf-8")
    (tmp_path / "p.json").write_text(json.dumps(TABLE), encoding="utf-8")
    assert Prices.load(str(tmp_path / "p.toml")) == Prices.load(str(tmp_path / "p.json")) == Prices.load(TABLE)
    assert repr(Prices.load(TABLE)) == "Prices(version='v1', 4 entries)"
    assert Prices.load("") is None
    assert Prices.load(None) is None


ENTRY = {"provider": "p", "usd_per_request": 1}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, r"prices is \{\}: Object missing required field `version`"),
        ({"version": "", "prices": [ENTRY]}, r"Expected `str` of length >= 1 - at `\$\.version`"),
        ({"version": 1, "prices": [ENTRY]}, r"Expected `str`, got `int` - at `\$\.version`"),
        ({"version": "1", "prices": []}, r"Expected `array` of length >= 1 - at `\$\.prices`"),
        ({"version": "1", "prices": [ENTRY], "vresion": 1}, "unknown field `vresion`"),
        ({"version": "1", "prices": [ENTRY, 5]}, "prices, entry 2 is 5: Expected `object`, got `int`"),
        (
            {"version": "1", "prices": [{"usd_per_request": 1}]},
            r"entry 1 is \{'usd_.*missing required field `provider`",
        ),
        ({"version": "1", "prices": [{**ENTRY, "usd_per_milion": {}}]}, "unknown field `usd_per_milion`"),
        ({"version": "1", "prices": [{"provider": "p", "model": "m"}]}, r"entry 1 \(p m\) has no price: expected usd_"),
        (
            {"version": "1", "prices": [{**ENTRY, "model": "g*4"}]},
            "model is 'g\\*4': expected a name, or the beginning",
        ),
        (
            {"version": "1", "prices": [ENTRY, {**ENTRY, "model": "*"}]},
            r"entries 1 and 2 are both for p \*: expected one",
        ),
        (
            {"version": "1", "prices": [{"provider": "p", "usd_per_million": {"input_token": 1}}]},
            r"entry 1 \(p \*\): usd_per_million.input_token is no usage: expected some of input_tokens, ",
        ),
        (
            {"version": "1", "prices": [{"provider": "p", "usd_per_million": {"audio_seconds": 1}}]},
            "usd_per_million.audio_seconds is no usage",
        ),
        *(
            (
                {"version": "1", "prices": [{"provider": "p", "usd_per_request": price}]},
                r"entry 1 \(p \*\): the price usd_per_request is .*: expected US dollars, a number from 0 to 1000000",
            )
            for price in (-1, "1", True, float("nan"), float("inf"), 10**400, 1_000_001, Decimal("sNaN"), [1])
        ),
    ],
)
def test_a_wrong_table_says_which_entry_which_value_and_what_was_expected(value: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Prices.load(value)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.yaml", "", r"p.yaml': expected the path of a .toml or .json file"),
        ("p.toml", "version = ", r"p.toml': the file can't be read: "),
        ("p.json", "{", r"p.json': the file can't be read: "),
        ("p.json", "[1]", r"prices \(.*p.json\) is \[1\]: Expected `object`, got `array`"),
        ("p.toml", None, r"p.toml': the file .*p.toml can't be read: No such file"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=sentence):
        Prices.load(str(tmp_path / name))


NAMES = [row.name for row in USAGE]
COUNT = st.integers(0, 10**9) | st.floats(0, 1e9)
PRICE = st.decimals(0, 1000, places=6, allow_nan=False)
USE = st.dictionaries(st.sampled_from(NAMES), COUNT, max_size=6)
ALL_PRICES = st.fixed_dictionaries({name: PRICE for name in NAMES if name != "audio_seconds"})


def entry(million: dict[str, Decimal], minute: Decimal = Decimal("0.006")) -> dict[str, Any]:
    return {"provider": "p", "usd_per_million": million, "usd_per_audio_minute": minute}


def own(usage: dict[str, Any]) -> dict[str, Fraction]:
    """Say the rule again, in other words: what is in several names counts in the innermost only."""
    left = {name: Fraction(count) for name, count in usage.items()}
    for name in ("cache_read_input_audio_tokens",):
        for whole in ("cache_read_input_tokens", "input_audio_tokens", "input_tokens"):
            if whole in left:
                left[whole] -= left.get(name, 0)
    for name in ("cache_read_input_tokens", "cache_creation_input_tokens", "input_audio_tokens"):
        if "input_tokens" in left:
            left["input_tokens"] -= left.get(name, 0)
    for name in ("reasoning_tokens", "output_audio_tokens"):
        if "output_tokens" in left:
            left["output_tokens"] -= left.get(name, 0)
    return left


@given(USE, ALL_PRICES)
def test_a_cost_is_the_exact_sum_rounded_once(usage: dict[str, Any], million: dict[str, Decimal]) -> None:
    cost, _ = priced(table(entry(million)), provider="p", usage=usage)
    left = own(usage)
    if not usage or any(count < 0 for count in left.values()):
        assert cost is None
        return
    per = {name: Fraction(price) / 1_000_000 for name, price in million.items()} | {"audio_seconds": Fraction("0.0001")}
    assert cost == float(sum((per[name] * count for name, count in left.items()), Fraction(0)))


@given(USE, USE, ALL_PRICES)
def test_cost_is_additive_and_never_falls_with_more_of_the_same(
    first: dict[str, Any], second: dict[str, Any], million: dict[str, Decimal]
) -> None:
    prices = table(entry(million))
    names = first.keys() | second.keys()
    one, other = ({name: use.get(name, 0) for name in names} for use in (first, second))
    both = {name: one[name] + other[name] for name in names}
    costs = [priced(prices, provider="p", usage=use)[0] for use in (one, other, both)]
    assume(names and None not in costs)
    assert costs[2] == pytest.approx(costs[0] + costs[1], rel=1e-12, abs=1e-300)  # type: ignore[operator]
    assert costs[2] >= max(costs[0], costs[1])  # type: ignore[operator, type-var]


@given(st.sets(st.sampled_from(NAMES), min_size=1), ALL_PRICES)
def test_nothing_used_costs_nothing(names: set[str], million: dict[str, Decimal]) -> None:
    assert priced(table(entry(million)), provider="p", usage=dict.fromkeys(names, 0)) == (0.0, "v1")


EACH = {
    "input_tokens": 10, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1, "input_audio_tokens": 2,
    "cache_read_input_audio_tokens": 1, "output_tokens": 5, "output_audio_tokens": 1, "reasoning_tokens": 1,
}  # fmt: skip


@pytest.mark.parametrize("missing", sorted(EACH.keys() - {"reasoning_tokens"}))
def test_one_price_that_is_missing_leaves_no_part_of_the_cost(missing: str) -> None:
    million = dict.fromkeys(EACH, Decimal(1))
    assert priced(table(entry(million)), provider="p", usage=EACH) == (15e-6, "v1")
    del million[missing]
    assert priced(table(entry(million)), provider="p", usage=EACH) == (None, None)


def test_reasoning_costs_what_is_written_unless_it_has_a_price_of_its_own() -> None:
    million = {"output_tokens": 1_000_000}
    usage = {"output_tokens": 5, "reasoning_tokens": 2}
    assert priced(table({"provider": "p", "usd_per_million": million}), provider="p", usage=usage)[0] == 5
    million |= {"reasoning_tokens": 0}
    assert priced(table({"provider": "p", "usd_per_million": million}), provider="p", usage=usage)[0] == 3


def test_a_programs_own_decimal_context_changes_nothing() -> None:
    with decimal.localcontext() as context:
        context.prec, context.traps[decimal.Inexact] = 2, True
        assert priced(table(LLM), **openai(input_tokens=123_457)) == (0.01851855, "v1")


def test_a_stage_and_a_published_result_have_their_cost() -> None:
    with capture(prices=TABLE) as captured, voicelog.session():
        with voicelog.stage("llm", provider="openai", model="gpt-4o-mini") as llm:
            llm.usage({"prompt_tokens": 1_000_000, "completion_tokens": 0})
        with voicelog.stage("llm", provider="openai", model="gpt-4o-mini"):
            pass
        voicelog.publish_stt_result("hello", provider="deepgram", model="nova-3", audio_ms=60_000)
        voicelog.publish_tts_result("hello", provider="piper", cost_usd=0.5)
    costs = [(event.cost_usd, event.price_version) for event in captured.events[1:-1]]
    assert costs == [(0.15, "v1"), (None, None), (0.0043, "v1"), (0.5, None)]
    assert captured.counters.snapshot()["unpriced"] == {}


def test_without_a_table_nothing_has_a_cost(caplog: pytest.LogCaptureFixture) -> None:
    with capture() as captured, voicelog.session():
        voicelog.publish_llm_request("yes", **openai(input_tokens=5))
    assert captured.of("llm_request")[0].cost_usd is None
    assert captured.counters.snapshot()["unpriced"] == {}
    assert caplog.messages == []


def test_a_text_that_is_not_sent_is_charged_all_the_same() -> None:
    with capture(prices=TABLE, capture_content="none") as captured, voicelog.session():
        voicelog.publish_tts_result("a" * 100, provider="elevenlabs")
    (event,) = captured.of("tts_result")
    assert (event.text, event.cost_usd) == (None, 0.003)


def test_who_answered_is_who_is_paid() -> None:
    stage = voicelog.stage("llm", provider="groq", model="x")
    with capture(prices=TABLE) as captured, voicelog.session(), stage as llm:
        llm.usage(input_tokens=1_000_000)
        with llm.attempt() as attempt:
            attempt.fail(TimeoutError())
        with llm.attempt(provider="openai", model="gpt-4o-mini"):
            pass
    assert captured.of("llm_request")[0].cost_usd == 0.15


def test_a_stage_that_is_entered_again_has_the_cost_of_each_run() -> None:
    stage = voicelog.stage("llm", provider="openai", model="gpt-4o-mini")
    with capture(prices=TABLE) as captured, voicelog.session():
        for tokens in (1_000_000, 2_000_000):
            with stage:
                stage.usage(input_tokens=tokens)
    assert [event.cost_usd for event in captured.of("llm_request")] == [0.15, 0.3]


def test_configure_reads_the_table_and_refuses_a_wrong_one(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(TOML, encoding="utf-8")
    voicelog.configure(brokers=NOBODY, flush_timeout_ms=0, prices=file)
    first = state.current
    assert first is not None
    assert first.prices == Prices.load(TABLE)
    voicelog.configure(brokers=NOBODY, flush_timeout_ms=0, prices=str(file))
    assert state.current is first
    file.write_text(TOML.replace("v1", "v2"), encoding="utf-8")
    voicelog.configure(brokers=NOBODY, flush_timeout_ms=0, prices=str(file))
    assert state.current is not first
    with pytest.raises(ConfigError, match=r"entry 1 is 5: Expected `object`.*; expected are provider, model, "):
        voicelog.configure(brokers=NOBODY, flush_timeout_ms=0, prices={"version": "1", "prices": [5]})
    with pytest.raises(ConfigError, match=r"none\.toml can't be read: No such file"):
        voicelog.configure(brokers=NOBODY, flush_timeout_ms=0, prices=str(tmp_path / "none.toml"))


def test_a_wrong_table_in_the_environment_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VOICELOG_PRICES", "none.toml")
    with caplog.at_level(logging.WARNING, "voicelog"):
        voicelog.configure(brokers=NOBODY, flush_timeout_ms=0)
    assert state.current is not None
    assert state.current.prices is None
    (warning,) = caplog.messages
    assert f"VOICELOG_PRICES: prices is 'none.toml': the file {Path.cwd() / 'none.toml'} can't be read: " in warning
    assert warning.endswith("No such file or directory. No cost is computed.")
