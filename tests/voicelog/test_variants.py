"""Choosing a variant: stable for a key, in proportion to the weights, and few keys move when those change."""

from __future__ import annotations

import hashlib
import logging
import math
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.voicelog.strategies import ANYTHING, Awkward

import voicelog
from voicelog.errors import ConfigError
from voicelog.testing import Capture, capture

AB = {"a": 1, "b": 1}
KEYS = [f"call-{n}" for n in range(2000)]
WEIGHTS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), st.floats(0.01, 100), min_size=2, max_size=5
)


def chosen(weights: dict[str, float], name: str = "voice", keys: list[str] = KEYS) -> list[str]:
    return [voicelog.choose_variant(name, weights, key=key) for key in keys]


def test_the_choice_is_the_same_in_every_version() -> None:
    """Calls of one person must not change sides because the library was updated."""
    found = [voicelog.choose_variant("voice", {"a": 1, "b": 2, "c": 0.5}, key=f"call-{n}") for n in range(12)]
    assert "".join(found) == "cabbbaaababb"
    assert voicelog.choose_variant("Stimme \U0001f600", {"ä": 1, "ö": 1}, key="\ud800") == "ö"
    digest = hashlib.sha256("".join(chosen({"a": 1, "b": 2, "c": 0.5})).encode()).hexdigest()
    assert digest == "b6dce91610c42c1c72526b9a7fe6afd8eff1b409f07c56f1bbf5404457b854df"


def test_the_choice_is_the_same_in_every_process() -> None:
    program = "import voicelog; print(*(voicelog.choose_variant('t', {'a': 1, 'b': 1}, key=n) for n in range(50)))"
    out = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout.split().__str__()
        for seed in ("1", "2")
    }  # fmt: skip
    assert out == {str([voicelog.choose_variant("t", AB, key=str(n)) for n in range(50)])}


@given(st.text(), st.text(), WEIGHTS, st.randoms())
def test_neither_the_order_of_the_weights_nor_their_scale_matters(
    name: str, key: str, weights: dict[str, float], rng: Any
) -> None:
    found = voicelog.choose_variant(name, weights, key=key)
    shuffled = list(weights.items())
    rng.shuffle(shuffled)
    assert voicelog.choose_variant(name, dict(shuffled), key=key) == found
    assert voicelog.choose_variant(name, {v: w * 3 for v, w in weights.items()}, key=key) == found
    assert voicelog.choose_variant(name, {**weights, "never": 0}, key=key) == found


@settings(max_examples=30)
@given(WEIGHTS, st.text(max_size=5))
def test_each_variant_gets_its_share(weights: dict[str, float], name: str) -> None:
    counts, total = Counter(chosen(weights, name)), sum(weights.values())
    for variant, weight in weights.items():
        share = weight / total
        allowed = 6 * math.sqrt(len(KEYS) * share * (1 - share)) + 1
        assert abs(counts[variant] - len(KEYS) * share) <= allowed


@settings(max_examples=30)
@given(WEIGHTS, st.integers(0, 4), st.floats(1, 50))
def test_a_weight_that_grows_moves_keys_only_to_its_variant(weights: dict[str, float], n: int, factor: float) -> None:
    grown = sorted(weights)[n % len(weights)]
    more = {**weights, grown: weights[grown] * factor}
    before, after = (chosen(each, keys=KEYS[:500]) for each in (weights, more))
    assert {new for old, new in zip(before, after, strict=True) if old != new} <= {grown}


def test_a_new_variant_takes_its_share_and_moves_no_other_key() -> None:
    moved = [(old, new) for old, new in zip(chosen(AB), chosen({**AB, "c": 1}), strict=True) if old != new]
    assert {new for _, new in moved} == {"c"}
    assert 0.28 < len(moved) / len(KEYS) < 0.39


def test_two_tests_choose_apart() -> None:
    both = Counter(zip(chosen(AB, "voice"), chosen(AB, "prompt"), strict=True))
    assert all(0.2 < count / len(KEYS) < 0.3 for count in both.values())
    assert len(both) == 4


def test_without_a_key_it_is_the_sessions(captured: Capture) -> None:
    for key in KEYS[:20]:
        with voicelog.session(key):
            assert voicelog.choose_variant("voice", AB) == voicelog.choose_variant("voice", AB, key=key)


def test_without_any_key_it_is_random_and_counted(lenient: Capture) -> None:
    assert {voicelog.choose_variant("voice", AB) for _ in range(100)} == {"a", "b"}
    assert lenient.counters.snapshot()["invalid"] == {"choose_variant.key": 100}
    with capture(), pytest.raises(ConfigError, match=r"choose_variant\('voice'\) has no key.*give key="):
        voicelog.choose_variant("voice", AB)


@pytest.mark.parametrize(
    ("weights", "first"),
    [
        ({}, ""), ({"b": 0, "a": 0}, "a"), ({"b": 1, "a": -1}, "a"), ({"a": float("nan")}, "a"), ({"a": "1"}, "a"),
        ({"a": True}, "a"), ({"a": math.inf}, "a"), ({5: 1}, ""), ({"": 1}, ""), (["a", "b"], ""), (None, ""),
        (Awkward(), ""), ({"a": Awkward()}, "a"),
    ],
)  # fmt: skip
def test_wrong_weights_give_the_first_name_and_are_counted(weights: Any, first: str) -> None:
    with capture(strict=False) as captured:
        assert voicelog.choose_variant("voice", weights, key="k") == first
    assert captured.counters.snapshot()["invalid"] == {"choose_variant.weights": 1}
    with (
        capture(),
        pytest.raises(ConfigError, match=r"choose_variant\('voice', .*: expected a dict of names to numbers"),
    ):
        voicelog.choose_variant("voice", weights, key="k")


TEXTS = ANYTHING.filter(lambda value: issubclass(type(value), str))


@given(ANYTHING, st.one_of(ANYTHING, st.dictionaries(TEXTS, ANYTHING)), ANYTHING)
def test_whatever_is_given_a_text_comes_back(name: Any, weights: Any, key: Any) -> None:
    with capture(strict=False) as captured:
        assert type(voicelog.choose_variant(name, weights, key=key)) is str
    assert captured.counters.snapshot()["faults"] == {}


def test_switched_off_it_chooses_the_same_and_says_once_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    off = chosen(AB)
    with caplog.at_level(logging.WARNING, "voicelog"):
        assert [voicelog.choose_variant("x", {"b": -1, "a": 1}, key="k") for _ in range(3)] == ["a"] * 3
    assert len(caplog.messages) <= 1
    with capture():
        assert chosen(AB) == off
