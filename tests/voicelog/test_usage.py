"""What a provider says was used: every spelling comes out under the same names, and a whole includes its parts."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.voicelog.strategies import ANYTHING, ODD

from voicelog.usage import SPELLINGS, USAGE, usage_of


class Modality(Enum):
    TEXT = "TEXT"
    AUDIO = "AUDIO"


REPORTS: dict[str, tuple[Any, dict[str, float]]] = {
    "openai chat": (
        {
            "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 16, "audio_tokens": 4, "accepted_prediction_tokens": 0},
        },
        {
            "input_tokens": 100, "cache_read_input_tokens": 60, "input_audio_tokens": 10, "output_tokens": 40,
            "reasoning_tokens": 16, "output_audio_tokens": 4,
        },
    ),
    "openai responses": (
        {
            "input_tokens": 100, "output_tokens": 40, "total_tokens": 140,
            "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            "output_tokens_details": {"reasoning_tokens": 16},
        },
        {
            "input_tokens": 100, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30,
            "output_tokens": 40, "reasoning_tokens": 16,
        },
    ),
    "openai realtime": (
        {
            "input_tokens": 100, "output_tokens": 40,
            "input_token_details": {
                "cached_tokens": 60, "text_tokens": 30, "audio_tokens": 70,
                "cached_tokens_details": {"text_tokens": 20, "audio_tokens": 40},
            },
            "output_token_details": {"text_tokens": 10, "audio_tokens": 30},
        },
        {
            "input_tokens": 100, "cache_read_input_tokens": 60, "input_audio_tokens": 70,
            "cache_read_input_audio_tokens": 40, "output_tokens": 40, "output_audio_tokens": 30,
        },
    ),
    "openai transcription by duration": ({"type": "duration", "seconds": 3.5}, {"audio_seconds": 3.5}),
    "anthropic": (
        {
            "input_tokens": 100, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 60, "output_tokens": 40,
            "output_tokens_details": {"thinking_tokens": 16}, "service_tier": "standard",
        },
        {
            "input_tokens": 180, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 60,
            "output_tokens": 40, "reasoning_tokens": 16,
        },
    ),
    "anthropic, the last delta of a stream": (
        {"input_tokens": None, "cache_creation_input_tokens": None, "output_tokens": 40},
        {"output_tokens": 40},
    ),
    "bedrock converse": (
        {"inputTokens": 100, "outputTokens": 40, "totalTokens": 200, "cacheReadInputTokens": 60},
        {"input_tokens": 160, "cache_read_input_tokens": 60, "output_tokens": 40},
    ),
    "google": (
        {
            "promptTokenCount": 100, "candidatesTokenCount": 24, "thoughtsTokenCount": 16, "totalTokenCount": 145,
            "toolUsePromptTokenCount": 5, "cachedContentTokenCount": 60,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 30}, {"modality": "AUDIO", "tokenCount": 70}],
        },
        {
            "input_tokens": 105, "cache_read_input_tokens": 60, "input_audio_tokens": 70, "output_tokens": 40,
            "reasoning_tokens": 16,
        },
    ),
    "google live, objects": (
        SimpleNamespace(
            prompt_token_count=100, response_token_count=40, thoughts_token_count=None,
            response_tokens_details=[SimpleNamespace(modality=Modality.AUDIO, token_count=30)],
        ),
        {"input_tokens": 100, "output_tokens": 40, "output_audio_tokens": 30},
    ),
    "livekit llm": (
        SimpleNamespace(prompt_tokens=100, prompt_cached_tokens=60, completion_tokens=40, duration=1.5, ttft=0.2),
        {"input_tokens": 100, "cache_read_input_tokens": 60, "output_tokens": 40},
    ),
    "livekit tts": (
        SimpleNamespace(characters_count=50, audio_duration=2.5, duration=0.7),
        {"characters_count": 50, "audio_seconds": 2.5},
    ),
    "pipecat from openai": (
        SimpleNamespace(
            prompt_tokens=100, completion_tokens=40, total_tokens=140, cache_read_input_tokens=60,
            cache_creation_input_tokens=None, reasoning_tokens=16,
        ),
        {"input_tokens": 100, "cache_read_input_tokens": 60, "output_tokens": 40, "reasoning_tokens": 16},
    ),
    "pipecat from anthropic": (
        SimpleNamespace(
            prompt_tokens=100, completion_tokens=40, cache_read_input_tokens=60, cache_creation_input_tokens=0
        ),
        {
            "input_tokens": 160, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 0, "output_tokens": 40,
        },
    ),
    "opentelemetry": (
        {
            "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 40,
            "gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.usage.audio.input_tokens": 10,
            "gen_ai.usage.reasoning.output_tokens": 16,
        },
        {
            "input_tokens": 100, "cache_read_input_tokens": 60, "input_audio_tokens": 10, "output_tokens": 40,
            "reasoning_tokens": 16,
        },
    ),
}  # fmt: skip


def as_objects(value: Any) -> Any:
    """Return mappings with plain names as objects with attributes, as an SDK gives them."""
    if isinstance(value, list):
        return [as_objects(one) for one in value]
    if not isinstance(value, dict) or any("." in name for name in value):
        return value
    return SimpleNamespace(**{name: as_objects(one) for name, one in value.items()})


@pytest.mark.parametrize("name", REPORTS)
def test_each_spelling_comes_out_under_the_same_names(name: str) -> None:
    reported, expected = REPORTS[name]
    assert usage_of(reported) == expected
    assert usage_of(as_objects(reported)) == expected


@pytest.mark.parametrize("name", REPORTS)
def test_parts_are_never_more_than_their_whole(name: str) -> None:
    found = usage_of(REPORTS[name][0])
    for row in USAGE:
        for whole in row.part_of:
            assert found.get(row.name, 0) <= found.get(whole, float("inf"))


def test_every_name_has_a_spelling_of_its_own() -> None:
    assert list(SPELLINGS) == [row.name for row in USAGE]
    assert all((name,) in paths for name, paths in SPELLINGS.items())


def test_whole_counts_are_integers() -> None:
    found = usage_of({"input_tokens": 3.0, "output_tokens": 1e300, "audio_seconds": 1.5})
    assert {name: type(value) for name, value in found.items()} == {
        "input_tokens": int, "output_tokens": float, "audio_seconds": float,
    }  # fmt: skip


class Hostile:
    """Every attribute fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


NAMES = sorted({path[0] for paths in SPELLINGS.values() for path in paths})


@given(st.one_of(ANYTHING, st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=8)))
def test_whatever_is_reported_nothing_raises_and_every_count_is_a_number(reported: Any) -> None:
    found = usage_of(reported)
    assert all(name in SPELLINGS and value >= 0 for name, value in found.items())


def test_what_says_nothing_is_empty() -> None:
    for reported in (None, 5, "100", Hostile(), [1], {"prompt_tokens": "many"}, *ODD):
        assert usage_of(reported) == {}
