"""The settings: one table, and a sentence with the remedy for everything that does not fit it."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voicelog.errors import ConfigError
from voicelog.settings import (
    BY_NAME,
    CONTENT_DEFAULT,
    CONTENT_KINDS,
    SETTINGS,
    Setting,
    Settings,
    _as_text,
    defaults,
    from_environment,
    load,
    parse,
    withheld,
)

ROWS = pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)


@ROWS
def test_each_default_is_read_from_its_own_text(row: Setting) -> None:
    assert row.parse(_as_text(row.default)) == row.default


@ROWS
def test_each_row_has_a_help_and_a_unit_for_its_number(row: Setting) -> None:
    assert row.help
    assert row.used_by in ("library", "sink", "both")
    assert bool(row.unit) == (type(row.default) in (int, float))


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(SETTINGS)


WRONG = {
    "bool": ("maybe", "expected true or false"),
    "positive": ("0", "expected a whole number above 0"),
    "count": ("-1", "expected a whole number from 0 on"),
    "brokers": ("http://broker", "expected host:port"),
    "kinds": ("transcript,voice", "expected all, none, or some of transcript, prompt, response, text"),
    "share": ("1.5", "expected a number from 0 to 1"),
    "redactors": ("phone,name", "expected none, or some of phone, email, card"),
    "pairs": ("linger.ms", "expected name=value"),
}


@pytest.mark.parametrize("row", [row for row in SETTINGS if row.kind != "text"], ids=lambda row: row.name)
def test_a_wrong_value_is_refused_with_name_value_and_expectation(row: Setting) -> None:
    value, expectation = WRONG[row.kind]
    with pytest.raises(ConfigError) as caught:
        parse(row.name, value)
    for part in (row.env, repr(value), expectation, row.summary):
        assert part in str(caught.value)


@ROWS
@given(text=st.text())
@example(text="5\x1c")  # a space to strip(), none to int()
@example(text="a:\u00b2")  # a digit, but no decimal
def test_any_text_is_read_or_refused_with_a_sentence(row: Setting, text: str) -> None:
    sentence = f"{row.env}: expected"
    try:
        parse(row.name, text)
    except ConfigError as exc:
        sentence = str(exc)
    assert row.env in sentence
    assert "expected" in sentence


@pytest.mark.parametrize("value", ["abc", "1.5", "1_000", "", " ", 2.5, -1, True, None])
def test_a_number_says_that_it_is_expected_to_be_one(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"VOICELOG_LINGER_MS is .*: expected a whole number from 0 on"):
        parse("linger_ms", value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("broker", r"did you mean brokers \(VOICELOG_BROKERS\)"),
        ("flush_timeout", "did you mean flush_timeout_ms"),
        ("zzzzzz", "known are: brokers, "),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"{name!r} .* is no setting of voicelog: .*{hint}"):
        load({name: "x"}, {})


def test_given_wins_over_environment_wins_over_default() -> None:
    settings, problems = load({"linger_ms": 1}, {"VOICELOG_LINGER_MS": "2", "VOICELOG_SERVICE": "bot"})
    assert problems == []
    assert (settings.linger_ms, settings.service, settings.queue_max_messages) == (1, "bot", 100_000)


def test_what_is_wrong_in_the_environment_is_told_and_left_out() -> None:
    settings, problems = load({}, {"VOICELOG_LINGER_MS": "soon", "VOICELOG_BROKER": "x:1", "VOICELOG_HOST": "h"})
    assert len(problems) == 2
    assert "VOICELOG_LINGER_MS is 'soon': expected a whole number" in problems[0]
    assert "did you mean brokers" in problems[1]
    assert (settings.linger_ms, settings.brokers, settings.host) == (20, "127.0.0.1:9092", "h")


def test_none_given_means_not_given() -> None:
    assert load({"brokers": None}, {"VOICELOG_BROKERS": "a:1"})[0].brokers == "a:1"


def test_the_suites_own_names_and_a_handed_over_session_are_no_settings() -> None:
    environ = {"VOICELOG_TEST_BROKERS": "x", "VOICELOG_SESSION": "id=1", "PATH": "/", "VOICELOG_SERVICE": ""}
    assert from_environment(environ) == {}


@pytest.mark.parametrize("brokers", ["a:1", "a:1,b:2", " a:1 , b:2", "[::1]:9092", "1.2.3.4:65535"])
def test_brokers_are_host_and_port_with_commas(brokers: str) -> None:
    assert parse("brokers", brokers) == brokers


@pytest.mark.parametrize("brokers", ["", "a", "a:", ":1", "a:0", "a:65536", "a:1,", "kafka://a:1", "a:x"])
def test_brokers_without_host_or_port_are_refused(brokers: str) -> None:
    with pytest.raises(ConfigError, match="VOICELOG_BROKERS"):
        parse("brokers", brokers)


def test_content_kinds_are_all_none_or_some() -> None:
    assert parse("capture_content", "all") == frozenset(CONTENT_KINDS)
    assert parse("capture_content", "none") == parse("capture_content", ()) == frozenset()
    assert parse("capture_content", " prompt , text") == parse("capture_content", ["prompt", "text"])


def test_content_kinds_with_a_minus_are_taken_off_the_default_or_off_all() -> None:
    assert parse("capture_content", "-errors, -logs") == CONTENT_DEFAULT - {"errors", "logs"}
    assert parse("capture_content", "all,-errors") == frozenset(CONTENT_KINDS) - {"errors"}
    assert parse("capture_content", ["text", "prompt", "-text"]) == {"prompt"}
    assert parse("capture_content", "none,-text") == frozenset()


@pytest.mark.parametrize("value", ["all,text", "none,text", "-all", "-voice", "text,-voice", "--text"])
def test_content_kinds_that_contradict_or_are_not_known_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"VOICELOG_CAPTURE_CONTENT is .*: expected all, none, or some of transcript"):
        parse("capture_content", value)


def test_redactors_are_names_and_in_code_functions_too() -> None:
    assert parse("redact", " phone:US, email ") == ("phone:US", "email")
    assert parse("redact", "none") == parse("redact", ()) == ()
    assert load({"redact": str.upper}, {})[0].redact == (str.upper,)
    assert load({"redact": ["card", str.upper]}, {})[0].redact == ("card", str.upper)


@pytest.mark.parametrize("value", ["phone:us", "phone:", "email:US", ["card", None], [1], "card;email", [""]])
def test_what_is_no_redactor_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"VOICELOG_REDACT is .*: expected none, or some of phone, email, card"):
        parse("redact", value)


def test_a_redactor_given_in_code_that_can_not_work_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"VOICELOG_REDACT is \('phone:XX',\): phone\('XX'\): expected a region"):
        load({"redact": "phone:XX"}, {})
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(ConfigError, match=r"pip install 'voicelog\[redact\]'"):
        load({"redact": ["phone"]}, {})
    assert load({}, {"VOICELOG_REDACT": "phone"})[1] == [], "the sink may share the environment, without the library"


def test_privacy_that_can_not_be_read_in_the_environment_is_taken_as_the_strictest() -> None:
    settings, problems = load({}, {"VOICELOG_CAPTURE_CONTENT": "transcipt", "VOICELOG_REDACT": "phone,emial"})
    assert [problem.so.partition(" read, ")[2] for problem in problems] == ["no content is sent.", "no text is sent."]
    assert (settings.capture_content, settings.redact) == (frozenset(), (withheld,))


def test_librdkafkas_settings_given_as_a_dict_are_passed_as_they_are() -> None:
    """A value may hold commas, and need not be a text."""
    given = {"debug": "broker,topic", "oauth_cb": print, "socket.keepalive.enable": True}
    assert load({"kafka_config": given}, {})[0].kafka()["debug"] == "broker,topic"
    assert parse("kafka_config", given) == given
    assert parse("kafka_config", "linger.ms=5, a.b = c=d") == {"linger.ms": "5", "a.b": "c=d"}


def test_kafka_leaves_out_what_is_not_set_and_lets_kafka_config_win() -> None:
    settings, _ = load({"brokers": "a:1", "sasl_username": "u", "kafka_config": {"sasl.username": "v"}}, {})
    assert settings.kafka() == {
        "bootstrap.servers": "a:1", "security.protocol": "PLAINTEXT", "sasl.username": "v",
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        *({row.name: "hunter2"} for row in SETTINGS if row.secret),
        {"kafka_config": {"sasl.password": "hunter2"}},
        {"kafka_config": "ssl.key.password=hunter2"},
        {"kafka_config": {"sasl.oauthbearer.client.secret": "hunter2"}},
    ],
)
def test_secrets_are_masked_wherever_settings_are_shown(given: dict[str, Any]) -> None:
    settings, _ = load(given, {})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.masked())
    assert "***" in repr(settings)


def test_an_error_about_a_secret_does_not_show_it() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("kafka_config", "sasl.password=hunter2,oops")
    assert "hunter2" not in str(caught.value)


def test_repr_names_every_setting() -> None:
    shown = repr(load({}, {})[0])
    assert all(f"{row.name}=" in shown for row in SETTINGS)


def test_service_and_host_are_found_out() -> None:
    found = defaults()
    assert found["service"]
    assert found["host"]


def test_an_attribute_that_is_no_setting_is_an_attribute_error() -> None:
    settings = load({}, {})[0]
    with pytest.raises(AttributeError, match="nonsense"):
        _ = settings.nonsense
    assert copy.copy(settings) == settings == Settings(dict(settings.values))
