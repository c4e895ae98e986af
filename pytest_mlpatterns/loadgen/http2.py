"""gRPC client protocol over HTTP/2: one unary call at a time, with prior knowledge and without TLS.

Receive windows are as large as the protocol allows, because responses are counted and not stored. Our side announces a
header table of size zero, so equal bytes always mean equal headers, and every known block is a dictionary look-up.
Also: ``wire/grpc_call.py`` has the methods and the framing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import hpack
from msgspec import Struct

from pytest_mlpatterns.loadgen.http2_frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADER,
    LARGEST_FRAME,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    PRIORITY,
    SETTING,
    BrokenProtocolError,
    Frame,
    Outgoing,
    Setting,
    frame,
    unpadded,
)
from pytest_mlpatterns.loadgen.recorder import KEPT_BYTES
from pytest_mlpatterns.records.outcomes import Failure, grpc_outcome
from pytest_mlpatterns.wire.grpc_call import PREFIX_BYTES, message_prefix

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.connection import Bytes

_LARGEST_CONTROL = 1 << 16  # Largest frame without data, and largest block of headers, that is read
_LAST_STREAM = 2**31 - 3  # Stream after which a connection is used up: ids end at 2**31 - 1 (RFC 9113, 5.1.1)
_TOP_UP = 1 << 30  # Received bytes from which the connection's window is opened again: half of the window
_OURS = (
    *((Setting.TABLE_SIZE, 0), (Setting.ENABLE_PUSH, 0)),
    *((Setting.INITIAL_WINDOW, MAX_WINDOW), (Setting.MAX_FRAME, LARGEST_FRAME)),
)
"""Our settings: no header table, no push, the largest window of a stream and the largest frame."""

OPENING = b"".join(
    (
        PREFACE,
        frame(Frame.SETTINGS, 0, 0, b"".join(SETTING.pack(*pair) for pair in _OURS)),
        frame(Frame.WINDOW_UPDATE, 0, 0, (MAX_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big")),
    )
)
"""Bytes that open our side of a connection."""
_GRPC_TYPE = re.compile(rb"application/grpc(?:[+;]|$)", re.IGNORECASE)
DEFAULT_TABLE_BYTES = 4096  # Default size of a peer's header table
_KNOWN_BLOCKS = 1024
"""Blocks of headers that are remembered; a peer with a date in its headers has a new one each second."""


class Http2:
    """A :class:`pytest_mlpatterns.loadgen.connection.ClientProtocol`.

    ``reader``: decodes the peer's headers; connections may share it.
    """

    __slots__ = (
        "_blocks",
        "_body_bytes",
        "_chunks",
        "_data_ends",
        "_data_left",
        "_fragments",
        "_greeted",
        "_handlers",
        "_headers_end",
        "_http_status",
        "_keep",
        "_messages",
        "_outcome",
        "_outgoing",
        "_prefix",
        "_reader",
        "_rest",
        "_stream",
        "_unacknowledged",
        "_without_table",
        "grpc_message",
        "outbox",
        "used_up",
    )
    duplex = True
    unasked = False

    def __init__(self, messages: Sequence[bytes], blocks: RequestBlocks, reader: HeaderReader, *, keep: bool) -> None:
        self.used_up: bool = False
        self.outbox: list[Bytes] = []
        self.grpc_message: str = ""
        self._messages = messages
        self._blocks = blocks
        self._reader = reader
        self._keep = keep
        self._outgoing = Outgoing()
        self._greeted = False
        self._without_table = False  # the peer keeps no header table, or a small one
        # received and not yet processed
        self._rest = b""
        self._data_left = 0
        self._data_ends = False
        self._fragments: list[bytes] | None = None
        self._headers_end = False
        self._unacknowledged = 0  # bytes of data that no window update has acknowledged yet
        # the call in flight
        self._stream = -1
        self._outcome = 0
        self._http_status = 0
        self._body_bytes = 0
        self._prefix = b""
        self._chunks: list[bytes] = []
        self._handlers = {
            Frame.DATA: self._take_padded_data,
            Frame.HEADERS: self._take_headers,
            Frame.RST_STREAM: self._take_reset,
            Frame.SETTINGS: self._take_settings,
            Frame.PUSH_PROMISE: self._take_push,
            Frame.PING: self._take_ping,
            Frame.GOAWAY: self._take_goaway,
            Frame.WINDOW_UPDATE: self._take_window,
            Frame.CONTINUATION: self._take_continuation,
        }

    @property
    def is_unheard(self) -> bool:
        """Whether an earlier call was answered, and no header came for this one."""
        return self._stream > 1 and not self._http_status

    def opening(self) -> bytes:
        """The connection preface, with our settings."""
        return OPENING

    def ask(self, request: int) -> bytes | Sequence[Bytes]:
        """The headers of a call, and as much of its message as the peer's windows allow."""
        stream = self._stream = self._stream + 2
        self._outcome = self._http_status = self._body_bytes = 0
        self._prefix = b""
        self._chunks.clear()
        self.used_up = self.used_up or stream >= _LAST_STREAM
        blocks = self._blocks
        block = blocks.without_table if self._without_table else blocks.later if stream > 1 else blocks.first
        head = HEADER.pack(len(block) << 8 | Frame.HEADERS, END_HEADERS, stream)
        return self._outgoing.begin(stream, self._messages[request], (head, block))

    def take(self, data: bytes) -> int:
        """Take received bytes while a call is in flight. Returns its outcome, or 0."""
        try:
            self._read(data)
        except (BrokenProtocolError, HeaderError):
            return Failure.MALFORMED
        if self._outcome and self._outgoing.pending:  # the response came before the request was sent
            self.used_up = True
        return self._outcome

    def take_idle(self, data: bytes) -> bool:
        """Take settings, pings and GOAWAY; anything else breaks the protocol."""
        try:
            self._read(data)
        except (BrokenProtocolError, HeaderError):
            return False
        return not self.used_up

    def end(self) -> int:
        """No gRPC response ends with its connection."""
        return 0

    def body(self) -> bytes:
        """The response's message, without its prefix."""
        return b"".join(self._chunks)[PREFIX_BYTES:]

    def head(self) -> bytes:
        """Empty: gRPC carries everything in the message."""
        return b""

    def _read(self, data: bytes) -> None:
        """Process every complete frame, and the received part of a DATA frame."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while at < end:
            if self._data_left:
                size = min(self._data_left, end - at)
                self._take_data(data, at, size)
                at += size
                continue
            if end - at < HEADER.size:
                break
            length_and_kind, flags, stream = HEADER.unpack_from(data, at)
            length, kind = length_and_kind >> 8, length_and_kind & 0xFF
            if not self._greeted and kind != Frame.SETTINGS:
                raise BrokenProtocolError("the peer does not speak HTTP/2")
            if kind == Frame.DATA and not flags & PADDED:
                self._begin_data(length, flags, stream)
                at += HEADER.size
                continue
            if length > _LARGEST_CONTROL:
                raise BrokenProtocolError("control frame too long")
            if end - at < HEADER.size + length:
                break
            at += HEADER.size
            self._take_frame(kind, flags, stream & MAX_WINDOW, data[at : at + length])
            at += length
        self._rest = data[at:]

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:  # noqa: PLR0917 - called per frame
        if self._fragments is not None and kind != Frame.CONTINUATION:
            raise BrokenProtocolError("CONTINUATION frame missing")
        if (handler := self._handlers.get(kind)) is not None:
            handler(flags, stream, payload)

    # --- the response -----------------------------------------------------------------------------------------------

    def _begin_data(self, length: int, flags: int, stream: int) -> None:
        if stream != self._stream or self._outcome or not self._http_status or self._fragments is not None:
            raise BrokenProtocolError("DATA frame without a call")
        self._data_left = length
        self._data_ends = bool(flags & END_STREAM)
        self._unacknowledged += length
        if self._unacknowledged >= _TOP_UP:
            self.outbox.append(frame(Frame.WINDOW_UPDATE, 0, 0, self._unacknowledged.to_bytes(4, "big")))
            self._unacknowledged = 0
        if not length and self._data_ends:
            self._end_without_status()

    def _take_data(self, data: bytes, at: int, size: int) -> None:
        if self._body_bytes < PREFIX_BYTES:
            self._prefix += data[at : at + min(size, PREFIX_BYTES - self._body_bytes)]
        self._body_bytes += size
        if self._body_bytes > KEPT_BYTES:
            self._chunks.clear()
        elif self._keep:
            self._chunks.append(data[at : at + size])
        self._data_left -= size
        if not self._data_left and self._data_ends:
            self._end_without_status()

    def _take_padded_data(self, flags: int, stream: int, payload: bytes) -> None:
        inside = unpadded(flags, payload)
        self._unacknowledged += len(payload) - len(inside)
        self._begin_data(len(inside), flags, stream)
        if inside:
            self._take_data(inside, 0, len(inside))

    def _end_without_status(self) -> None:
        """The response ends without trailers: the server has no gRPC."""
        self._outcome = Failure.MALFORMED if self._http_status == 200 else self._http_status

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if stream != self._stream or self._outcome:
            raise BrokenProtocolError("HEADERS frame without a call")
        block = unpadded(flags, payload)[5 if flags & PRIORITY else 0 :]
        self._headers_end = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._take_block(block)
        else:
            self._fragments = [block]

    def _take_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._fragments is None or stream != self._stream:
            raise BrokenProtocolError("CONTINUATION frame without HEADERS")
        self._fragments.append(payload)
        if sum(map(len, self._fragments)) > _LARGEST_CONTROL:
            raise BrokenProtocolError("headers too long")
        if flags & END_HEADERS:
            block = b"".join(self._fragments)
            self._fragments = None
            self._take_block(block)

    def _take_block(self, block: bytes) -> None:
        """Take the response's headers, its trailers, or both in one block if there is no message."""
        headers = self._reader.read(block)
        if not self._http_status:
            status = headers.http_status
            if status is None or not 100 <= status < 1000 or (status < 200 and self._headers_end):
                raise BrokenProtocolError("response without a status")
            self._http_status = status if status >= 200 else 0  # the final response follows
            if status == 200 and not (self._headers_end or headers.is_grpc):
                raise BrokenProtocolError("a response of another kind than application/grpc")
        elif not self._headers_end:
            raise BrokenProtocolError("trailers do not end the response")
        if not self._headers_end:
            return
        if self._http_status != 200:
            self._outcome = self._http_status
        elif headers.grpc_status:
            self.grpc_message = headers.grpc_message
            self._outcome = grpc_outcome(headers.grpc_status)
        else:
            whole = self._body_bytes >= PREFIX_BYTES and self._prefix == message_prefix(self._body_bytes - PREFIX_BYTES)
            self._outcome = 200 if whole and headers.grpc_status == 0 else Failure.MALFORMED

    def _take_reset(self, _flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4 or not 0 < stream <= max(self._stream, 0):
            raise BrokenProtocolError("RST_STREAM for no stream")
        if stream == self._stream and not self._outcome:
            self._outcome = Failure.RESET

    # --- the connection ---------------------------------------------------------------------------------------------

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) % SETTING.size:
            raise BrokenProtocolError("SETTINGS frame of a wrong size")
        if flags & ACK:
            return
        self._greeted = True
        for name, value in SETTING.iter_unpack(payload):
            if name == Setting.TABLE_SIZE:
                self._without_table = self._without_table or value < DEFAULT_TABLE_BYTES
            else:
                self._outgoing.set(name, value)
        self.outbox.append(frame(Frame.SETTINGS, ACK, 0))
        self._send_on()

    def _take_window(self, _flags: int, stream: int, payload: bytes) -> None:
        self._outgoing.widen(stream, payload)
        self._send_on()

    def _send_on(self) -> None:
        if self._outgoing.pending and not self._outcome:
            self.outbox += self._outgoing.more()

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 8 or stream:
            raise BrokenProtocolError("PING frame of a wrong size")
        if not flags & ACK:
            self.outbox.append(frame(Frame.PING, ACK, 0, payload))

    def _take_goaway(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) < 8:
            raise BrokenProtocolError("GOAWAY frame too short")
        self.used_up = True
        if int.from_bytes(payload[:4], "big") & MAX_WINDOW < self._stream and not self._outcome:
            self._outcome = Failure.CLOSED

    def _take_push(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise BrokenProtocolError("PUSH_PROMISE although push is disabled")


class HeaderError(ValueError):
    """A malformed header block, or one without a status."""


class RequestBlocks(Struct, frozen=True):
    """Encoded headers of a call: for a connection's first request, for later ones, and for a peer with a small table.

    The first block fills the peer's table, and later blocks refer to it.
    """

    first: bytes
    later: bytes
    without_table: bytes

    @classmethod
    def of(cls, address: tuple[str, int], path: str) -> RequestBlocks:
        """Encode the headers of calls of one method. ``path``: ``/package.Service/Method``."""
        host, port = address
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "pytest-mlpatterns"),
        )
        encoder = hpack.Encoder()
        first, later = encoder.encode(headers), encoder.encode(headers)
        encoder = hpack.Encoder()
        encoder.header_table_size = 0
        return cls(first, later, encoder.encode(headers))


