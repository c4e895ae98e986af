"""The body of a message on its way, and the headers that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Body", "Headers", "WireError", "headers_of"]

Headers = Mapping[str, str]
"""Headers of a message by their names in lower case."""


class WireError(ValueError):
    """Bytes that are not the message they should be, or values that the message cannot hold."""


class Body(NamedTuple):  # made for every answer, in half the time of a frozen dataclass
    """The pieces of a body, in their order, and its headers, names in lower case; the length is not among them."""

    parts: tuple[bytes | memoryview, ...]
    headers: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return len(self.parts[0]) if len(self.parts) == 1 else sum(map(len, self.parts))

    def joined(self) -> bytes:
        """All pieces as one."""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], bytes) else b"".join(self.parts)


def headers_of(head: bytes) -> dict[str, str]:
    """The headers in the head of an HTTP/1.1 message."""
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name}
