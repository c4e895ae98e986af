"""Frames as a gRPC server sends them, put together by hand, so that tests can send any of them, right or wrong."""

import hpack

from pytest_mlpatterns.loadgen.http2_frames import ACK, END_HEADERS, END_STREAM, HEADER, PREFACE, SETTING, Frame, frame
from pytest_mlpatterns.wire.grpc_call import message_prefix


def block(*pairs: tuple[str, str]) -> bytes:
    """A header block of a peer that keeps no table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(pairs)


HEAD = block((":status", "200"), ("content-type", "application/grpc"))
FINE = block(("grpc-status", "0"))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(Frame.SETTINGS, 0, 0, payload=b"".join(SETTING.pack(*pair) for pair in pairs))


SERVER_SETTINGS = settings() + frame(Frame.SETTINGS, ACK, 0)


def message(text: bytes) -> bytes:
    return message_prefix(len(text)) + text


def headers(stream: int = 1, data: bytes = HEAD, flags: int = END_HEADERS) -> bytes:
    return frame(Frame.HEADERS, flags, stream, payload=data)


def trailers(stream: int = 1, data: bytes = FINE) -> bytes:
    return headers(stream, data, END_HEADERS | END_STREAM)


def answer(text: bytes = b"hello", stream: int = 1) -> bytes:
    """A whole answer."""
    return headers(stream) + frame(Frame.DATA, 0, stream, payload=message(text)) + trailers(stream)


def refusal(status: int, text: str = "", stream: int = 1) -> bytes:
    """An answer without a message."""
    said = block((":status", "200"), ("grpc-status", str(status)), ("grpc-message", text))
    return trailers(stream, said)


def frames_in(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each frame that a client sent."""
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        length_and_kind, flags, stream = HEADER.unpack_from(data)
        end = HEADER.size + (length_and_kind >> 8)
        assert len(data) >= end, "half a frame"
        found.append((length_and_kind & 0xFF, flags, stream, data[HEADER.size : end]))
        data = data[end:]
    return found
