"""What arrives and leaves in the wire formats: bodies of every codec, heads, codings, and values to encode."""

import functools
import gzip
import random
from collections.abc import Callable
from typing import Any

import brotli
import numpy as np
import zstandard

from pytest_mlpatterns.patterns.layer import RequestError
from pytest_mlpatterns.serving.http.inference_call import WireTally, read_inference_call
from pytest_mlpatterns.wire import GRPC, REST_JSON, Wire, WireError, codec_of, headers_of, pack, unpack
from pytest_mlpatterns.wire.compression import accepted_coding, decompressed
from pytest_mlpatterns.wire.grpc_call import model_in
from pytest_mlpatterns.wire.kserve_v1 import decode_error, encode_error
from pytest_mlpatterns.wire.open_inference import encode_answer, read_request
from pytest_mlpatterns.wire.open_inference_grpc import read_call
from support.fuzz import Area
from support.fuzz.hostile import array, deep_list, number, octets, text

CODECS = {
    "json-v1": codec_of(REST_JSON),
    "json-v2": codec_of(REST_JSON, "/v2/models/m/infer"),
    "binary": codec_of(Wire("rest", "binary")),
    "msgpack": codec_of(Wire("rest", "msgpack")),
    "protobuf": codec_of(GRPC),
    "invocations": codec_of(Wire("invocations")),
    "csv": codec_of(Wire("invocations", "csv")),
}
SAMPLES: tuple[list[Any], ...] = (
    [[5.1, 3.5], [1.0, 2.0]],
    ["text", "ünïcode"],
    [{"a": [1, 2], "b": [0.5]}, {"a": [3, 4], "b": [1.5]}],
    [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((2, 3), np.float32)],
    [1, 2, 3],
    [np.array([[True, False]])],
    [[1, 2], [3]],
    [b"\x00\x01"],
)
HEADS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ninference-header-content-length: 60\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
)
HEAD_LENGTH = "inference-header-content-length"
_PLAIN = b'{"instances": [[5.1, 3.5]]}' * 20
_CODED = {
    "gzip": gzip.compress(_PLAIN),
    "zstd": zstandard.ZstdCompressor().compress(_PLAIN),
    "br": brotli.compress(_PLAIN),
}
_ACCEPTED = ("gzip, br;q=0.5", "zstd;q=1.0, *;q=0", "identity", "br;level=3;q=0.2")


@functools.cache
def bodies_of(name: str) -> tuple[tuple[bytes, dict[str, str]], ...]:
    """Good requests and responses of a codec."""
    found = []
    for sample in SAMPLES:
        for encode in (CODECS[name].encode_inputs, CODECS[name].encode_outputs):
            try:
                body = encode(sample)
            except WireError:  # not every codec takes bytes
                continue
            found.append((body.joined(), dict(body.headers)))
    return tuple(found)


def a_body(draw: random.Random, name: str) -> tuple[bytes, dict[str, str]]:
    body, headers = draw.choice(bodies_of(name))
    body = octets(draw, (body,))
    if HEAD_LENGTH in headers and draw.random() < 0.3:
        length = draw.choice((str(len(body)), "-1", "0", "x", "9" * 30, str(draw.randrange(200)), "٣", ""))
        headers = {**headers, HEAD_LENGTH: length}
    return body, headers


def decode(name: str, case: tuple[bytes, dict[str, str]]) -> None:
    """Decode a body as a request and as a response; if one form is refused, the other is still tried."""
    body, headers = case
    codec = CODECS[name]
    readers: list[Callable[[], object]] = [
        lambda: codec.decode_inputs(body, headers),
        lambda: codec.decode_outputs(body, headers),
    ]
    if name == "binary":
        readers.append(lambda: read_request(body, headers))
    elif name == "protobuf":
        readers.append(lambda: read_call(body))
    refused = None
    for read in readers:
        try:
            repr(read())
        except WireError as error:
            refused = error
    if refused is not None:
        raise refused


