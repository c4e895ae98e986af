"""Header blocks of HTTP/2 for calls of one gRPC method: written once before the load, and read by their bytes.

Blocks of the peer's are read without a table: our side tells it to keep none, so that equal bytes mean the same
wherever they come, and all but the first of a kind are a look-up. It must not know frames.
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
"""How large a table a peer keeps that says nothing else."""
_KNOWN_BLOCKS = 1024


class HeaderError(ValueError):
    """A block that is no header block, or lacks what an answer has."""


@dataclass(frozen=True, slots=True)
class RequestBlocks:
    """The headers of a call: for a connection's first request, for those after it, and for a peer with a small table.

    The first fills the peer's table, the later ones point into it, as every client does.
    """

    first: bytes
    later: bytes
    without_table: bytes

    @classmethod
    def of(cls, address: tuple[str, int], path: str) -> RequestBlocks:
        """The blocks of a call of a method.

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
    """What matters in a block: the HTTP status, the status of gRPC and its message, None where they are absent."""

    http_status: int | None
    grpc_status: int | None
    grpc_message: str


class HeaderReader:
    """Reads the blocks of any number of peers that keep no table."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """What a block says.

        Raises:
            HeaderError: it cannot be read, or a status in it is no number.
        """
        if (known := self._known.get(block)) is not None:
            return known
        try:
            found = _headers_of(self._decoder.decode(block, raw=True))
        except (hpack.HPACKError, ValueError) as error:
            raise HeaderError(f"no header block: {error}") from error
        if len(self._known) >= _KNOWN_BLOCKS:  # a peer that dates its answers
            self._known.clear()
        self._known[block] = found
        return found


def _headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    found = dict(pairs)
    http, grpc = found.get(b":status"), found.get(b"grpc-status")
    message = unquote_to_bytes(found.get(b"grpc-message", b"")).decode(errors="replace")
    return Headers(None if http is None else int(http), None if grpc is None else int(grpc), message)
