"""Wire formats: encode inputs and outputs as bytes, and decode them.

:class:`Wire` is the value that users name; :func:`codec_of` returns its codec. Clients and servers use the same codecs.
"""

from pytest_mlpatterns.wire.body import Body, Headers, NotFiniteError, WireError, headers_of
from pytest_mlpatterns.wire.codec import Codec, codec_of, decode_answer, encode_request, pack, path_of, unpack
from pytest_mlpatterns.wire.wire import GRPC, REST_JSON, Wire

__all__ = [
    "GRPC",
    "REST_JSON",
    "Body",
    "Codec",
    "Headers",
    "NotFiniteError",
    "Wire",
    "WireError",
    "codec_of",
    "decode_answer",
    "encode_request",
    "headers_of",
    "pack",
    "path_of",
    "unpack",
]