def some_values(draw: random.Random) -> tuple[str, list[Any]]:
    """Values that a model may return, or a user may send."""
    return draw.choice(list(CODECS)), [_a_value(draw) for _ in range(draw.randrange(1, 4))]


def _a_value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if kind < 0.25:
        return number(draw)
    if kind < 0.45:
        return text(draw, ("text", "a\0"))
    if kind < 0.6:
        return array(draw)
    if kind < 0.75 and depth < 3:
        return [_a_value(draw, depth + 1) for _ in range(draw.randrange(3))]
    if kind < 0.9 and depth < 3:
        names = ("a", "b", "", "\ud800", 3, None, "x" * 300)
        return {draw.choice(names): _a_value(draw, depth + 1) for _ in range(draw.randrange(3))}
    return draw.choice((None, b"\0", {1, 2}, range(3), object(), deep_list(draw.choice((10, 300, 3000))), (1, "a")))


def encode(case: tuple[str, list[Any]]) -> None:
    name, values = case
    refused = None
    for method in (CODECS[name].encode_inputs, CODECS[name].encode_outputs):
        try:
            unpack(pack(method(values)))
        except WireError as error:
            refused = error
    if refused is not None:
        raise refused


def a_coded_body(draw: random.Random) -> tuple[str, bytes, int]:
    coding = draw.choice(list(_CODED))
    name = text(draw, (coding,)) if draw.random() < 0.05 else coding
    return name, octets(draw, (_CODED[coding],)), draw.choice((10, len(_PLAIN), 10**6))


def a_call(draw: random.Random) -> tuple[bytes, dict[bytes, bytes], str]:
    """A request to a server of this package, and which kind of path it has: V1, V2 or invocations."""
    body, headers = a_body(draw, draw.choice(("json-v1", "json-v2", "binary", "msgpack", "invocations", "csv")))
    head = {name.encode(): text.encode() for name, text in headers.items()}
    if draw.random() < 0.3:
        coding = draw.choice(list(_CODED))
        body = octets(draw, (_CODED[coding],)) if draw.random() < 0.5 else body
        head[b"content-encoding"] = octets(draw, (coding.encode(), b"identity"))
    if draw.random() < 0.3:
        head[b"accept-encoding"] = octets(draw, tuple(accepted.encode() for accepted in _ACCEPTED))
    return body, head, draw.choice(("v1", "v2", "invocations"))


def answer_call(case: tuple[bytes, dict[bytes, bytes], str]) -> None:
    """Decode it, and send its inputs back."""
    body, headers, kind = case
    call = read_inference_call(
        body,
        headers,
        WireTally(0),
        max_bytes=10**6,
        answer_v2=(lambda request, outputs: encode_answer(request, outputs, "m", rows_allowed=False))
        if kind == "v2"
        else None,
        is_invocation=kind == "invocations",
    )
    call.answer(call.inputs)
    if call.decode is not None:
        call.decode()


def read_small_things(case: tuple[str, bytes]) -> None:
    """Heads, accepted codings, errors and paths, which have a meaning whatever they hold."""
    words, body = case
    accepted_coding(words)
    headers_of(body)
    decode_error(body)
    decode_error(encode_error(words))
    model_in(words)
    unpack(body)


AREAS = (
    *(
        Area(
            f"decode-{name}",
            30_000,
            functools.partial(a_body, name=name),
            functools.partial(decode, name),
            (WireError,),
        )
        for name in CODECS
    ),
    Area("encode", 30_000, some_values, encode, (WireError,)),
    Area("calls", 10_000, a_call, answer_call, (RequestError,)),
    Area("codings", 15_000, a_coded_body, lambda case: decompressed(case[1], case[0], case[2]), (WireError,)),
    Area(
        "heads",
        15_000,
        lambda draw: (text(draw, (*_ACCEPTED, "/v2/models/m/infer")), octets(draw, HEADS)),
        read_small_things,
        (WireError,),
    ),
)
