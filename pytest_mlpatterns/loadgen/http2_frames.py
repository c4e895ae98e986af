"""The frames of HTTP/2, and how much of a message the peer takes: its windows, and the size of its frames.

Pure; it must not know sockets, headers or what a call is.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.protocol import Bytes

__all__ = [
    "ACK",
    "DEFAULT_WINDOW",
    "END_HEADERS",
    "END_STREAM",
    "HEADER",
    "MAX_WINDOW",
    "PADDED",
    "PREFACE",
    "PRIORITY",
    "SETTING",
    "BrokenProtocolError",
    "Frame",
    "Outgoing",
    "Setting",
    "frame",
    "unpadded",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = struct.Struct(">IBI")
"""Of a frame: length and type together, flags, stream."""
SETTING = struct.Struct(">HI")
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
_DEFAULT_FRAME = 16_384
_LARGEST_FRAME = 2**24 - 1


class Frame:
    """Types of frames."""

    DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)


class Setting:
    """Names of settings."""

    TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = range(1, 6)


class BrokenProtocolError(Exception):
    """The peer does not keep to the protocol."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def unpadded(flags: int, payload: bytes) -> bytes:
    """What a frame holds without its padding.

    Raises:
        BrokenProtocolError: more padding than frame.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise BrokenProtocolError("more padding than frame")
    return payload[1 : len(payload) - payload[0]]


class Outgoing:
    """Sends one message after the other in frames of data, each on a stream of its own, as the peer takes them.

    Attributes:
        pending: what is still to be sent of the message.
    """

    __slots__ = ("_max_frame", "_stream", "_stream_window", "_window", "_window_of_streams", "pending")

    def __init__(self) -> None:
        self.pending = memoryview(b"")
        self._stream = 0
        self._max_frame = _DEFAULT_FRAME
        self._window = self._stream_window = self._window_of_streams = DEFAULT_WINDOW

    def begin(self, stream: int, message: bytes, head: tuple[bytes, bytes]) -> bytes | list[Bytes]:
        """The beginning of a new stream: a head in two parts, and of the message as much as the peer takes now.

        A small message is copied to its head, so that it goes out in one piece; a large one is not.
        """
        size = len(message)
        self._stream = stream
        self._stream_window = self._window_of_streams
        if size <= self._max_frame and size <= self._window and size <= self._stream_window:
            self._window -= size
            self._stream_window -= size
            return b"".join((*head, HEADER.pack(size << 8, END_STREAM, stream), message))
        self.pending = memoryview(message)
        return [*head, *self.more()]

    def more(self) -> list[Bytes]:
        """As much of the message as the peer takes now, in frames."""
        frames: list[Bytes] = []
        pending, window = self.pending, min(self._window, self._stream_window)
        while pending and window > 0:
            size = min(len(pending), window, self._max_frame)
            ends = END_STREAM if size == len(pending) else 0
            frames += (HEADER.pack(size << 8, ends, self._stream), pending[:size])
            pending = pending[size:]
            window -= size
            self._window -= size
            self._stream_window -= size
        self.pending = pending
        return frames

    def set(self, name: int, value: int) -> None:
        """The peer says how much it takes.

        Raises:
            BrokenProtocolError: a value that there is not.
        """
        if name == Setting.INITIAL_WINDOW:
            self._stream_window += value - self._window_of_streams
            self._window_of_streams = value
            if max(value, self._stream_window) > MAX_WINDOW:
                raise BrokenProtocolError("a window that is too large")
        elif name == Setting.MAX_FRAME:
            if not _DEFAULT_FRAME <= value <= _LARGEST_FRAME:
                raise BrokenProtocolError("a frame size that there is not")
            self._max_frame = value

    def widen(self, stream: int, payload: bytes) -> None:
        """The peer takes more, on this stream or (0) on all together.

        Raises:
            BrokenProtocolError: no more, or too much.
        """
        more = int.from_bytes(payload, "big") & MAX_WINDOW
        if len(payload) != 4 or not more:
            raise BrokenProtocolError("a window that does not open")
        if not stream:
            self._window += more
        elif stream == self._stream:
            self._stream_window += more
        if self._window > MAX_WINDOW or self._stream_window > MAX_WINDOW:
            raise BrokenProtocolError("a window that is too large")
