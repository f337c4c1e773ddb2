"""A connection between the sink and its database that can be slow, or stand still."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 16 * 1024


class Proxy:
    """Passes bytes to a server on 127.0.0.1 both ways. Used by one thread beside its own; a context manager."""

    def __init__(self, port: int) -> None:
        """Name the server's port; `port` is where the proxy listens once it was entered."""
        self.target = port
        self.port = 0
        self._delay_s = 0.0
        self._bytes_per_s = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy")

    def slow(self, delay_s: float, bytes_per_s: int) -> None:
        """Hold each piece back for `delay_s` and pass no more than `bytes_per_s` a connection."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def hold(self) -> None:
        """Pass nothing any more; connections stay open, and are taken."""
        self._call(self._set(False))

    def cut(self) -> None:
        """Break every connection, so that what was held back never arrives, and pass what comes on new ones."""
        self._call(self._break())
        self.pass_on()

    def pass_on(self) -> None:
        """Pass what came meanwhile, and all that comes."""
        self.slow(0.0, 0)
        self._call(self._set(True))

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> int:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _set(self, is_open: bool) -> None:
        if is_open:
            self._open.set()
        else:
            self._open.clear()

    async def _close(self) -> None:
        self._server.close()
        await self._break()

    async def _break(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except (OSError, asyncio.CancelledError):
            pass  # one side has gone, or the proxy has: the other one learns of it now
        finally:
            for end in (writer, back):
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(CHUNK_BYTES):
            await self._open.wait()
            await asyncio.sleep(self._delay_s + (len(piece) / self._bytes_per_s if self._bytes_per_s else 0.0))
            writer.write(piece)
            await writer.drain()
        raise ConnectionResetError
