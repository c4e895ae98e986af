"""The codec of a wire: encodes requests and decodes responses, including compression."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from pytest_mlpatterns.wire.body import Body, Headers, WireError
from pytest_mlpatterns.wire.kserve_v1 import JSON_V1, chunks_in
from pytest_mlpatterns.wire.stream_events import promises_end
from pytest_mlpatterns.wire.stream_lines import lines_in
from pytest_mlpatterns.wire.stream_request import AUTO, StreamForm, StreamSetting, form_in
from pytest_mlpatterns.wire.wire import Wire

_MAX_ANSWER_BYTES = 2**31  # Largest decompressed answer: the largest message of protobuf, too
_LENGTH_BYTES = 4  # Bytes of the length of the body in a packed message


class Codec(Protocol):
    """An encoding of inputs and outputs. Each method raises :class:`WireError` for malformed or unsupported values."""

    def path(self, model: str) -> str:
        """Path of a model's inference requests on a server of this package."""
        ...

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        """Encode a request."""
        ...

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode the inputs of a request; at least one."""
        ...

    def encode_outputs(self, outputs: Any) -> Body:
        """Encode a response; ``outputs`` is an array or an iterable."""
        ...

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> Sequence[Any]:
        """Decode the outputs of a response."""
        ...


def codec_of(wire: Wire, path: str = "") -> Codec:
    """The codec of a wire.

    ``path``: path of the request, which selects V1 or V2 JSON, and chats of the wire openai; empty for servers of this
    package.
    """
    if wire.protocol == "openai":
        from pytest_mlpatterns.wire.openai import OpenAICodec

        return OpenAICodec(path)
    if wire.protocol == "invocations":
        from pytest_mlpatterns.wire.invocations import INVOCATIONS_CSV, INVOCATIONS_JSON

        return INVOCATIONS_CSV if wire.codec == "csv" else INVOCATIONS_JSON
    if wire.codec == "json" and not path.partition("?")[0].endswith("/infer"):
        return JSON_V1
    if wire.codec == "msgpack":
        from pytest_mlpatterns.wire.msgpack_v1 import MSGPACK_V1

        return MSGPACK_V1
    if wire.codec == "protobuf":
        from pytest_mlpatterns.wire.open_inference_grpc import PROTOBUF

        return PROTOBUF
    from pytest_mlpatterns.wire.open_inference import BINARY_V2, JSON_V2

    found = {"json": JSON_V2, "pickle": wire}  # a client of the user's own is its codec, too
    return cast("Codec", found.get(wire.codec, BINARY_V2))


def path_of(wire: Wire, value: object, path: str) -> str:
    """The path of the request for an input: the target's, empty for our servers, unless the wire openai decides it."""
    if wire.protocol != "openai":
        return path
    from pytest_mlpatterns.wire.openai import openai_path

    return openai_path(value, path)


def encode_request(wire: Wire, inputs: Sequence[Any], path: str = "") -> Body:
    """Encode and compress a request.

    ``path``: path of the request; empty for servers of this package. Raises WireError: the wire cannot encode an input.
    """
    body = codec_of(wire, path).encode_inputs(inputs)
    if wire.compression is None:
        return body
    from pytest_mlpatterns.wire.compression import compressed

    whole = compressed(body, wire.compression)
    return Body(whole.parts, (*whole.headers, ("accept-encoding", wire.compression)))


def decode_answer(
    wire: Wire, body: bytes, headers: Headers, *, path: str = "", stream: StreamSetting = AUTO
) -> Sequence[Any]:
    """Decompress and decode a response; the output in a stream is the list of its chunks.

    Of a stream in chunks of HTTP, whose borders the body does not show, it is the whole text, or bytes that are none.

    ``path``: path of the request; empty for servers of this package. Raises WireError: the response is malformed.
    """
    body = plain_answer(body, headers)
    form = None if promises_end(wire) else form_in(headers, wire, stream)
    if form is StreamForm.EVENTS:
        return [chunks_in(body)]
    if form is StreamForm.LINES:
        return [lines_in(body)]
    if form is StreamForm.CHUNKS:
        return [_text_or_bytes(body)]
    return codec_of(wire, path).decode_outputs(body, headers)


def plain_answer(body: bytes, headers: Headers) -> bytes:
    """The body of a response, decompressed. Raises WireError: it is not in the coding that its head names."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return body
    from pytest_mlpatterns.wire.compression import decompressed

    return decompressed(body, coding, _MAX_ANSWER_BYTES)


def _text_or_bytes(body: bytes) -> str | bytes:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def pack(body: Body) -> bytes:
    """Encode a body together with the header that its decoder needs, for a storage without headers."""
    length = dict(body.headers).get("inference-header-content-length", "0")
    return b"".join([int(length).to_bytes(_LENGTH_BYTES, "little"), *body.parts])


def unpack(packed: bytes) -> tuple[memoryview, dict[str, str]]:
    """Decode the body and headers that :func:`pack` encoded."""
    if len(packed) < _LENGTH_BYTES:
        raise WireError(f"{len(packed)} bytes, expected at least {_LENGTH_BYTES}")
    length = int.from_bytes(packed[:_LENGTH_BYTES], "little")
    body = memoryview(packed)[_LENGTH_BYTES:]
    return body, {"inference-header-content-length": str(length)} if length else {}
