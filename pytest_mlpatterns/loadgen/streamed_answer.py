"""The answer in flight: arrival times of its first byte and of each chunk.

It reads no clock: ``loadgen/connection.py`` stamps bytes directly after it received them, before anything is parsed.
Also: ``analysis/metrics/samples.py`` computes TTFT, TPOT and ITL from these times.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire.stream_events import promises_end
from pytest_mlpatterns.wire.stream_request import (
    AUTO,
    OPENING_BYTES,
    Asked,
    Reader,
    StreamFault,
    StreamForm,
    StreamSetting,
    asked_in_load,
    described_fault,
    fault_of,
    form_of,
    new_reader,
    usual_form,
)
from pytest_mlpatterns.wire.wire import REST_JSON, Wire

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.messages import LoadJob

_OUTCOMES = {fault: Failure[fault.name].value for fault in StreamFault}
"""Outcome of a request by the fault of its stream."""
_FAULTS = {outcome: fault for fault, outcome in _OUTCOMES.items()}
_ANY = Asked(stream=True, tokens=True)  # What a request asks for if its body does not show it


def answers_to(job: LoadJob) -> Callable[[], StreamedAnswer]:
    """The function that creates what collects the answers of a connection.

    What a request asks for is read only if its answer is no stream, or an empty one.
    """
    at = job.endpoint
    asked = asked_in_load(job.messages, is_openai=promises_end(at.wire), has_streams=job.stream)
    return partial(StreamedAnswer, wire=at.wire, stream=at.stream, keep_text=job.keep_texts, asked=asked)


class StreamedAnswer:
    """One answer at a time; a connection uses it again for the next one.

    ``wire``: of the requests. Every stream of the wire ``openai`` ends with ``[DONE]``.

    ``now_ns``: arrival of the bytes that are read at present. ``first_byte_ns``: arrival of the first byte; 0 while
    none came.
    """

    __slots__ = (
        "_asked",
        "_coding",
        "_form",
        "_keep_text",
        "_media_type",
        "_opening",
        "_request",
        "_stream",
        "_wire",
        "chunk_ns",
        "first_byte_ns",
        "is_stream",
        "now_ns",
        "reader",
    )

    def __init__(
        self,
        *,
        wire: Wire = REST_JSON,
        stream: StreamSetting = AUTO,
        keep_text: bool = False,
        asked: Callable[[int], Asked] = lambda _: _ANY,
    ) -> None:
        self._wire, self._stream = wire, stream
        self._asked = asked
        self._keep_text = keep_text
        self._form = usual_form(stream)
        self.chunk_ns: array[int] = array("q")
        self.now_ns: int = 0
        self._media_type = self._coding = ""
        self._opening = b""
        self.begin()

    def begin(self, request: int = 0) -> None:
        """Await the answer to the prepared request of this index."""
        self._request = request
        self.first_byte_ns: int = 0
        self.is_stream: bool = False
        del self.chunk_ns[:]
        self.reader: Reader = self._new_reader(self._form)

    def _new_reader(self, form: StreamForm) -> Reader:
        is_openai = promises_end(self._wire)
        return new_reader(form, self._stream, is_openai=is_openai, keep_text=self._keep_text)

    def read_type(self, media_type: str, coding: str = "", *, is_sized: bool = False) -> None:
        """Learn from the head of the answer, from its media type with its parameters, whether it is a stream."""
        self._media_type, self._coding, self._opening = media_type, coding.strip().lower(), b""
        form = form_of(media_type, is_sized=is_sized, wire=self._wire, stream=self._stream)
        self.is_stream = form is not None
        if form is not None and form is not self._form:
            self._form, self.reader = form, self._new_reader(form)
        if self._coding and self.is_stream:
            from pytest_mlpatterns.wire.compression import STREAMED, UnpackedReader

            if self._coding in STREAMED:
                self.reader, self._coding = cast("Reader", UnpackedReader(self.reader, self._coding)), ""

    def take(self, data: bytes) -> None:
        """Take a piece of the body of a stream, which arrived at ``now_ns``."""
        self._count(self.reader.feed(data))

    def end_piece(self) -> None:
        """Take the end of a chunk of HTTP."""
        if self._form is StreamForm.CHUNKS and self.is_stream:
            self._count(self.reader.end())

    def _count(self, count: int) -> None:
        """Count chunks that are complete now."""
        if count == 1:
            self.chunk_ns.append(self.now_ns)
        elif count:
            self.chunk_ns.extend([self.now_ns] * count)

    def keep_opening(self, data: bytes) -> None:
        """Keep the begin of the body of an answer that is no stream."""
        if len(self._opening) < OPENING_BYTES:
            self._opening += data[:OPENING_BYTES]

    def outcome(self, status: int, *, delimited: bool = True) -> int:
        """The outcome of the answer when its last byte has come: its status, or a code of :class:`Failure`.

        A stream is whole if it ended with ``[DONE]``, or if HTTP marked its end and the wire promises no ``[DONE]``. A
        success that is no stream counts only if none was requested.
        """
        if not 200 <= status < 300:
            return status
        if not self.is_stream:
            return Failure.NO_STREAM.value if self._asked(self._request).stream else status
        self._count(self.reader.end())
        if self.chunk_ns and self.reader.ended and not self._coding:  # the usual case
            return status
        has_chunks = len(self.chunk_ns) > 0
        fault = fault_of(
            self.reader,
            has_chunks=has_chunks,
            asked=_ANY if has_chunks else self._asked(self._request),
            delimited=delimited,
            coding=self._coding,
        )
        return status if fault is None else _OUTCOMES[fault]

    def timed_out(self) -> Failure:
        """The failure of an answer that is not over at its time limit."""
        return Failure.NOT_ENDED if self.reader.ended else Failure.TIMEOUT

    def words(self, outcome: int) -> str:
        """What is wrong with the answer, in one line; empty if its outcome suffices."""
        fault = _FAULTS.get(outcome)
        if fault is None:
            return ""
        opening, coding = self._opening, self._coding
        if coding and not self.is_stream:
            from pytest_mlpatterns.wire.compression import begin_of

            if plain := begin_of(opening, coding):
                opening, coding = plain, ""
        return described_fault(fault, self.reader, media_type=self._media_type, coding=coding, opening=opening)
