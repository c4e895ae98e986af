"""Body and headers of a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Body", "Headers", "WireError", "headers_of", "items_of"]

_LONGEST_RANGE = 2**22

Headers = Mapping[str, str]
"""Headers of a message, by name in lower case."""


class WireError(ValueError):
    """Malformed bytes, or values that the format cannot encode."""


class Body(NamedTuple):  # one for each response, in half the time of a frozen dataclass
    """A body in parts, and its headers (names in lower case) without ``content-length``."""

    parts: tuple[bytes | memoryview, ...]
    headers: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Length of all parts, in bytes."""
        return len(self.parts[0]) if len(self.parts) == 1 else sum(map(len, self.parts))

    def joined(self) -> bytes:
        """All parts as one ``bytes``."""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], bytes) else b"".join(self.parts)


def items_of(values: set[Any] | frozenset[Any] | range) -> list[Any]:
    """The items of a set or range, for formats that know lists alone.

    Raises:
        WireError: a range that is longer than a request may be.
    """
    if isinstance(values, range) and values[_LONGEST_RANGE:]:
        raise WireError(f"{values} has more than {_LONGEST_RANGE:,} numbers")
    return list(values)


def headers_of(head: bytes) -> dict[str, str]:
    """The headers in the head of an HTTP/1.1 message."""
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name}
