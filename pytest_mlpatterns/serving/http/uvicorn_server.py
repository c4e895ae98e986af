"""uvicorn as a worker runs it: it ends as soon as it is asked to, and receives long bodies without copies.

uvicorn passes a body to the application in parts, each copied four times on the way. For a tensor of 1 MB these copies
take as long as the transfer over the socket; without them the request takes 419 µs, and 334 µs over a bare socket.

The protocol extends a class that uvicorn does not document, and uses its attributes. A test lists them, and names
:data:`CHECKED_UVICORN` if one is missing.
"""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import TYPE_CHECKING, Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pytest_mlpatterns.serving.http.app import BODY

if TYPE_CHECKING:
    import socket

MIN_BYTES = 1 << 16  # Shortest body that is received this way
CHECKED_UVICORN = "0.54.0"  # Version of uvicorn that this module was checked with


def body_protocol(max_body_bytes: int) -> type[HttpToolsProtocol]:
    """The protocol class to pass to uvicorn."""

    class Limited(_BodyProtocol):
        pass

    Limited.max_body_bytes = max_body_bytes
    return Limited


class _BodyProtocol(HttpToolsProtocol):
    """One connection."""

    max_body_bytes = 0
    _buffer: _BodyBuffer | None = None

    def on_headers_complete(self) -> None:
        """Allocate the buffer of a long body before the application starts."""
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        idle = self.cycle is None or self.cycle.response_complete
        if idle and length.isdigit() and MIN_BYTES <= int(length) <= self.max_body_bytes:
            self._buffer = _BodyBuffer(int(length), self)
            self.scope[BODY] = self._buffer.whole  # type: ignore[literal-required]  # not an ASGI key
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Store the part of a long body that arrived together with the headers."""
        if self._buffer is None:
            super().on_body(body)
        else:
            self._buffer.begin_with(body)

    def data_received(self, data: bytes) -> None:
        """Parse the headers; then let the buffer receive the rest of a long body."""
        super().data_received(data)
        if self._buffer is not None and not self.transport.is_closing():
            self._change_to(self._buffer)

    def on_message_complete(self) -> None:
        """The body is complete, or the request has none."""
        self._buffer = None
        super().on_message_complete()

    def filled(self) -> None:
        """The rest of the body has arrived. The parser has not seen it, so a new one takes over."""
        self._buffer = None
        self.parser = httptools.HttpRequestParser(self)
        self._change_to(self)
        super().on_message_complete()

    def _change_to(self, receiver: asyncio.BaseProtocol) -> None:
        """Set the protocol that receives; the transport applies it when reading resumes."""
        self.transport.pause_reading()
        self.transport.set_protocol(receiver)
        self.transport.resume_reading()


class _BodyBuffer(asyncio.BufferedProtocol):
    """Receives the rest of one body; passes all other events to the connection."""

    def __init__(self, length: int, connection: Any) -> None:
        self.whole = bytearray(length)
        self._rest = memoryview(self.whole)
        self._connection = connection

    def begin_with(self, part: bytes) -> None:
        """Store the first bytes."""
        self._rest[: len(part)] = part
        self._rest = self._rest[len(part) :]

    def connection_lost(self, exc: Exception | None) -> None:
        """The client closed the connection."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The write buffer is full, because the application answered before the body was complete."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        self._connection.resume_writing()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """The rest of the buffer."""
        return self._rest

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` have arrived."""
        self._rest = self._rest[nbytes:]
        if not self._rest:
            self._connection.filled()


class PromptServer(uvicorn.Server):
    """A server that waits for the event of its end; uvicorn's own looks for it ten times a second."""

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
