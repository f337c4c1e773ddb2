"""/health, /ready and /metrics, over a real socket."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from voicelog.errors import ConfigError
from voicelog_sink.errors import PortTaken
from voicelog_sink.http import application, parse_address, serving
from voicelog_sink.metrics import Metrics
from voicelog_sink.status import HEARTBEAT_TIMEOUT_S, Status


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as exc:
        with exc:
            status, body = exc.code, exc.read()
    return status, json.loads(body) if body.startswith(b"{") else body.decode()


def test_health_fails_when_either_thread_is_silent() -> None:
    status = Status()
    with serving(application(status, Metrics()), "127.0.0.1:0") as url:
        code, body = get(f"{url}/health")
        assert (code, body["status"]) == (200, "ok")
        assert body["heartbeat_age_s"] < HEARTBEAT_TIMEOUT_S
        status.beat("loop")
        status.beats_s["writer"] = time.monotonic() - HEARTBEAT_TIMEOUT_S - 1
        code, body = get(f"{url}/health")
        assert (code, body["status"]) == (503, "failing")


def test_ready_needs_every_condition_and_names_them() -> None:
    status = Status(joined=True, store_up=True, dead_letters_up=True)
    with serving(application(status, Metrics()), "127.0.0.1:0") as url:
        good = {"joined": True, "store_up": True, "dead_letters_up": True, "not_stopping": True}
        assert get(f"{url}/ready") == (200, {"status": "ok", **good})
        for name, value in (("joined", False), ("store_up", False), ("dead_letters_up", False), ("stopping", True)):
            before = getattr(status, name)
            setattr(status, name, value)
            failing = "not_stopping" if name == "stopping" else name
            assert get(f"{url}/ready") == (503, {"status": "failing", **good, failing: False})
            setattr(status, name, before)


def test_metrics_are_prometheus_text_and_other_routes_are_served_beside() -> None:
    metrics = Metrics()
    metrics.count("consumed_total", 5, topic="voice-events")

    async def page(_request: object) -> PlainTextResponse:
        return PlainTextResponse("page")

    with serving(application(Status(), metrics, [Route("/", page)]), "127.0.0.1:0") as url:
        assert 'voicelog_sink_consumed_total{topic="voice-events"} 5.0' in get(f"{url}/metrics")[1]
        assert get(f"{url}/") == (200, "page")
        assert get(f"{url}/nothing")[0] == 404


def test_port_in_use_is_one_sentence_with_the_remedy_or_another_port() -> None:
    app = application(Status(), Metrics())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        says = f"HTTP can't listen on {address} (Address already in use): stop what has it, set VOICELOG_HTTP"
        with pytest.raises(PortTaken, match=re.escape(says)), serving(app, address):
            pass
        with serving(app, address, or_free=True) as url:
            assert not url.endswith(address)
            assert get(f"{url}/health")[0] == 200


def test_off_serves_nothing() -> None:
    with serving(application(Status(), Metrics()), "off") as url:
        assert url == ""


@pytest.mark.parametrize("address", ["", "8080", "localhost", "host:port", "127.0.0.1:99999"])
def test_address_that_is_none_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"VOICELOG_HTTP is {address!r}: expected host:port")):
        parse_address(address)


def test_ipv6_address_is_taken() -> None:
    assert parse_address("[::1]:8080") == ("::1", 8080)
