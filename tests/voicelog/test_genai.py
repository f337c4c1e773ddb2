"""The names of spans and attributes: what the conventions say, and what each field of an event becomes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind
from tests.voicelog.strategies import ANYTHING

from voicelog import genai
from voicelog.events import STAGE_TYPES, Figure, StageEvent
from voicelog.fields import SETTABLE

NEWER = {
    "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.audio.input_tokens", "gen_ai.usage.audio.output_tokens",
    "gen_ai.request.reasoning.level",
    "gen_ai.speech.input.language", "gen_ai.speech.voice", "gen_ai.agent.invocation.end_reason",
}  # fmt: skip
"""Names of the GenAI conventions' own repository, and of its proposal for speech, that the package is too old for."""


def test_every_name_is_one_of_the_conventions() -> None:
    module = pytest.importorskip(
        "opentelemetry.semconv._incubating.attributes.gen_ai_attributes", reason="the package has them no longer"
    )
    registered = {value for name, value in vars(module).items() if name.isupper()} | {"error.type"}
    names = {row.attribute for row in genai.NAMES} | set(genai.CONTENT.values())
    names |= {genai.OPERATION, genai.CONVERSATION, genai.AGENT, genai.TOOL_NAME, genai.END_REASON, genai.ERROR_TYPE}
    assert names - registered <= NEWER


def test_each_field_is_named_once_and_is_a_field_of_an_event() -> None:
    keys = [(row.field, stage) for row in genai.NAMES for stage in row.stages or ("",)]
    assert len(keys) == len(set(keys))
    known = {a.name for cls in (StageEvent, *STAGE_TYPES.values()) for a in attrs.fields(cls)}
    assert {row.field.partition(".")[0] for row in genai.NAMES} <= known
    assert all(field in SETTABLE[STAGE_TYPES[stage].TYPE] for stage, field in genai.CONTENT)


def test_an_llm_stage_has_the_conventions_names() -> None:
    fields = {
        "stage": "llm", "span_id": "s", "duration_ms": 5.0, "status": "ok", "turn_id": "t", "provider": "openai",
        "model": "gpt-4o-mini", "first_item_ms": 250.0, "items": 3, "finish_reason": "stop", "response": "hello",
        "usage": {
            "input_tokens": 12, "output_tokens": 40, "cache_read_input_tokens": 5, "cache_write_input_tokens": 6,
            "reasoning_tokens": 7, "input_audio_tokens": 8, "output_audio_tokens": 9, "characters_count": 3,
        },
        "parameters": {
            "temperature": 0.5, "max_tokens": 100, "top_p": 0.9, "top_k": 40, "seed": 1, "stop": ["a", "b"],
            "frequency_penalty": 0.1, "presence_penalty": 0.2, "reasoning_effort": "low", "logprobs": True,
        },
        "attributes": {"response_id": "r-1", "response_model": "gpt-4o-mini-2024", "tenant": "acme", "tags": ["x", 1]},
        "cost_usd": 0.25,
    }  # fmt: skip
    assert genai.attributes("llm", fields) == {
        "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.time_to_first_chunk": 0.25, "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["stop"], "gen_ai.response.id": "r-1",
        "gen_ai.response.model": "gpt-4o-mini-2024",
        "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 40, "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_write.input_tokens": 6, "gen_ai.usage.reasoning.output_tokens": 7,
        "gen_ai.usage.audio.input_tokens": 8, "gen_ai.usage.audio.output_tokens": 9,
        "voicelog.usage.characters_count": 3,
        "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 100, "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40, "gen_ai.request.seed": 1, "gen_ai.request.stop_sequences": ["a", "b"],
        "gen_ai.request.frequency_penalty": 0.1, "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.request.reasoning.level": "low", "voicelog.parameters.logprobs": True,
        "voicelog.attributes.tenant": "acme", "voicelog.attributes.tags": '["x",1]', "voicelog.cost_usd": 0.25,
        "voicelog.items": 3, "voicelog.status": "ok", "voicelog.turn_id": "t",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "fields", "name", "kind", "opening"),
    [
        ("llm", {"model": "m"}, "chat m", SpanKind.CLIENT,
         {"gen_ai.operation.name": "chat", "voicelog.stage": "llm", "gen_ai.request.model": "m"}),
        ("stt", {"provider": "p", "confidence": 1.0}, "speech_to_text", SpanKind.CLIENT,
         {"gen_ai.operation.name": "speech_to_text", "voicelog.stage": "stt", "gen_ai.output.type": "text",
          "gen_ai.provider.name": "p"}),
        ("tts", {"model": "v"}, "text_to_speech v", SpanKind.CLIENT,
         {"gen_ai.operation.name": "text_to_speech", "voicelog.stage": "tts", "gen_ai.output.type": "speech",
          "gen_ai.request.model": "v"}),
        ("retrieval", {}, "retrieval", SpanKind.CLIENT,
         {"gen_ai.operation.name": "retrieval", "voicelog.stage": "retrieval"}),
        ("tool", {"attributes": {"tool_name": "weather"}, "model": "m"}, "execute_tool weather", SpanKind.INTERNAL,
         {"gen_ai.operation.name": "execute_tool", "voicelog.stage": "tool", "gen_ai.request.model": "m"}),
        ("vad", {}, "vad", SpanKind.INTERNAL, {"gen_ai.operation.name": "vad", "voicelog.stage": "vad"}),
    ],
)  # fmt: skip
def test_a_span_is_named_for_its_operation_and_model(
    stage: str, fields: dict[str, Any], name: str, kind: SpanKind, opening: dict[str, Any]
) -> None:
    assert genai.span_name(stage, fields) == name
    assert genai.operation_of(stage).kind is kind
    assert genai.opening(stage, fields) == opening


