"""Starts the server as a child process that ends with its parent, however the parent ends."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

START_SECONDS = 120


class SpeechServerError(Exception):
    """The server ended or hung before it served; what it said is on stderr."""


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """Yield the base URL of a server that lives as long as the block."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __package__, "--while-stdin-is-open"),
        cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE,  # never written to: it closes when this process is gone
        stdout=asyncio.subprocess.PIPE,
    )
    if server.stdin is None or server.stdout is None:
        raise SpeechServerError("it was started without pipes")
    try:
        try:
            address = await asyncio.wait_for(server.stdout.readline(), START_SECONDS)
        except TimeoutError:
            raise SpeechServerError(f"its models were not loaded within {START_SECONDS} s") from None
        if not address:
            raise SpeechServerError(f"it ended with exit status {await server.wait()} before it served")
        yield address.decode().strip()
    finally:
        server.stdin.close()
        await server.wait()
