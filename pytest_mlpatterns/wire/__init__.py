"""Wire formats: how inputs and outputs become bytes, and bytes become inputs and outputs.

:class:`Wire` is the value that users name; :func:`codec_of` gives what encodes and decodes under it. Both ends use
these modules, which must not know sockets, processes or models.
"""

from __future__ import annotations

from pytest_mlpatterns.wire.body import Body, Headers, WireError, headers_of
from pytest_mlpatterns.wire.codec import Codec, codec_of, decode_answer, encode_request, pack, unpack
from pytest_mlpatterns.wire.wire import GRPC, REST_JSON, Wire

__all__ = [
    "GRPC",
    "REST_JSON",
    "Body",
    "Codec",
    "Headers",
    "Wire",
    "WireError",
    "codec_of",
    "decode_answer",
    "encode_request",
    "headers_of",
    "pack",
    "unpack",
]
