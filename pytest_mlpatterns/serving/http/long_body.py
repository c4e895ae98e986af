"""How uvicorn receives a long request body: straight into one buffer of its length, in place of piece by piece.

uvicorn hands a body to the application in pieces, each of which was copied four times by then; a tensor of a megabyte
takes as long for that as for its way over the socket. Here the system writes it where the application reads it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pytest_mlpatterns.serving.http.app import BODY

__all__ = ["MIN_BYTES", "body_protocol"]

MIN_BYTES = 1 << 16
"""A shorter body goes uvicorn's own way."""


def body_protocol(max_body_bytes: int) -> type[HttpToolsProtocol]:
    """The protocol for uvicorn.

    Args:
        max_body_bytes: a longer body goes uvicorn's own way, to where it is refused.
    """

    class BodyProtocol(HttpToolsProtocol):
        """One connection."""

        _filling: _Filling | None = None

        def on_headers_complete(self) -> None:
            """Make room for a long body before the application is started."""
            length = next((value for name, value in self.headers if name == b"content-length"), b"")
            idle = self.cycle is None or self.cycle.response_complete
            if idle and length.isdigit() and MIN_BYTES <= int(length) <= max_body_bytes:
                self._filling = _Filling(int(length), self)
                self.scope[BODY] = self._filling.whole  # type: ignore[literal-required]  # a key of our own
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """The beginning of a long body came together with its head."""
            if self._filling is None:
                super().on_body(body)
            else:
                self._filling.begin_with(body)

        def data_received(self, data: bytes) -> None:
            """After the head of a long body, the rest of it goes straight to its place."""
            super().data_received(data)
            if self._filling is not None and not self.transport.is_closing():
                self._change_to(self._filling)

        def on_message_complete(self) -> None:
            """The whole of the body came together with its head, or there is none."""
            self._filling = None
            super().on_message_complete()

        def filled(self) -> None:
            """The rest of the body is there; the parser, which has not seen it, is succeeded by another."""
            self._filling = None
            self.parser = httptools.HttpRequestParser(self)
            self._change_to(self)
            super().on_message_complete()

        def _change_to(self, receiver: asyncio.BaseProtocol) -> None:
            """Make somebody else receive, which a transport heeds when it begins to read."""
            self.transport.pause_reading()
            self.transport.set_protocol(receiver)
            self.transport.resume_reading()

    return BodyProtocol


class _Filling(asyncio.BufferedProtocol):
    """Receives the rest of one body; whatever else happens is the connection's.

    Attributes:
        whole: the place of the whole body.
    """

    def __init__(self, length: int, connection: Any) -> None:
        self.whole = bytearray(length)
        self._rest = memoryview(self.whole)
        self._connection = connection

    def begin_with(self, piece: bytes) -> None:
        """Put the first bytes in their place."""
        self._rest[: len(piece)] = piece
        self._rest = self._rest[len(piece) :]

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """An answer given before the body was read fills the transport."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """It is sent."""
        self._connection.resume_writing()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._rest

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came."""
        self._rest = self._rest[nbytes:]
        if not self._rest:
            self._connection.filled()
