"""One inference call over HTTP: decodes the request, encodes the response.

The path (V1, V2, invocations) and the ``Content-Type`` determine the format. The response has the same format,
compressed if the client accepts that. The cost is counted under the names of
:mod:`pytest_mlpatterns.records.telemetry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.patterns.request_clock import WIRE, charge
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.wire import Body, Codec, WireError
from pytest_mlpatterns.wire.invocations import INVOCATIONS_JSON
from pytest_mlpatterns.wire.kserve_v1 import JSON_V1
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from pytest_mlpatterns.wire.open_inference import InferRequest

_MSGPACK = (b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack")
"""Media types of MessagePack, the registered one last."""
_JSON, _INVOCATION = "json", "invocations"
_JSON_TAKES = "; JSON takes numbers, text, lists, dicts and arrays: convert it; wire='rest+msgpack' takes bytes too"
STREAMED = (_JSON, _INVOCATION)  # Formats whose response may be a stream


class WireTally(Struct):
    """Counters of encoding and decoding in one process, under the names of the layer ``wire``."""

    position: int
    requests: int = 0
    decode_ns: int = 0
    encode_ns: int = 0
    received_bytes: int = 0
    received_plain_bytes: int = 0
    sent_bytes: int = 0
    sent_plain_bytes: int = 0

    def add_plain(self, received: int, sent: int, decode_ns: int, *, encode_ns: int) -> None:
        """Count one answered request without compression; sizes in bytes."""
        self.requests += 1
        self.received_bytes += received
        self.received_plain_bytes += received
        self.sent_bytes += sent
        self.sent_plain_bytes += sent
        self.decode_ns += decode_ns
        self.encode_ns += encode_ns

    def note_read(self, size: int, started_ns: int) -> None:
        """Count a request of this size without compression that is decoded now, and charge it the time."""
        self.add_plain(size, 0, took_ns := perf_counter_ns() - started_ns, encode_ns=0)
        charge(WIRE, took_ns)

    def note_sent(self, sent: int, plain: int, started_ns: int) -> None:
        """Count a response, or a piece of one, that is encoded now, and charge its request the time; sizes in bytes."""
        self.sent_bytes += sent
        self.sent_plain_bytes += plain
        took_ns = perf_counter_ns() - started_ns
        self.encode_ns += took_ns
        charge(WIRE, took_ns)

    def snapshot(self) -> LayerStats:
        """Everything counted so far."""
        counters = structs.asdict(self)
        return LayerStats(counters.pop("position"), "wire", counters)


def is_plain_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a V1 request is JSON, and neither request nor response is compressed."""
    return (
        b"accept-encoding" not in headers
        and b"content-encoding" not in headers
        and headers.get(b"content-type") not in _MSGPACK
    )


@dataclass(slots=True)
class InferenceCall:
    """A decoded request, and how its response is encoded."""

    kind: str
    inputs: list[Any]
    encode: Callable[[Any], Body]
    tally: WireTally
    coding: str | None = None  # content coding of the response; None: no compression
    request: InferRequest | None = None
    decode: Callable[[], list[Any]] | None = None  # decodes the inputs again; None: there are none

    def answer(self, outputs: Sequence[Any]) -> Body:
        """The body of the response."""
        started_ns = perf_counter_ns()
        try:
            body = self.encode(outputs)
        except WireError as error:
            raise RequestError(
                500, f"the model returned outputs that cannot be sent: {self._why(outputs, error)}"
            ) from error
        size = plain = body.size
        if self.coding is not None:
            from pytest_mlpatterns.wire.compression import MIN_BYTES, compressed

            if size >= MIN_BYTES:
                body = compressed(body, self.coding)
                size = body.size
        self.tally.note_sent(size, plain, started_ns)
        return body

    def _why(self, outputs: Sequence[Any], error: WireError) -> str:
        """Why the format cannot encode the outputs, with the number of the first one that it cannot, and what to do."""
        if "not JSON serializable" not in str(error):
            return str(error)
        for number, output in enumerate(outputs):
            try:
                self.encode([output])
            except WireError as first:
                return f"{f'output {number} of {len(outputs)}: ' * (len(outputs) > 1)}{first}{_JSON_TAKES}"
        return f"{error}{_JSON_TAKES}"


