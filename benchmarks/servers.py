"""What the contenders send to: an HTTP server that takes everything, and an embedded Kafka broker."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any


class TakesAll(BaseHTTPRequestHandler):
    """Answers every POST with 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the body and answer."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(b"{}")

    def do_GET(self) -> None:
        """Answer."""
        self._answer(b'{"project_name": "bench", "project_url": "http://localhost"}')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _http(pipe: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), TakesAll)
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def _kafka(pipe: Connection) -> None:
    from confluent_kafka import Producer

    broker = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = broker.list_topics(timeout=10).brokers
    for topic in ("stt-results", "llm-requests", "voice-events"):
        broker.list_topics(topic, timeout=10)
    pipe.send(",".join(f"{b.host}:{b.port}" for b in brokers.values()))
    pipe.recv()


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Run both in processes of their own; yields the broker's address and the HTTP server's URL."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for target in (_kafka, _http):
        here, there = context.Pipe()
        process = context.Process(target=target, args=(there,), daemon=True)
        process.start()
        pipes.append(here)
        processes.append(process)
    try:
        yield pipes[0].recv(), pipes[1].recv()
    finally:
        for process in processes:
            process.terminate()
            process.join(5)
