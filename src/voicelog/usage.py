"""Usage: what was used, under one set of names, whatever the provider calls it. A table, and nothing that raises.

The names in `usage` include their parts, as OpenTelemetry's GenAI conventions and OpenAI count: input_tokens has the
cached and the audio tokens in it, output_tokens the reasoning and the audio tokens. Anthropic, Bedrock and Google
report some parts beside the whole; `usage_of` adds those to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from voicelog.fields import fit


class UsageName(NamedTuple):
    """One row of the table: a name in `usage`, its unit, what it is a part of, and what it counts."""

    name: str
    unit: str
    part_of: tuple[str, ...]
    help: str


USAGE: tuple[UsageName, ...] = (
    UsageName("input_tokens", "tokens", (), "all that was read: text and audio, cached or not"),
    UsageName("cache_read_input_tokens", "tokens", ("input_tokens",), "read from the provider's cache"),
    UsageName("cache_creation_input_tokens", "tokens", ("input_tokens",), "written to the provider's cache"),
    UsageName("input_audio_tokens", "tokens", ("input_tokens",), "of audio"),
    UsageName(
        "cache_read_input_audio_tokens", "tokens", ("cache_read_input_tokens", "input_audio_tokens"),
        "of audio, read from the provider's cache",
    ),
    UsageName("output_tokens", "tokens", (), "all that was written: text, audio and reasoning"),
    UsageName("reasoning_tokens", "tokens", ("output_tokens",), "of reasoning"),
    UsageName("output_audio_tokens", "tokens", ("output_tokens",), "of audio"),
    UsageName("characters_count", "characters", (), "characters that were synthesised"),
    UsageName("audio_seconds", "seconds", (), "audio that was recognised or synthesised"),
)  # fmt: skip
"""The names that have a meaning, and can have a price. Other names are kept as they are."""

Path = tuple[str, ...]
AUDIO = "[AUDIO]"
"""The step of a path into Google's lists of counts by modality."""

SPELLINGS: dict[str, tuple[Path, ...]] = {
    "input_tokens": (
        ("input_tokens",), ("prompt_tokens",), ("prompt_token_count",), ("promptTokenCount",), ("inputTokens",),
        ("gen_ai.usage.input_tokens",),
    ),
    "cache_read_input_tokens": (
        ("cache_read_input_tokens",), ("prompt_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cached_tokens"), ("input_token_details", "cached_tokens"), ("prompt_cached_tokens",),
        ("input_cached_tokens",), ("cached_content_token_count",), ("cachedContentTokenCount",),
        ("cacheReadInputTokens",), ("gen_ai.usage.cache_read.input_tokens",),
    ),
    "cache_creation_input_tokens": (
        ("cache_creation_input_tokens",), ("prompt_tokens_details", "cache_write_tokens"),
        ("input_tokens_details", "cache_write_tokens"), ("cache_creation_tokens",), ("input_cache_creation_tokens",),
        ("cacheWriteInputTokens",), ("gen_ai.usage.cache_creation.input_tokens",),
    ),
    "input_audio_tokens": (
        ("input_audio_tokens",), ("prompt_tokens_details", "audio_tokens"), ("input_token_details", "audio_tokens"),
        ("prompt_tokens_details", AUDIO), ("promptTokensDetails", AUDIO), ("gen_ai.usage.audio.input_tokens",),
        ("gen_ai.usage.input_audio_tokens",),
    ),
    "cache_read_input_audio_tokens": (
        ("cache_read_input_audio_tokens",), ("input_token_details", "cached_tokens_details", "audio_tokens"),
        ("input_cached_audio_tokens",), ("cache_tokens_details", AUDIO), ("cacheTokensDetails", AUDIO),
    ),
    "output_tokens": (
        ("output_tokens",), ("completion_tokens",), ("candidates_token_count",), ("candidatesTokenCount",),
        ("response_token_count",), ("responseTokenCount",), ("outputTokens",), ("gen_ai.usage.output_tokens",),
    ),
    "reasoning_tokens": (
        ("reasoning_tokens",), ("completion_tokens_details", "reasoning_tokens"),
        ("output_tokens_details", "reasoning_tokens"), ("output_tokens_details", "thinking_tokens"),
        ("thoughts_token_count",), ("thoughtsTokenCount",), ("output_reasoning_tokens",),
        ("gen_ai.usage.reasoning.output_tokens",),
    ),
    "output_audio_tokens": (
        ("output_audio_tokens",), ("completion_tokens_details", "audio_tokens"),
        ("output_token_details", "audio_tokens"), ("candidates_tokens_details", AUDIO),
        ("candidatesTokensDetails", AUDIO), ("response_tokens_details", AUDIO), ("responseTokensDetails", AUDIO),
        ("gen_ai.usage.audio.output_tokens",), ("gen_ai.usage.output_audio_tokens",),
    ),
    "characters_count": (("characters_count",),),
    "audio_seconds": (("audio_seconds",), ("audio_duration",), ("seconds",)),
}  # fmt: skip
"""Where each count is found; the first that is a number counts. OpenAI (chat, responses, realtime, transcription),
Anthropic, Bedrock Converse, Google, LiveKit, Pipecat, and OpenTelemetry's attributes."""