def read_inference_call(
    body: bytes | memoryview,
    headers: Mapping[bytes, bytes],
    tally: WireTally,
    *,
    max_bytes: int,
    answer_v2: Callable[[InferRequest, Any], Body] | None,
    is_invocation: bool = False,
) -> InferenceCall:
    """Decode a request.

    ``answer_v2``: encodes the response to an Open Inference request; None: the request is V1 or an invocation.
    """
    started_ns = perf_counter_ns()
    tally.received_bytes += len(body)
    try:
        if b"content-encoding" in headers:
            body = _decompressed(body, headers[b"content-encoding"], max_bytes)
        tally.received_plain_bytes += len(body)
        if answer_v2 is not None:
            call = _read_v2(body, headers, tally, answer_v2=answer_v2)
        elif is_invocation:
            call = _read_invocation(body, headers.get(b"content-type", b""), tally)
        elif headers.get(b"content-type") in _MSGPACK:
            call = _read_v1("msgpack", _codecs()["msgpack"], body, tally=tally)
        else:
            call = _read_v1(_JSON, JSON_V1, body, tally=tally)
    except WireError as error:
        raise RequestError(400, str(error)) from error
    if b"accept-encoding" in headers:
        call.coding = _coding(headers[b"accept-encoding"])
    tally.requests += 1
    took_ns = perf_counter_ns() - started_ns
    tally.decode_ns += took_ns
    charge(WIRE, took_ns)
    return call


def stored_inference_call(kind: str, coding: str | None, tally: WireTally) -> InferenceCall:
    """The encoding of a response that is fetched later."""
    codec = JSON_V1 if kind == _JSON else _codecs().get(kind)
    if codec is None:
        raise RequestError(404, f"format {kind!r} is unknown, expected that of the Location header")
    return InferenceCall(kind, [], codec.encode_outputs, tally, _coding((coding or "").encode()))


def _read_v1(kind: str, codec: Codec, body: bytes | memoryview, *, tally: WireTally) -> InferenceCall:
    decode = partial(codec.decode_inputs, body, {})
    return InferenceCall(kind, decode(), codec.encode_outputs, tally, decode=decode)


def _read_invocation(body: bytes | memoryview, content_type: bytes, tally: WireTally) -> InferenceCall:
    decode = partial(INVOCATIONS_JSON.decode_inputs, body, {"content-type": content_type.decode("latin-1")})
    return InferenceCall(_INVOCATION, decode(), INVOCATIONS_JSON.encode_outputs, tally, decode=decode)


def _read_v2(
    body: bytes | memoryview,
    headers: Mapping[bytes, bytes],
    tally: WireTally,
    *,
    answer_v2: Callable[[InferRequest, Any], Body],
) -> InferenceCall:
    from pytest_mlpatterns.wire.open_inference import HEAD_LENGTH, read_request

    length = headers.get(HEAD_LENGTH.encode())
    given = {} if length is None else {HEAD_LENGTH: length.decode("latin-1")}
    request = read_request(body, given)
    return InferenceCall(
        "binary" if request.binary else "v2",
        request.inputs,
        partial(answer_v2, request),
        tally,
        request=request,
        decode=lambda: read_request(body, given).inputs,
    )


def _decompressed(body: bytes | memoryview, header: bytes, max_bytes: int) -> bytes | memoryview:
    from pytest_mlpatterns.wire.compression import CODINGS, TooLargeError, decompressed

    coding = header.decode("latin-1").strip().lower()
    if coding == "identity":
        return body
    if coding not in CODINGS:
        raise RequestError(415, f"Content-Encoding {shown(coding)}, expected one of {', '.join(CODINGS)}")
    try:
        return decompressed(body, coding, max_bytes)
    except TooLargeError as error:
        raise RequestError(413, str(error)) from error


def _coding(accept_encoding: bytes) -> str | None:
    from pytest_mlpatterns.wire.compression import accepted_coding

    return accepted_coding(accept_encoding.decode("latin-1")) if accept_encoding else None


def _codecs() -> dict[str, Codec]:
    from pytest_mlpatterns.wire.msgpack_v1 import MSGPACK_V1
    from pytest_mlpatterns.wire.open_inference import BINARY_V2, JSON_V2

    return {"msgpack": MSGPACK_V1, "v2": JSON_V2, "binary": BINARY_V2, _INVOCATION: INVOCATIONS_JSON}
