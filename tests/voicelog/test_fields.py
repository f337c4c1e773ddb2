"""Fields a user may set: which they are, and what fits them."""

from __future__ import annotations

import enum
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from tests.voicelog.strategies import ANYTHING, Awkward, NumpyLike

from voicelog.events import EVENT_TYPES, INT64_MAX
from voicelog.fields import SETTABLE, fit


class Provider(str, enum.Enum):  # noqa: UP042 - str() of it is "Provider.OPENAI"
    OPENAI = "openai"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("stt_result", {"transcript", "confidence", "language", "is_final", "audio_ms"}),
        ("llm_request", {"prompt", "response", "parameters", "finish_reason"}),
        ("tts_result", {"text", "voice", "audio_ms", "sample_rate_hz", "characters", "bytes"}),
        ("stage", set()),
    ],
)
def test_a_stage_takes_its_types_fields_and_the_common_ones(kind: str, names: set[str]) -> None:
    assert set(SETTABLE[kind]) == names | {"provider", "model", "cost_usd"}


def test_what_the_library_fills_itself_is_not_settable() -> None:
    own = {"seq", "ts", "stream_id", "session_id", "status", "duration_ms", "error", "extra", "attributes", "usage"}
    assert not own & {name for names in SETTABLE.values() for name in names}
    assert set(SETTABLE) == set(EVENT_TYPES)


@pytest.mark.parametrize(
    ("want", "value", "found"),
    [
        (str, "a", "a"), (str, Provider.OPENAI, "openai"), (str, Text("own"), "own"), (str, 5, None), (str, b"a", None),
        (float, 1, 1.0), (float, 1.5, 1.5), (float, Decimal("1.5"), 1.5), (float, Fraction(1, 2), 0.5),
        (float, NumpyLike(), 0.5), (float, "1.5", None), (float, b"1", None), (float, True, None),
        (float, math.nan, None),
        (float, math.inf, None), (float, 10**400, None), (float, [1.0], None), (float, Awkward(), None),
        (int, 7, 7), (int, NumpyLike(), 7), (int, 1.0, None), (int, -1, None), (int, True, None), (int, "7", None),
        (int, INT64_MAX, INT64_MAX), (int, INT64_MAX + 1, None), (int, Awkward(), None),
        (bool, True, True), (bool, False, False), (bool, 1, None), (bool, "true", None), (bool, Awkward(), None),
        (dict, {"a": 1}, {"a": 1}), (dict, [("a", 1)], None), (dict, Awkward(), None),
    ],
)  # fmt: skip
def test_a_value_fits_or_is_none(want: type, value: Any, found: Any) -> None:
    result = fit((want,), value)
    assert result == found
    assert result is None or type(result) is want


@given(ANYTHING)
def test_nothing_that_is_tried_raises(value: Any) -> None:
    for want in (str, int, float, bool, dict):
        result = fit((want,), value)
        assert result is None or type(result) is want
