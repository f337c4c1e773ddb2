"""Serves until it is told to stop: `python -m speech_server [--port 9000] [--while-stdin-is-open]`."""

import argparse
import asyncio
import os
import signal
import sys
import threading

from aiohttp import web


def main() -> None:
    """Load the models, serve them on loopback and print the address on a line of its own."""
    parser = argparse.ArgumentParser(prog="speech_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    threads = min(4, max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--threads", type=int, default=threads, help="for the language model")
    parser.add_argument("--while-stdin-is-open", action="store_true", help="stop when the parent is gone")
    options = parser.parse_args()
    try:
        from .app import SpeechServer
    except ModuleNotFoundError as error:
        sys.exit(f"speech_server needs {error.name}: see README.md for the two pip commands")
    if options.while_stdin_is_open:
        threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()
    asyncio.run(_serve(SpeechServer(options.threads).app(), options.port))
    # llama.cpp's threads have no part in an orderly interpreter exit.
    os._exit(0)


async def _serve(app: web.Application, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await stop.wait()
    await runner.cleanup()


def _stop_at_end_of_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