def test_a_name_is_only_that_of_its_own_stages() -> None:
    fields = {"language": "en", "voice": "v", "first_item_ms": 1.0, "attributes": {"tool_name": "t"}}
    assert genai.attributes("vad", fields) == {
        "voicelog.language": "en", "voicelog.voice": "v", "voicelog.first_item_ms": 1.0,
        "voicelog.attributes.tool_name": "t",
    }  # fmt: skip
    assert genai.attributes("stt", {"language": "en"}) == {"gen_ai.speech.input.language": "en"}
    assert genai.attributes("tts", {"voice": "v"}) == {"gen_ai.speech.voice": "v"}
    assert genai.attributes("tool", {"attributes": {"tool_name": "t"}}) == {"gen_ai.tool.name": "t"}


def test_of_an_error_the_attributes_have_only_its_type() -> None:
    error = {"type": "TimeoutError", "message": "secret", "stack": "secret"}
    assert genai.attributes("llm", {"error": error}) == {"error.type": "TimeoutError"}


def test_texts_are_messages_and_only_in_the_content() -> None:
    fields = {"prompt": "hi", "response": "hello", "finish_reason": "stop"}
    found = genai.content("llm", fields)
    assert {name: json.loads(str(value)) for name, value in found.items()} == {
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": "hello"}], "finish_reason": "stop"}
        ],
    }
    assert genai.attributes("llm", fields) == {"gen_ai.response.finish_reasons": ["stop"]}
    assert list(genai.content("stt", {"transcript": "a", "text": "b"})) == ["gen_ai.output.messages"]
    assert list(genai.content("tts", {"transcript": "a", "text": "b"})) == ["gen_ai.input.messages"]
    assert genai.content("vad", {"transcript": "a", "text": "b"}) == {}


def test_a_prompt_of_messages_keeps_their_roles_and_whatever_else_they_have() -> None:
    prompt = json.dumps(
        [
            {"role": "system", "content": "be brief"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
            {"role": "user", "content": [{"type": "image_url"}]},
        ]
    )
    assert json.loads(str(genai.content("llm", {"prompt": prompt})["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
        {"role": "assistant", "parts": [{"type": "other", "tool_calls": [{"id": "c1"}]}]},
        {"role": "user", "parts": [{"type": "other", "content": [{"type": "image_url"}]}]},
    ]


@pytest.mark.parametrize("prompt", ["[1, 2]", "[]", '[{"content": "x"}]', '{"role": "user"}', "[" * 2000, "nothing"])
def test_a_prompt_that_is_no_list_of_messages_is_what_the_user_said(prompt: str) -> None:
    (message,) = json.loads(str(genai.content("llm", {"prompt": prompt})["gen_ai.input.messages"]))
    assert message == {"role": "user", "parts": [{"type": "text", "content": prompt}]}


def test_a_turn_has_its_figures_and_how_it_ended() -> None:
    fields = {
        "turn_id": "t1", "turn_number": 1, "status": "ok", "end_reason": "interrupted", "was_interrupted": True,
        "user_bot_latency_ms": 800.5, "marks": {"playback_start": 1}, "duration_ms": 5.0,
        "figures": {"llm_ttft_ms": Figure(value_ms=250.0)}, "contributions": [{"key": "llm_ttft", "us": 1}],
    }  # fmt: skip
    assert genai.turn_attributes(fields) == {
        "voicelog.turn_id": "t1", "voicelog.turn_number": 1, "voicelog.status": "ok", "voicelog.was_interrupted": True,
        "voicelog.user_bot_latency_ms": 800.5, "voicelog.llm_ttft_ms": 250.0,
        "voicelog.contributions": '[{"key":"llm_ttft","us":1}]', "gen_ai.agent.invocation.end_reason": "interrupted",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "reason", "found"),
    [
        ("ok", "completed", {"gen_ai.agent.invocation.end_reason": "completed"}),
        ("ok", "session_closed", {"gen_ai.agent.invocation.end_reason": "session_closed"}),
        ("ok", "handed to a human", {"voicelog.end_reason": "handed to a human"}),
        ("error", "error", {"error.type": "_OTHER"}),
        ("ok", None, {}),
    ],
)
def test_a_failed_turn_has_an_error_type_and_no_end_reason(
    status: str, reason: str | None, found: Mapping[str, Any]
) -> None:
    assert genai.turn_attributes({"status": status, "end_reason": reason}) == {"voicelog.status": status, **found}


@given(st.sampled_from(["llm", "stt", "tts", "tool", "own"]), st.dictionaries(st.sampled_from([
    "provider", "model", "usage", "parameters", "attributes", "error", "finish_reason", "prompt", "response", "own",
]), ANYTHING))  # fmt: skip
def test_whatever_the_fields_are_attributes_are_what_a_span_takes(stage: str, fields: dict[str, Any]) -> None:
    for name, value in {**genai.opening(stage, fields), **genai.attributes(stage, fields)}.items():
        name.encode()
        for one in value if isinstance(value, list) else [value]:
            assert type(one) in (str, bool, int, float)
            assert not isinstance(one, str) or one.encode() is not None
            assert not isinstance(one, int) or -(2**63) <= one < 2**63
            assert not isinstance(one, float) or math.isfinite(one)
