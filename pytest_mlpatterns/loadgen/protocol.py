"""What a connection needs to know of the protocol that it carries: requests as bytes, answers out of bytes.

One object for every socket, with at most one request at a time. It must not know sockets, clocks or what is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bytes", "ClientProtocol"]

Bytes = bytes | memoryview


class ClientProtocol(Protocol):
    """Both sides of one protocol, as its client.

    Attributes:
        duplex: whether the protocol sends of itself while a request is still being sent.
        used_up: whether the connection cannot carry another request.
        outbox: what the protocol wants sent besides requests; whoever sends it empties it.
    """

    duplex: bool
    used_up: bool
    outbox: list[Bytes]

    def opening(self) -> bytes:
        """What is sent before the first request."""
        ...

    def ask(self, request: int) -> bytes | Sequence[Bytes]:
        """A request, by the index of its message."""
        ...

    def take(self, data: bytes) -> int:
        """Bytes of the peer's while a request is under way: its outcome, or 0 while the answer is not complete."""
        ...

    def take_idle(self, data: bytes) -> bool:
        """Bytes of the peer's while none is: whether the connection can still be used."""
        ...

    def end(self) -> int:
        """The peer closed while a request is under way: its outcome, or 0 where the answer is lost."""
        ...

    def body(self) -> bytes:
        """The answer's body, once there is an outcome, where bodies are kept."""
        ...

    def head(self) -> bytes:
        """What came with the answer: in HTTP/1.1 its status and headers."""
        ...
