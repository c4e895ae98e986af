"""Content codings of HTTP: gzip, zstd and br, and the choice from ``Accept-Encoding``.

The levels are fast enough for responses that are compressed on the fly. The size of decompressed data is limited, so a
small body cannot expand without bound.
"""

import contextlib
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from pytest_mlpatterns.wire.body import Body, WireError
from pytest_mlpatterns.wording import shown

CODINGS = ("zstd", "br", "gzip")  # Known codings of servers, in order of preference
STREAMED = ("gzip", "deflate")  # Codings of streams, which are unpacked as they come
MIN_BYTES = 256  # Shortest response that is compressed
_LEVELS = {"gzip": 6, "zstd": 3, "br": 4}
"""Levels of compression: the defaults of gzip and zstd, and for br one of a similar speed."""
_GZIP = 16 + zlib.MAX_WBITS  # Asks zlib for the header of gzip
_ZSTD_PART = 1 << 10  # Bytes that are decompressed at a time; they become at most 32 MiB


class TooLargeError(WireError):
    """The decompressed body is longer than allowed."""


def compressed(body: Body, coding: str) -> Body:
    """Compress a body and add its ``content-encoding`` header."""
    data = _COMPRESS[coding](body.parts)
    return Body((data,), (*body.headers, ("content-encoding", coding)))


def decompressed(data: bytes | memoryview, coding: str, max_bytes: int) -> bytes:
    """Decompress a body."""
    decompress = _DECOMPRESS.get(coding)
    if decompress is None:
        raise WireError(f"Content-Encoding {shown(coding)}, expected one of {', '.join(_DECOMPRESS)}")
    try:
        found = decompress(data, max_bytes + 1)
    except WireError:
        raise
    except Exception as error:  # each library has its own exceptions
        raise WireError(f"the body is not {coding}: {error or type(error).__name__}") from None
    if len(found) > max_bytes:
        raise TooLargeError(f"the body is over the limit of {max_bytes} bytes when it is decompressed")
    return found


@lru_cache(maxsize=256)
def accepted_coding(accept_encoding: str) -> str | None:
    """The known and installed coding that a client prefers; None if it accepts none of them.

    Among equal weights, the first in :data:`CODINGS` wins.
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


class UnpackedReader:
    """Reads a compressed stream: unpacks the pieces as they come for another reader, and has its attributes."""

    def __init__(self, reader: Any, coding: str) -> None:
        self._reader, self._coding = reader, coding
        self._unpacker: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def feed(self, data: bytes) -> int:
        """Take a piece of the stream. Returns the number of chunks that it completes."""
        found = 0
        try:
            while data:
                self._unpacker = self._unpacker or zlib.decompressobj(_bits_of(self._coding, data))
                found += self._reader.feed(self._unpacker.decompress(data))
                data = self._unpacker.unused_data
                if self._unpacker.eof:  # some servers compress each piece by itself
                    self._unpacker = None
        except zlib.error as error:
            self.malformed: bool = True
            self.why: str = f"the stream is not {self._coding}: {error}"
        return found


def begin_of(data: bytes, coding: str) -> bytes:
    """The begin of a compressed body, unpacked; empty if it is not in a coding of :data:`STREAMED`."""
    with contextlib.suppress(zlib.error):
        if coding in STREAMED:
            return zlib.decompressobj(_bits_of(coding, data)).decompress(data, len(data))
    return b""


def _bits_of(coding: str, data: bytes | memoryview) -> int:
    """How zlib is asked for a coding; servers send ``deflate`` with its header, which is right, or without one."""
    if coding == "gzip":
        return _GZIP
    is_raw = len(data) > 1 and (data[0] & 15 != zlib.DEFLATED or int.from_bytes(data[:2], "big") % 31 > 0)
    return -zlib.MAX_WBITS if is_raw else zlib.MAX_WBITS


def _unzip(data: bytes | memoryview, most: int, coding: str = "gzip") -> bytes:
    found, size = [], 0
    while data:
        unpacker = zlib.decompressobj(_bits_of(coding, data))
        found.append(unpacker.decompress(data, most - size))
        size += len(found[-1])
        if size >= most:
            break
        if not unpacker.eof:
            raise WireError(f"the body is not {coding}: it ends too early")
        data = unpacker.unused_data
    return b"".join(found)


def _unzstd(data: bytes | memoryview, most: int) -> bytes:
    import zstandard

    content = zstandard.get_frame_parameters(data).content_size
    if content < most:
        with contextlib.suppress(zstandard.ZstdError):  # several frames, or malformed data
            return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    found, size, rest = [], 0, memoryview(data)
    while rest:
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        while rest and not unpacker.eof and size < most:
            found.append(unpacker.decompress(rest[:_ZSTD_PART]))
            size += len(found[-1])
            rest = rest[_ZSTD_PART:]
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
_DECOMPRESS: dict[str, Callable[[Any, int], bytes]] = {
    "gzip": _unzip,
    "deflate": lambda data, most: _unzip(data, most, "deflate"),
    "zstd": _unzstd,
    "br": _unbr,
}
