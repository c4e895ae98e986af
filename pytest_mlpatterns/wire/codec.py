"""What encodes and decodes under a wire, compression included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pytest_mlpatterns.wire.body import Body, WireError
from pytest_mlpatterns.wire.kserve_v1 import JSON_V1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.wire.body import Headers
    from pytest_mlpatterns.wire.wire import Wire

__all__ = ["Codec", "codec_of", "decode_answer", "encode_request", "pack", "unpack"]

_MAX_ANSWER_BYTES = 2**31
_LENGTH_BYTES = 4


class Codec(Protocol):
    """One way to write inputs and outputs. Every method raises :class:`WireError` for what it cannot write or read."""

    def path(self, model: str) -> str:
        """The path at which our own servers take requests of this kind for a model."""
        ...

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        """The body of a request."""
        ...

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """The inputs in a request, at least one."""
        ...

    def encode_outputs(self, outputs: Any) -> Body:
        """The body of an answer; ``outputs`` is a list, an array, or anything that ``list`` takes."""
        ...

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> Sequence[Any]:
        """The outputs in an answer."""
        ...


def codec_of(wire: Wire, path: str = "") -> Codec:
    """What encodes under a wire for a path; without one, for our own servers."""
    if wire.codec == "json" and not path.partition("?")[0].endswith("/infer"):
        return JSON_V1
    if wire.codec == "msgpack":
        from pytest_mlpatterns.wire.msgpack_v1 import MSGPACK_V1

        return MSGPACK_V1
    if wire.codec == "protobuf":
        from pytest_mlpatterns.wire.open_inference_grpc import PROTOBUF

        return PROTOBUF
    from pytest_mlpatterns.wire.open_inference import BINARY_V2, JSON_V2

    return JSON_V2 if wire.codec == "json" else BINARY_V2


def encode_request(wire: Wire, inputs: Sequence[Any], path: str = "") -> Body:
    """A request's body under a wire.

    Raises:
        WireError: the wire cannot hold an input.
    """
    body = codec_of(wire, path).encode_inputs(inputs)
    if wire.compression is None:
        return body
    from pytest_mlpatterns.wire.compression import compressed

    whole = compressed(body, wire.compression)
    return Body(whole.parts, (*whole.headers, ("accept-encoding", wire.compression)))


def decode_answer(wire: Wire, body: bytes, headers: Headers, path: str = "") -> Sequence[Any]:
    """The outputs in an answer.

    Args:
        wire: what the request was made under.
        body: as it came, compressed or not.
        headers: those of the answer.
        path: where the request went to; empty for our own servers.

    Raises:
        WireError: it is no such answer.
    """
    if (coding := headers.get("content-encoding", "identity")) != "identity":
        from pytest_mlpatterns.wire.compression import decompressed

        body = decompressed(body, coding, _MAX_ANSWER_BYTES)
    return codec_of(wire, path).decode_outputs(body, headers)


def pack(body: Body) -> bytes:
    """A body that says itself what its headers say, for places that keep no headers."""
    length = dict(body.headers).get("inference-header-content-length", "0")
    return b"".join([int(length).to_bytes(_LENGTH_BYTES, "little"), *body.parts])


def unpack(packed: bytes) -> tuple[memoryview, dict[str, str]]:
    """The inverse of :func:`pack`: body and headers.

    Raises:
        WireError: it is too short.
    """
    if len(packed) < _LENGTH_BYTES:
        raise WireError(f"{len(packed)} bytes, expected at least {_LENGTH_BYTES}")
    length = int.from_bytes(packed[:_LENGTH_BYTES], "little")
    body = memoryview(packed)[_LENGTH_BYTES:]
    return body, {"inference-header-content-length": str(length)} if length else {}
