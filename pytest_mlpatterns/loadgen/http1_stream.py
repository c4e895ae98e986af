"""HTTP/1.1 whose responses come in pieces: the body of a stream is read as it arrives.

Beside :class:`pytest_mlpatterns.loadgen.http1.Http1`, which finds nothing but the end of a response and so is faster.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httptools

from pytest_mlpatterns.loadgen.http1 import ACCEPTED, Http1
from pytest_mlpatterns.records.outcomes import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer

__all__ = ["Http1Pieces", "Http1Stream"]

_TYPE = re.compile(rb"\r\ncontent-type:[ \t]*([^\r\n]*)", re.IGNORECASE)
_SIZED = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)
_CODING = re.compile(rb"\r\ncontent-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)


class Http1Stream(Http1):
    """A :class:`pytest_mlpatterns.loadgen.protocol.ClientProtocol` that reads streams.

    Args:
        messages: complete requests.
        host: host name of follow-up requests.
        follow: a status of 202 does not end a request; the result is polled at the address in ``Location``.
        keep: keep the bodies of responses up to :data:`pytest_mlpatterns.loadgen.recorder.KEPT_BYTES`.
        answer: takes the pieces of a stream.
    """

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
        accepted = self._follow and self._status() == ACCEPTED
        if not (accepted or self._status_code):
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
    """The same for streams whose chunks are those of HTTP, wherever TCP divides them."""

    __slots__ = ()

    def on_chunk_complete(self) -> None:
        """Called by the parser at the end of a chunk; the last one is empty."""
        if not self._status_code:
            self._answer.end_piece()
