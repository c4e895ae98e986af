"""uvicorn as a worker runs it: it ends as soon as it is asked to, since every launch of a test waits for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from types import FrameType

__all__ = ["PromptServer"]


class PromptServer(uvicorn.Server):
    """A server that waits for the event of its end; uvicorn's own looks for it ten times a second.

    Args:
        config: of the server.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def end(self) -> None:
        """End the server; from any thread, and also before it serves."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the server by a signal."""
        super().handle_exit(sig, frame)
        self.end()

    async def main_loop(self) -> None:
        """Wait for the end."""
        self._loop = asyncio.get_running_loop()
        if not await self.on_tick(0):  # sets the headers of every response
            await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close idle connections at once; for the others uvicorn waits."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)  # their transports close in the next turn of the loop
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
