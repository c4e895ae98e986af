"""HTTP/2 header blocks: requests encoded once before the load, responses decoded by their bytes.

Our side announces a header table of size zero, so equal bytes always mean equal headers, and every known block is a
dictionary look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import hpack

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DEFAULT_TABLE_BYTES", "HeaderError", "HeaderReader", "Headers", "RequestBlocks"]

DEFAULT_TABLE_BYTES = 4096
"""Default size of a peer's header table."""
_KNOWN_BLOCKS = 1024


class HeaderError(ValueError):
    """A malformed header block, or one without a status."""


@dataclass(frozen=True, slots=True)
class RequestBlocks:
    """Encoded headers of a call: for a connection's first request, for later ones, and for a peer with a small table.

    The first block fills the peer's table, and later blocks refer to it.
    """

    first: bytes
    later: bytes
    without_table: bytes

    @classmethod
    def of(cls, address: tuple[str, int], path: str) -> RequestBlocks:
        """Encode the headers of calls of one method.

        Args:
            address: host and port.
            path: ``/package.Service/Method``.
        """
        host, port = address
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "pytest-mlpatterns"),
        )
        encoder = hpack.Encoder()
        first, later = encoder.encode(headers), encoder.encode(headers)
        encoder = hpack.Encoder()
        encoder.header_table_size = 0
        return cls(first, later, encoder.encode(headers))


@dataclass(frozen=True, slots=True)
class Headers:
    """The HTTP status, the gRPC status and its message in a block; None if absent."""

    http_status: int | None
    grpc_status: int | None
    grpc_message: str


class HeaderReader:
    """Decodes header blocks of any number of peers, without a header table."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """Decode a block.

        Raises:
            HeaderError: the block is malformed, or a status in it is no number.
        """
        if (known := self._known.get(block)) is not None:
            return known
        try:
            found = _headers_of(self._decoder.decode(block, raw=True))
        except (hpack.HPACKError, ValueError) as error:
            raise HeaderError(f"malformed header block: {error}") from error
        if len(self._known) >= _KNOWN_BLOCKS:  # a peer with a date in its headers
            self._known.clear()
        self._known[block] = found
        return found


def _headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    found = dict(pairs)
    http, grpc = found.get(b":status"), found.get(b"grpc-status")
    message = unquote_to_bytes(found.get(b"grpc-message", b"")).decode(errors="replace")
    return Headers(None if http is None else int(http), None if grpc is None else int(grpc), message)
