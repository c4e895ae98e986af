"""HTTP/1.1 client protocols: prepared requests out, responses in.

:class:`Http1` finds nothing but the end of a response, by httptools, and so is faster than :class:`Http1Stream`, which
also reads the pieces of a stream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import httptools

from pytest_mlpatterns.loadgen.recorder import KEPT_BYTES
from pytest_mlpatterns.records.outcomes import Failure

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.connection import Bytes
    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer

_HEAD_BYTES = 1 << 16  # Bytes in which the head of an answer is looked for; servers limit a head to about as much
ACCEPTED = 202  # Status of a request whose result is polled
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?:\r\n|$)", re.IGNORECASE)
_INTERIM = re.compile(rb"HTTP/\d\.\d 1")
_FAREWELLS = (400, 408)  # Statuses with which servers end a connection that was idle for too long
_UNASKED = re.compile(rb"HTTP/\d\.\d (?!%b)[2-5]" % "|".join(map(str, _FAREWELLS)).encode())
_LOCATION = re.compile(rb"\r\nlocation:[ \t]*(/[!-~]*)", re.IGNORECASE)
_DELIMITED = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
_TYPE = re.compile(rb"\r\ncontent-type:[ \t]*([^\r\n]*)", re.IGNORECASE)
_SIZED = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)
_CODING = re.compile(rb"\r\ncontent-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)


class Http1:
    """A :class:`pytest_mlpatterns.loadgen.connection.ClientProtocol`.

    ``follow``: a status of 202 does not end a request; the result is polled at the address in ``Location``.
    """

    __slots__ = (
        "_chunks",
        "_feed",
        "_follow",
        "_head",
        "_host",
        "_keep_alive",
        "_messages",
        "_received",
        "_status",
        "_status_code",
        "_usual_head",
        "_usual_size",
        "_usual_status",
        "outbox",
        "unasked",
        "used_up",
    )
    duplex = False

    def __init__(self, messages: Sequence[bytes], host: str, *, follow: bool, keep: bool) -> None:
        self.used_up: bool = False
        self.unasked: bool = False
        self.outbox: list[Bytes] = []
        self._messages = messages
        self._host = host
        self._follow = follow
        self._received = 0
        self._head = b""
        self._status_code = 0
        self._chunks: list[bytes] = []
        self._usual_head = b""
        self._usual_size = -1 if keep else 0
        self._usual_status = 0
        parser = httptools.HttpResponseParser(self if keep else _Completion(self))
        self._feed, self._status, self._keep_alive = (
            parser.feed_data,
            parser.get_status_code,
            parser.should_keep_alive,
        )

    @property
    def is_unheard(self) -> bool:
        """Whether an earlier request was answered, and no byte came for this one; a polled one was accepted before."""
        return bool(self._head) and not (self._received or self._follow)

    def opening(self) -> bytes:
        """HTTP/1.1 sends nothing before a request."""
        return b""

    def ask(self, request: int) -> bytes:
        """Bytes of the prepared request."""
        if self._received:  # else nothing was parsed since the last request
            self._received = 0
            self._status_code = 0
            self._chunks.clear()
        return self._messages[request]

    def take(self, data: bytes) -> int:
        """Take a piece of the response: maybe the last one, maybe with bytes beyond it."""
        if not self._received:
            if len(data) == self._usual_size and data.startswith(self._usual_head):
                return self._usual_status
            self._head = data
        elif self._received < _HEAD_BYTES:
            self._head += data
        self._received += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._status_code:
                return Failure.MALFORMED
            self.used_up = True
        if self._status_code == ACCEPTED and self._follow:
            return self._ask_for_result()
        if self._status_code and self._received == len(data) and self._usual_size >= 0:
            self._note_usual(data)
        return self._status_code

    def take_idle(self, data: bytes) -> bool:
        """Bytes without a request: the connection cannot be used for another request."""
        self.unasked = self.unasked or _UNASKED.match(data) is not None
        return False

    def end(self) -> int:
        """The end of the connection ends a response without a length; any other response is lost."""
        return self._status() if self._received and self._ends_with_connection() else 0

    def body(self) -> bytes:
        """The response's body; empty if it is too long to be kept."""
        return b"".join(self._chunks)

    def head(self) -> bytes:
        """The head of the final response, after interim ones; empty if it is incomplete or too long."""
        head, complete, rest = self._head.partition(b"\r\n\r\n")
        while complete and _INTERIM.match(head):
            head, complete, rest = rest.partition(b"\r\n\r\n")
        return head if complete else b""

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of a response."""
        if self._status_code:  # a second response to one request
            self.used_up = True

    def on_body(self, chunk: bytes) -> None:
        """Called by the parser with a piece of a response's body, if bodies are kept."""
        if self._received > KEPT_BYTES:
            self._chunks.clear()
        elif not self._status_code:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Called by the parser at the last byte of a response."""
        status = self._status()
        if status >= 200 and not self._status_code:  # below: 100 Continue, 103 Early Hints; the final response follows
            self._status_code = status
            self.used_up = not self._keep_alive()  # known only here
        elif status >= 200:
            self.unasked = status not in _FAREWELLS

    def _note_usual(self, data: bytes) -> None:
        """Remember a response that came in one piece, with its length in its head.

        The next one with the same head and size ends where this one did, and need not be parsed. Most services repeat
        their heads, but for the second in ``Date``.
        """
        head, complete, body = data.partition(_END_OF_HEAD)
        length = _LENGTH.search(head)
        usual = complete and length and int(length[1]) == len(body) and not self.used_up
        self._usual_head = head + complete if usual else b""
        self._usual_size = len(data) if usual else 0
        self._usual_status = self._status_code

    def _ask_for_result(self) -> int:
        """Poll the result of an accepted request; the service delays its response until the result is there."""
        location = _LOCATION.search(self._head)
        if location is None or self.used_up:
            return Failure.MALFORMED if location is None else Failure.CLOSED
        self._status_code = 0
        self._received = 0
        self._chunks.clear()
        self.outbox.append(b"GET %s HTTP/1.1\r\nhost: %s\r\n\r\n" % (location[1], self._host.encode("ascii")))
        return 0

    def _ends_with_connection(self) -> bool:
        """Whether the response has neither a length nor chunks, so that it ends with the connection."""
        head = self.head()
        return not self._keep_alive() and bool(head) and _DELIMITED.search(head) is None


class _Completion:
    """Hides ``on_body`` from the parser, which then does not copy bodies."""

    __slots__ = ("on_message_begin", "on_message_complete")

    def __init__(self, protocol: Http1) -> None:
        self.on_message_begin = protocol.on_message_begin
        self.on_message_complete = protocol.on_message_complete


class Http1Stream(Http1):
    """A :class:`pytest_mlpatterns.loadgen.connection.ClientProtocol` that reads streams."""

    __slots__ = ("_answer", "_keep", "_take_piece")

    def __init__(
        self, messages: Sequence[bytes], host: str, *, follow: bool, keep: bool, answer: StreamedAnswer
    ) -> None:
        self._answer = answer
        self._keep = keep
        self._take_piece = answer.take
        super().__init__(messages, host, follow=follow, keep=True)  # the parser passes bodies on

    def take(self, data: bytes) -> int:
        """Take a piece of the response: maybe the last one, maybe with bytes beyond it."""
        answer = self._answer
        if not answer.is_stream:
            status = super().take(data)
            return answer.outcome(status) if status > 0 else status
        self._received += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._status_code:
                return Failure.MALFORMED
            self.used_up = True
        return answer.outcome(self._status_code) if self._status_code else 0

    def end(self) -> int:
        """The end of the connection ends a response without a length; any other response is lost."""
        status = super().end()
        return self._answer.outcome(status, delimited=False) if status else 0

    def on_headers_complete(self) -> None:
        """Called by the parser after the head of a response."""
        status = self._status()
        accepted = self._follow and status == ACCEPTED
        if status >= 200 and not (accepted or self._status_code):  # below: the final response follows
            head = self.head()
            found, coding = _TYPE.search(head), _CODING.search(head)
            self._answer.read_type(
                found[1].decode("latin-1") if found else "",
                coding[1].decode("latin-1") if coding else "",
                is_sized=_SIZED.search(head) is not None,
            )

    def on_body(self, chunk: bytes) -> None:
        """Called by the parser with a piece of a response's body."""
        if not self._status_code:
            self._take_piece(chunk) if self._answer.is_stream else self._answer.keep_opening(chunk)
        if self._keep:
            super().on_body(chunk)


class Http1Pieces(Http1Stream):
    """The same for streams whose chunks are HTTP's, wherever TCP divides them."""

    __slots__ = ()

    def on_chunk_complete(self) -> None:
        """Called by the parser at the end of a chunk; the last one is empty."""
        if not self._status_code:
            self._answer.end_piece()