class Apart(NamedTuple):
    """A part that is reported beside its whole, and not in it; `when` another count is there, if that decides."""

    whole: str
    part: Path
    when: Path | None = None


APART: tuple[Apart, ...] = (
    # Anthropic; Pipecat hands its counts on as they are, and has no cache_creation_input_tokens from others
    Apart("input_tokens", ("cache_creation_input_tokens",)),
    Apart("input_tokens", ("cache_read_input_tokens",), ("cache_creation_input_tokens",)),
    Apart("input_tokens", ("cacheReadInputTokens",)),
    Apart("input_tokens", ("cacheWriteInputTokens",)),
    Apart("input_tokens", ("tool_use_prompt_token_count",)),
    Apart("input_tokens", ("toolUsePromptTokenCount",)),
    Apart("output_tokens", ("thoughts_token_count",)),
    Apart("output_tokens", ("thoughtsTokenCount",)),
)
"""What `usage_of` adds, so that a whole includes its parts: Anthropic, Bedrock, Google."""

MAX_WHOLE = 2**63


def usage_of(reported: Any) -> dict[str, float]:
    """Return a provider's usage, an object or a mapping, under the names of USAGE.

    Counts that are not known are left out; where nothing is known the dict is empty. Never raises.
    """
    found = {name: number for name, paths in SPELLINGS.items() if (number := _first(reported, paths)) is not None}
    for whole, part, when in APART:
        if whole in found and (when is None or _count(reported, when) is not None):
            found[whole] = whole_number(found[whole] + (_count(reported, part) or 0))
    return found


def whole_number(number: float) -> float:
    """Return `number` as an int where it is whole and an event can carry it."""
    return int(number) if number < MAX_WHOLE and number == int(number) else number


def _first(reported: Any, paths: tuple[Path, ...]) -> float | None:
    for path in paths:
        number = _count(reported, path)
        if number is not None:
            return number
    return None


def _count(reported: Any, path: Path) -> float | None:
    try:
        value = reported
        for step in path:
            value = _step(value, step)
        number = fit((float,), value)
    except Exception:  # a user's object may do anything while it is read
        return None
    return whole_number(number) if number is not None and number >= 0 else None


def _step(value: Any, step: str) -> Any:
    if step is AUDIO:
        return _of_audio(value)
    return value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)


def _of_audio(counts: Any) -> Any:
    if not isinstance(counts, (list, tuple)):
        return None
    found = []
    for count in counts[:100]:
        modality = _step(count, "modality")
        if getattr(modality, "value", modality) == "AUDIO":
            tokens = _step(count, "token_count")
            found.append(tokens if tokens is not None else _step(count, "tokenCount"))
    return sum(found) if found else None
