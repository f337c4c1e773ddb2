"""The sink's HTTP: /health, /ready and /metrics, in a thread of its own. Whatever else is served joins as routes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from voicelog.errors import ConfigError
from voicelog_sink.errors import PortTaken
from voicelog_sink.metrics import Metrics
from voicelog_sink.status import Status

OFF = "off"
STOP_TIMEOUT_S = 5.0


def application(status: Status, metrics: Metrics, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the application; `routes` are served beside its own."""

    async def health(_request: Request) -> Response:
        return _answer(status.is_alive(), {"heartbeat_age_s": round(status.age_s(), 3)})

    async def ready(_request: Request) -> Response:
        return _answer(status.is_ready(), status.conditions())

    async def exposition(_request: Request) -> Response:
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    own = [Route("/health", health), Route("/ready", ready), Route("/metrics", exposition)]
    return Starlette(routes=[*own, *routes])


@contextmanager
def serving(app: Starlette, address: str, or_free: bool = False) -> Iterator[str]:
    """Serve `app` at `address` while the block runs, and give its URL; `off` serves nothing and gives ''.

    Port 0 takes a free one; with `or_free` so does a port that is taken. Raises ConfigError for an address that is
    none and PortTaken for one that can't be had.
    """
    if address.strip().lower() == OFF:
        yield ""
        return
    listener = _listen(*parse_address(address), or_free)
    config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="voicelog-http", daemon=True)
    thread.start()
    try:
        host, port = listener.getsockname()[:2]
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(STOP_TIMEOUT_S)
        listener.close()


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port; raises ConfigError."""
    host, _, port = address.strip().rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        message = (
            f"VOICELOG_HTTP is {address!r}: expected host:port such as 127.0.0.1:8080, port 0 for a free one, or off"
        )
        raise ConfigError(message)
    return host.strip("[]"), int(port)


def _listen(host: str, port: int, or_free: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as exc:
        if or_free and port:
            return _listen(host, 0, or_free=False)
        why = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
        message = (
            f"HTTP can't listen on {host}:{port} ({why}): stop what has it, set VOICELOG_HTTP or "
            "--http to another address (port 0 takes a free one), or to off"
        )
        raise PortTaken(message) from exc


def _answer(good: bool, facts: dict[str, bool] | dict[str, float]) -> Response:
    return JSONResponse({"status": "ok" if good else "failing", **facts}, status_code=200 if good else 503)
