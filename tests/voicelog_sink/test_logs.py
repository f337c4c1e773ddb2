"""Log lines: one line each, JSON on request, and repeats left out and counted."""

from __future__ import annotations

import json
import logging

import pytest

from voicelog.errors import ConfigError
from voicelog_sink import logs


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_text_line_is_one_line_even_with_a_traceback(capsys) -> None:
    logs.set_up("text")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("voicelog_sink.x").exception("it failed\nbadly")
    (line,) = lines(capsys)
    assert " ERROR voicelog_sink.x: it failed | badly | Traceback" in line


def test_json_line_is_an_object_with_the_stack(capsys) -> None:
    logs.set_up("json")
    logging.getLogger("voicelog_sink.x").info("so %s", "ünd so")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("voicelog_sink.x").exception("failed")
    first, second = (json.loads(line) for line in lines(capsys))
    del first["ts"]
    assert first == {"level": "INFO", "logger": "voicelog_sink.x", "message": "so ünd so"}
    assert "ZeroDivisionError" in second["stack"]


def test_repeated_warning_is_said_once_a_minute_with_how_many_were_left_out() -> None:
    now_s = 0.0
    repeats = logs.Repeats(lambda: now_s)

    def said(message: str, level: int = logging.WARNING) -> str | None:
        record = logging.LogRecord("voicelog_sink.x", level, "", 0, message, (), None)
        return record.getMessage() if repeats.filter(record) else None

    assert said("down after 1 ms") == "down after 1 ms"
    assert said("down after 22 ms") is None
    assert said("something else") == "something else"
    assert said("progress 1", logging.INFO) == "progress 1"
    assert said("progress 2", logging.INFO) == "progress 2"
    now_s = 61.0
    assert said("down after 3 ms") == "down after 3 ms (1 more like it)"
    assert said("down after 4 ms") is None


def test_librdkafkas_lines_lose_their_prefix_and_do_not_complain_of_other_clients_settings(capsys) -> None:
    logs.set_up("text")
    text = "FAIL [voicelog-sink#consumer-1] [thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect failed"
    logging.getLogger("voicelog_sink.librdkafka").error(text)
    ours = "CONFWARN [x#producer-1] [thrd:app]: Configuration property group.id is a consumer property and will be "
    logging.getLogger("voicelog_sink.librdkafka").warning(ours + "ignored by this producer instance")
    (line,) = lines(capsys)
    assert line.endswith("ERROR voicelog_sink.librdkafka: 127.0.0.1:1/bootstrap: Connect failed")


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="VOICELOG_LOG_FORMAT is 'xml': expected text or json"):
        logs.set_up("xml")
