"""Content codings of HTTP: gzip, zstd and br, and which of them a client takes.

Each at a level that suits answers made on the fly. What is decompressed is bounded, so that a few bytes cannot become
more than a request may have.
"""

from __future__ import annotations

import contextlib
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.wire.body import Body, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CODINGS", "MIN_BYTES", "TooLargeError", "accepted_coding", "compressed", "decompressed"]

CODINGS = ("zstd", "br", "gzip")
"""Those that are known, the one that is preferred first."""
MIN_BYTES = 256
"""A shorter answer is sent as it is."""
_LEVELS = {"gzip": 6, "zstd": 3, "br": 4}
_GZIP = 16 + zlib.MAX_WBITS
_ZSTD_PIECE = 1 << 10  # becomes at most 32 MiB


class TooLargeError(WireError):
    """Decompressed it is longer than allowed."""


def compressed(body: Body, coding: str) -> Body:
    """The body compressed, with the header that says so."""
    data = _COMPRESS[coding](body.parts)
    return Body((data,), (*body.headers, ("content-encoding", coding)))


def decompressed(data: bytes | memoryview, coding: str, max_bytes: int) -> bytes:
    """What was compressed.

    Args:
        data: as it came.
        coding: what ``Content-Encoding`` says.
        max_bytes: how long it may be.

    Raises:
        TooLargeError: it is longer.
        WireError: the coding is not known, or the data is not of it.
    """
    undo = _DECOMPRESS.get(coding)
    if undo is None:
        raise WireError(f"Content-Encoding {coding!r}, expected one of {', '.join(CODINGS)}")
    try:
        found = undo(data, max_bytes + 1)
    except WireError:
        raise
    except Exception as error:  # each library has its own
        raise WireError(f"the body is not {coding}: {error or type(error).__name__}") from None
    if len(found) > max_bytes:
        raise TooLargeError(f"the body is over the limit of {max_bytes} bytes when it is decompressed")
    return found


@lru_cache(maxsize=256)
def accepted_coding(accept_encoding: str) -> str | None:
    """The coding that a client prefers of those that are known and installed, None where it takes none of them.

    Of several with the same weight the first of :data:`CODINGS` is taken.

    Args:
        accept_encoding: the header, such as ``gzip, br;q=0.5``.
    """
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameter = part.partition(";")
        key, _, value = parameter.partition("=")
        try:
            weights[name.strip()] = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    found = [(weights.get(coding, weights.get("*", 0.0)), coding) for coding in CODINGS if _is_installed(coding)]
    best = max((weight for weight, _ in found), default=0.0)
    return next((coding for weight, coding in found if weight == best), None) if best > 0 else None


def _is_installed(coding: str) -> bool:
    import importlib.util

    package = {"zstd": "zstandard", "br": "brotli"}.get(coding)
    return package is None or importlib.util.find_spec(package) is not None


def _gzip(parts: Sequence[bytes | memoryview]) -> bytes:
    packer = zlib.compressobj(_LEVELS["gzip"], wbits=_GZIP)
    return b"".join([*map(packer.compress, parts), packer.flush()])


def _zstd(parts: Sequence[bytes | memoryview]) -> bytes:
    import zstandard

    packer = zstandard.ZstdCompressor(_LEVELS["zstd"]).compressobj(size=sum(map(len, parts)))
    return b"".join([*map(packer.compress, parts), packer.flush()])


def _br(parts: Sequence[bytes | memoryview]) -> bytes:
    import brotli

    packer = brotli.Compressor(quality=_LEVELS["br"])
    return b"".join([*(packer.process(part) for part in parts), packer.finish()])


def _gunzip(data: bytes | memoryview, most: int) -> bytes:
    found, size = [], 0
    while data:
        unpacker = zlib.decompressobj(_GZIP)
        found.append(unpacker.decompress(data, most - size))
        size += len(found[-1])
        if size >= most:
            break
        if not unpacker.eof:
            raise WireError("the body is not gzip: it ends too early")
        data = unpacker.unused_data
    return b"".join(found)


def _unzstd(data: bytes | memoryview, most: int) -> bytes:
    import zstandard

    content = zstandard.get_frame_parameters(data).content_size
    if content < most:
        with contextlib.suppress(zstandard.ZstdError):  # where it is more than one frame, or damaged
            return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    found, size, rest = [], 0, memoryview(data)
    while rest:
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        while rest and not unpacker.eof and size < most:
            found.append(unpacker.decompress(rest[:_ZSTD_PIECE]))
            size += len(found[-1])
            rest = rest[_ZSTD_PIECE:]
        if size >= most:
            break
        if not unpacker.eof:
            raise WireError("the body is not zstd: it ends too early")
        rest = memoryview(unpacker.unused_data + bytes(rest))
    return b"".join(found)[:most]


def _unbr(data: bytes | memoryview, most: int) -> bytes:
    import brotli

    unpacker = brotli.Decompressor()
    found = [unpacker.process(bytes(data), output_buffer_limit=most)]
    size = len(found[0])
    while size < most and not unpacker.is_finished():
        found.append(unpacker.process(b"", output_buffer_limit=most - size))
        if not found[-1]:
            raise WireError("the body is not br: it ends too early")
        size += len(found[-1])
    return b"".join(found)


_COMPRESS: dict[str, Callable[[Any], bytes]] = {"gzip": _gzip, "zstd": _zstd, "br": _br}
_DECOMPRESS: dict[str, Callable[[Any, int], bytes]] = {"gzip": _gunzip, "zstd": _unzstd, "br": _unbr}