class Headers(Struct, frozen=True):
    """The HTTP status, the gRPC status and its message in a block; None if absent."""

    http_status: int | None
    grpc_status: int | None
    grpc_message: str
    is_grpc: bool = False  # whether the content-type is one of gRPC


class HeaderReader:
    """Decodes header blocks of any number of peers, without a header table."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """Decode a block."""
        if (known := self._known.get(block)) is not None:
            return known
        try:
            found = _headers_of(self._decoder.decode(block, raw=True))
        except (hpack.HPACKError, ValueError) as error:
            raise HeaderError(f"malformed header block: {error}") from error
        if len(self._known) >= _KNOWN_BLOCKS:  # a peer with a date in its headers
            self._known.clear()
        self._known[block] = found
        return found


def _headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    pairs = list(pairs)
    found = dict(pairs)
    http, grpc = (_status_in(pairs, name, digits) for name, digits in ((b":status", 3), (b"grpc-status", 2)))
    message = unquote_to_bytes(found.get(b"grpc-message", b"")).decode(errors="replace")
    return Headers(http, grpc, message, _GRPC_TYPE.match(found.get(b"content-type", b"")) is not None)


def _status_in(pairs: Iterable[tuple[bytes, bytes]], name: bytes, digits: int) -> int | None:
    """The status of this name; None without one. Raises ValueError: it has more digits, is none, or comes twice."""
    values = [value for known, value in pairs if known == name]
    if len(values) > 1 or not all(value.isdigit() and len(value) <= digits for value in values):
        raise ValueError(f"{name.decode()} is {values}")
    return int(values[0]) if values else None
