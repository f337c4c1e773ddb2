"""What is private by choice: content that is switched off, or redacted, reaches no message, whatever event it is in."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voicelog
from voicelog.client import state
from voicelog.context import session_var
from voicelog.events import EVENT_TYPES, Attempt, ErrorInfo, wire_fields
from voicelog.heartbeat import Figures, Heartbeat
from voicelog.settings import CONTENT_DEFAULT, CONTENT_KINDS, load
from voicelog.testing import Capture, capture

SECRET = "4111111111111111"


class Boom(Exception):
    """An error whose message is private."""


def boom() -> Boom:
    return Boom(f"no service for {SECRET}")


@contextmanager
def logging_to_voicelog() -> Iterator[logging.Logger]:
    logger, handler = logging.getLogger("bot"), voicelog.LogHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)


def stages() -> None:
    with voicelog.stage("stt", transcript=SECRET, note=SECRET) as stt:
        stt.set(transcript=f"{SECRET}!", deep={"a": [SECRET]}, number=int(SECRET))
    with voicelog.stage("llm", parameters={"stop": [SECRET]}) as llm:
        llm.set(prompt=[{"role": "user", "content": SECRET}], response=SECRET, tool=SECRET)
    with voicelog.stage("llm", prompt=SECRET):
        pass
    with voicelog.stage("tts", text=SECRET) as tts:
        tts.fail(boom())
    with suppress(Boom), voicelog.stage("tool", prompt=SECRET, response=SECRET, transcript=SECRET, parameters=SECRET):
        raise boom()


def decorated() -> None:
    @voicelog.stage("agent", prompt=SECRET)
    def agent() -> None:
        voicelog.current_stage().set(text=SECRET)

    @voicelog.stage
    async def tokens() -> Any:
        yield SECRET
        raise boom()

    async def consume() -> None:
        with suppress(Boom):
            async for _ in tokens():
                pass

    agent()
    asyncio.run(consume())


def published() -> None:
    voicelog.publish_stt_result(SECRET, note=SECRET, error=boom())
    voicelog.publish_llm_request(SECRET, prompt=SECRET, parameters={SECRET: 1}, note=SECRET)
    voicelog.publish_tts_result(SECRET, note=SECRET)


def loose() -> None:
    voicelog.publish_log(SECRET, logger="bot", note=SECRET)
    voicelog.metric("mos", 4.1, note=SECRET)
    voicelog.log_error(boom(), note=SECRET)
    voicelog.health("bot", "ok", note=SECRET)
    with logging_to_voicelog() as logger:
        logger.error("it is %s", SECRET)
        try:
            raise boom()
        except Boom:
            logger.exception("caught")


def everything() -> None:
    """Put the secret wherever a user can put content, in events of every type."""
    loose()
    with suppress(Boom), voicelog.session("s", attributes={"note": SECRET, "prompt": SECRET}):
        with suppress(Boom), voicelog.turn() as turn:
            turn.set(note=SECRET, response=SECRET)
            stages()
            decorated()
            published()
            loose()
            client, session = state.current, session_var.get()
            assert client is not None
            assert session is not None
            assert session.stream is not None
            attempts = [
                Attempt(provider="a", status="error", error=ErrorInfo(type="E", message=SECRET, stack=SECRET)),
                {"provider": "b", "status": "error", "error": {"type": "E", "message": SECRET, "stack": SECRET}},
                {"provider": "c", "status": "ok"},
            ]
            client.emit(session.stream, "llm_request", client.now_ns(), {"attempts": attempts})
            with voicelog.stage("hangs", note=SECRET) as hangs:
                client.emit(session.stream, "stage_started", client.now_ns(), hangs.started_fields())
            raise boom()
        raise boom()


def holding(captured: Capture, secret: str = SECRET) -> list[tuple[str, str]]:
    """Return where the secret is found: event type and field."""
    return sorted({
        (event.TYPE, name)
        for message, event in zip(captured.messages, captured.events, strict=True)
        if secret.encode() in message.value
        for name in wire_fields(type(event))
        if secret in repr(getattr(event, name))
    })  # fmt: skip


@contextmanager
def all_captured(**given: Any) -> Iterator[Capture]:
    with capture(**given) as captured:
        everything()
        yield captured
    assert {event.TYPE for event in captured.events} == set(EVENT_TYPES)


WHERE = {
    "transcript": {("stt_result", "transcript")},
    "prompt": {("llm_request", "prompt")},
    "response": {("llm_request", "response")},
    "text": {("tts_result", "text")},
    "parameters": {("llm_request", "parameters")},
    "attributes": {
        (kind, "attributes")
        for kind in ("stt_result", "llm_request", "tts_result", "stage", "session_started", "turn", "metric", "log",
                     "error", "health")
    },
    "errors": {
        ("llm_request", "attempts"),
        *((kind, "error") for kind in ("stt_result", "tts_result", "stage", "error", "log")),
    },
    "logs": {("log", "message")},
}  # fmt: skip
"""The fields that each kind of content is."""


def test_everything_is_sent_where_all_is_captured() -> None:
    with all_captured(capture_content="all") as captured:
        assert set(holding(captured)) == set().union(*WHERE.values())


@pytest.mark.parametrize("kind", CONTENT_KINDS)
def test_a_kind_that_is_switched_off_is_in_no_event(kind: str) -> None:
    with all_captured(capture_content=f"all,-{kind}") as captured:
        assert set(holding(captured)) == set().union(*(w for k, w in WHERE.items() if k != kind))


@pytest.mark.parametrize("kind", CONTENT_KINDS)
def test_only_the_kind_that_is_switched_on_is_sent(kind: str) -> None:
    with all_captured(capture_content=kind) as captured:
        assert set(holding(captured)) == WHERE[kind]


def test_nothing_is_sent_where_none_is_captured_and_types_and_names_are() -> None:
    with all_captured(capture_content="none") as captured:
        assert holding(captured) == []
        failed = next(event for event in captured.of("tts_result") if event.error)
        assert failed.error == ErrorInfo(type=f"{Boom.__module__}.Boom")
        log = captured.of("log")[0]
        assert (log.message, log.level, log.logger) == ("", "INFO", "bot")
        (tried,) = [event.attempts for event in captured.of("llm_request") if event.attempts]
        assert [attempt.error and attempt.error.type for attempt in tried] == ["E", "E", None]


def test_by_default_all_but_prompts_is_sent_also_where_one_is_an_attribute() -> None:
    with all_captured() as captured:
        assert set(holding(captured)) == set().union(*(WHERE[kind] for kind in CONTENT_DEFAULT))
        (agent,) = [event for event in captured.of("stage") if event.stage == "agent"]
        assert agent.attributes == {"text": SECRET}
        assert captured.of("session_started")[0].attributes == {"note": SECRET}


def test_what_the_user_passed_stays_as_it_was() -> None:
    attributes = {"prompt": "p", "note": SECRET}
    with capture(redact=["card"]) as captured:
        with voicelog.session("s", attributes=attributes), voicelog.turn() as turn:
            turn.set(**attributes)
        assert captured.of("turn")[0].attributes == {"note": "[card]"}
    assert attributes == {"prompt": "p", "note": SECRET}


@pytest.mark.parametrize("settings", [{}, {"sample_rate": 0}])
def test_what_is_redacted_is_in_no_event(settings: dict[str, Any]) -> None:
    with all_captured(capture_content="all", redact=["card"], **settings) as captured:
        assert holding(captured) == []
        assert set(holding(captured, "[card]")) == set().union(*WHERE.values())


def test_ids_and_names_are_not_redacted() -> None:
    with capture(redact=["card"]) as captured:
        with voicelog.session(SECRET, user=SECRET, variant=SECRET), voicelog.turn(SECRET):
            voicelog.metric(SECRET, 1)
            with voicelog.stage(SECRET, provider=SECRET, model=SECRET):
                pass
        (stage,) = captured.of("stage")
        assert {stage.session_id, stage.user_id, stage.variant, stage.turn_id, stage.stage, stage.provider} == {SECRET}
        assert captured.of("metric")[0].name == SECRET


def wrong_values() -> None:
    """Give what is content, and is of a wrong type, so that a warning might show it."""
    with voicelog.session("s", attributes=[SECRET]), voicelog.stage("llm") as llm:  # type: ignore[arg-type]
        llm.set(prompt={SECRET}, response=[SECRET], parameters=SECRET)
        voicelog.publish_stt_result([SECRET])  # type: ignore[arg-type]
        voicelog.publish_llm_request(attempts=[{"error": [SECRET]}])
        voicelog.publish_llm_request(attempts=SECRET)
        voicelog.log_error(SECRET)  # type: ignore[arg-type]


@pytest.mark.parametrize("private", [{"capture_content": "none"}, {"redact": "card"}])
def test_a_warning_about_a_wrong_value_does_not_show_what_is_not_sent(
    caplog: pytest.LogCaptureFixture, private: dict[str, Any]
) -> None:
    with capture(strict=False, **private):
        wrong_values()
    assert len(caplog.records) == 7
    assert SECRET not in caplog.text
    assert "stage 'llm': prompt=" in caplog.text


def test_a_warning_about_a_fault_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    with capture(strict=False, redact="card"):
        client = state.current
        assert client is not None
        client.fault("here", boom())
    assert [record.getMessage() for record in caplog.records] == [
        "voicelog: internal error in here, your program goes on: Boom('no service for [card]')"
    ]


def test_a_redactor_that_fails_breaks_no_call_and_lets_nothing_through() -> None:
    def fails(text: str) -> str:
        raise ValueError(text)

    with all_captured(capture_content="all", redact=[fails]) as captured:
        assert holding(captured) == []
        assert captured.of("stt_result")[0].transcript == "[not redacted: fails failed]"
        assert captured.counters.get("redact_failed") > 30


def test_a_redactor_that_logs_does_not_go_on_for_ever() -> None:
    def logs(text: str) -> str:
        logger.error("redacting %s", text)
        return text

    with logging_to_voicelog() as logger, capture(redact=[logs]) as captured:
        with voicelog.session("s"):
            voicelog.publish_log(SECRET)
        assert [event.message for event in captured.of("log")] == ["[not redacted: logs failed]", SECRET]


@given(kinds=st.sets(st.sampled_from(sorted(CONTENT_KINDS))), redact=st.booleans())
def test_any_choice_of_kinds_sends_those_alone(kinds: set[str], redact: bool) -> None:
    with capture(capture_content=kinds, redact=["card"] if redact else []) as captured:
        everything()
        sent = set(holding(captured, "[card]" if redact else SECRET))
        assert sent == set().union(*(WHERE[kind] for kind in kinds))


def test_without_choices_of_ones_own_nothing_is_looked_for() -> None:
    with capture(capture_content="all"):
        client = state.current
        assert client is not None
        assert (client.content, client.redactor, client.sampler) == (None, None, None)


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({}, "hello"),
        ({"VOICELOG_CAPTURE_CONTENT": "transcipt"}, None),
        ({"VOICELOG_REDACT": "card,emial"}, "[not redacted: withheld failed]"),
    ],
)
def test_what_can_not_be_read_in_the_environment_is_taken_as_the_strictest(
    environ: dict[str, str], sent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings, problems = load({})
    assert len(problems) == len(environ)
    with capture(**{name: settings.values[name] for name in ("capture_content", "redact")}) as captured:
        with voicelog.session("s"), voicelog.stage("stt", transcript="hello"):
            pass
        assert captured.of("stt_result")[0].transcript == sent


def test_the_librarys_own_heartbeat_is_no_content_and_a_sampled_call_no_loss() -> None:
    with capture(capture_content="none", redact=["phone:US", lambda _: None], sample_rate=0) as captured:
        client = state.current
        assert client is not None
        heartbeat = Heartbeat(client, 10_000, [], None, lambda: Figures(4155552671, 3, 0, 4155552671))
        with voicelog.session("s"):
            pass
        heartbeat.beat()
        (beat,) = captured.of("health")
        assert (beat.state, beat.attributes["pid"], beat.attributes["dropped"]) == ("ok", 4155552671, 0)
        assert captured.counters.get("dropped") == 2


IMPORTS = """
import sys, voicelog, voicelog.testing
with voicelog.testing.capture(**{given}) as captured:
    with voicelog.session("s"), voicelog.stage("stt", transcript="a +14155550123"):
        pass
print("phonenumbers" in sys.modules, captured.of("stt_result")[0].transcript)
"""


@pytest.mark.parametrize(("given", "printed"), [({}, "False a +14155550123"), ({"redact": "phone"}, "True a [phone]")])
def test_phonenumbers_is_loaded_only_where_phones_are_redacted(given: dict[str, Any], printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(given=given)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == printed, done.stderr
