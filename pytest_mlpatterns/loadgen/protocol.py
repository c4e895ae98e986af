"""Client protocols without I/O: bytes of requests out, bytes of responses in.

One object per connection, with at most one request in flight. It opens no socket and reads no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bytes", "ClientProtocol"]

Bytes = bytes | memoryview


class ClientProtocol(Protocol):
    """The client side of one protocol on one connection.

    Attributes:
        duplex: whether the protocol may send control data while a request is still being sent.
        used_up: whether the connection cannot carry another request.
        outbox: bytes to send besides requests; the connection sends and clears them.
    """

    duplex: bool
    used_up: bool
    outbox: list[Bytes]

    def opening(self) -> bytes:
        """Bytes to send before the first request."""
        ...

    def ask(self, request: int) -> bytes | Sequence[Bytes]:
        """Bytes of a request, by the index of its message."""
        ...

    def take(self, data: bytes) -> int:
        """Take received bytes while a request is in flight. Returns its outcome, or 0 if the response is incomplete."""
        ...

    def take_idle(self, data: bytes) -> bool:
        """Take received bytes while no request is in flight. Returns whether the connection is still usable."""
        ...

    def end(self) -> int:
        """The peer closed while a request was in flight. Returns its outcome, or 0 if the response is lost."""
        ...

    def body(self) -> bytes:
        """The response's body, after its outcome, if bodies are kept."""
        ...

    def head(self) -> bytes:
        """The response's head: in HTTP/1.1 its status line and headers."""
        ...
