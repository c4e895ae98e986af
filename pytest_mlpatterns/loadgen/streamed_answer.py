"""What has come of the answer in flight: its first byte and its chunks, each with the time at which its bytes arrived.

It reads no clock: the connection stamps bytes directly after it received them, before anything is parsed.
"""

from __future__ import annotations

from array import array

from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire.stream_events import EVENT_STREAM, StreamReader
from pytest_mlpatterns.wire.stream_text import TextReader

__all__ = ["StreamedAnswer"]


class StreamedAnswer:
    """One answer at a time; a connection uses it again for the next one.

    Args:
        is_openai: whether the events are those of the wire ``openai``, of which every stream ends with ``[DONE]``.
        keep_text: whether the reader is one that keeps the text.

    Attributes:
        now_ns: arrival of the bytes that are read at present.
        first_byte_ns: arrival of the first byte; 0 while none came.
        chunk_ns: arrival of every chunk with content.
        is_stream: whether the answer is a stream of events.
        reader: what the events say.
    """

    __slots__ = ("_is_openai", "_new_reader", "chunk_ns", "first_byte_ns", "is_stream", "now_ns", "reader")

    def __init__(self, *, is_openai: bool, keep_text: bool = False) -> None:
        self._is_openai = is_openai
        self._new_reader: type[StreamReader] = TextReader if keep_text else StreamReader
        self.chunk_ns: array[int] = array("q")
        self.now_ns: int = 0
        self.begin()

    def begin(self) -> None:
        """Await the next answer."""
        self.first_byte_ns: int = 0
        self.is_stream: bool = False
        del self.chunk_ns[:]
        self.reader: StreamReader = self._new_reader(is_openai=self._is_openai)

    def read_type(self, media_type: str) -> None:
        """Learn from the head of the answer, from its media type with its parameters, whether it is a stream."""
        self.is_stream = media_type.partition(";")[0].strip().lower() == EVENT_STREAM

    def take(self, data: bytes) -> None:
        """Take a piece of the body of a stream, which arrived at ``now_ns``."""
        count = self.reader.feed(data)
        if count == 1:
            self.chunk_ns.append(self.now_ns)
        elif count:
            self.chunk_ns.extend([self.now_ns] * count)

    def outcome(self, status: int, *, delimited: bool = True) -> int:
        """The outcome of the answer when its last byte has come: its status, or a code of :class:`Failure`.

        A stream is whole if it ended with ``[DONE]``, or if HTTP marked its end and the wire promises no ``[DONE]``.

        Args:
            status: of the answer.
            delimited: whether HTTP marked the end of the answer; not if it lasts until the connection is closed.
        """
        if not self.is_stream or not 200 <= status < 300:
            return status
        if self.reader.error is not None:
            return Failure.ERROR_EVENT.value
        if self.reader.malformed:
            return Failure.MALFORMED.value
        if not self.reader.ended and (self._is_openai or not delimited):
            return Failure.CUT_OFF.value
        return status
