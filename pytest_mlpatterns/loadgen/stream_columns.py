"""Recording of what came in pieces: a row per request, and 8 bytes for every chunk.

The generator process imports this module and must not load numpy.
"""

from __future__ import annotations

from array import array
from pickle import PickleBuffer
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.outcomes import FailedAnswer

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer

__all__ = ["StreamColumns"]


class StreamColumns:
    """Columns that grow by one row per finished request, in step with those of the recording.

    Args:
        text_limit: most bytes of texts that are kept; 0 keeps none.

    Attributes:
        answer: what came of the request whose row is added next; None if it was never sent.
        texts_cut: whether a text was not kept because of the limit.
        failed: by outcome, the first answer that did not count and says why; of requests that were due in the window.
    """

    COLUMNS = ("first_byte_ns", "chunk_count", "output_tokens", "input_tokens", "chunk_ns")
    __slots__ = (*COLUMNS, "_text", "_text_bytes", "_text_limit", "_window_ns", "answer", "failed", "texts_cut")

    def __init__(self, text_limit: int = 0) -> None:
        self._text_limit = text_limit
        self._text = bytearray()
        self._text_bytes = array("i")
        self.texts_cut: bool = False
        self.failed: dict[int, FailedAnswer] = {}
        self._window_ns = 0
        self.first_byte_ns: array[int] = array("q")
        self.chunk_count: array[int] = array("I")
        self.output_tokens: array[int] = array("i")
        self.input_tokens: array[int] = array("i")
        self.chunk_ns: array[int] = array("q")
        self.answer: StreamedAnswer | None = None

    def add(self) -> None:
        """Add the row of :attr:`answer`."""
        answer = self.answer
        if self._text_limit:
            self._text_bytes.append(self._keep_text(answer))
        if answer is None:
            self.first_byte_ns.append(0)
            self.chunk_count.append(0)
            self.output_tokens.append(-1)
            self.input_tokens.append(-1)
            return
        self.answer = None
        self.first_byte_ns.append(answer.first_byte_ns)
        self.chunk_count.append(len(answer.chunk_ns))
        self.output_tokens.append(answer.reader.output_tokens)
        self.input_tokens.append(answer.reader.input_tokens)
        self.chunk_ns.extend(answer.chunk_ns)

    def note_failure(self, outcome: int, request: int, due_ns: int) -> None:
        """Keep what the answer of the row that is added next says of itself, if it is the first of its outcome."""
        if self.answer is None or outcome in self.failed or due_ns < self._window_ns:
            return
        if words := self.answer.words(outcome):
            self.failed[outcome] = FailedAnswer(request, words)

    def first_chunks_ns(self, first: int) -> dict[int, int]:
        """Arrival of the first chunk of the rows from ``first`` on, by row; rows without a chunk have none."""
        found, position = {}, len(self.chunk_ns)
        for row in range(len(self.chunk_count) - 1, first - 1, -1):
            position -= self.chunk_count[row]
            if self.chunk_count[row]:
                found[row] = self.chunk_ns[position]
        return found

    def columns(self) -> dict[str, PickleBuffer]:
        """The columns as raw buffers, which cross the pipe without a copy."""
        columns = {name: PickleBuffer(getattr(self, name)) for name in self.COLUMNS}
        if self._text_limit:
            columns |= {"text": PickleBuffer(self._text), "text_bytes": PickleBuffer(self._text_bytes)}
        return columns

    def drop_texts(self, now_ns: int) -> None:
        """Drop all texts and words, at the start of the measured window."""
        self.failed, self._window_ns = {}, now_ns
        self._text.clear()
        self._text_bytes = array("i", [-1]) * len(self._text_bytes)
        self.texts_cut = False

    def _keep_text(self, answer: StreamedAnswer | None) -> int:
        """Keep the text of an answer whose tokens the server did not report. Returns its size; -1 if it is not kept."""
        if answer is None or answer.reader.output_tokens >= 0:
            return -1
        text = answer.reader.text
        if text is None or not answer.chunk_ns:
            return -1
        if len(self._text) + len(text) > self._text_limit:
            self.texts_cut = True
            return -1
        self._text += text
        return len(text)
