"""Recording of a load: one row per request in plain arrays, and a bounded sample of the responses.

A row takes 35 bytes, so a million requests take 35 MB. A load that is read in pieces also has the columns of its
streams. The generator process imports this module, which must not load numpy.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from math import nan
from pickle import PickleBuffer
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.addressing import Answer
from pytest_mlpatterns.records.outcomes import FailedAnswer

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer
    from pytest_mlpatterns.workload.figures import FigurePlan, FigureReader
    from pytest_mlpatterns.workload.own_client import ClientAnswer

    AnyAnswer = StreamedAnswer | ClientAnswer

    AddRow = Callable[[int, int, int, int, int, int, int], None]
    """Appends the values of one row, in the order of :attr:`SampleRecorder.COLUMNS`."""

KEPT_BYTES = 64 * 2**20  # Most bytes of responses that are kept for ``check=``, over all generator processes


class SampleRecorder:
    """Columns that grow by one row per finished request, in the order of completion."""

    COLUMNS = ("due_ns", "sent_ns", "done_ns", "outcome", "request", "target", "received_bytes")
    __slots__ = (*COLUMNS, "_row", "add", "streams")

    def __init__(self, streams: StreamColumns | None = None) -> None:
        self.due_ns: array[int] = array("q")
        self.sent_ns: array[int] = array("q")
        self.done_ns: array[int] = array("q")
        self.outcome: array[int] = array("h")
        self.request: array[int] = array("I")
        self.target: array[int] = array("B")
        self.received_bytes: array[int] = array("I")
        self.streams = streams
        self._row = self._adder()
        self.add: AddRow = self.adder_of(None)

    def __len__(self) -> int:
        return len(self.done_ns)

    def _adder(self) -> AddRow:
        """The function that appends one row, with values in the order of :attr:`COLUMNS`.

        It is created once with bound methods at hand, because it is called for every request.
        """
        due, sent, done, status, index, where, size = (getattr(self, name).append for name in self.COLUMNS)

        def add(  # noqa: PLR0913, PLR0917 - keywords would cost as much as the columns
            due_ns: int, sent_ns: int, done_ns: int, outcome: int, request: int, target: int, received_bytes: int
        ) -> None:
            due(due_ns)
            sent(sent_ns)
            done(done_ns)
            status(outcome)
            index(request)
            where(target)
            size(received_bytes)

        return add

    def adder_of(self, answer: AnyAnswer | None) -> AddRow:
        """The function that appends one row; for a load that is read in pieces, also what has then come of an answer.

        ``answer``: of one request after the other; None for requests that are never sent.
        """
        if self.streams is None:
            return self._row
        add, add_stream, note_failure = self._row, self.streams.add, self.streams.note_failure

        def add_both(*row: int) -> None:
            add(*row)
            if answer is not None and row[3] < 0:
                note_failure(answer, row[3], request=row[4], due_ns=row[0])
            add_stream(answer)

        return add_both

    def median_latency_ns(self, first: int) -> int | None:
        """Median latency of the successful requests from row ``first`` on; None if there is none."""
        rows = range(first, len(self))
        latencies = sorted(self.done_ns[row] - self.due_ns[row] for row in rows if 200 <= self.outcome[row] < 300)
        return latencies[len(latencies) // 2] if latencies else None

    def median_ttft_ns(self, first: int) -> int | None:
        """Median time to the first chunk of the successful requests from row ``first`` on; None without a stream."""
        if self.streams is None:
            return None
        chunks = self.streams.first_chunks_ns(first).items()
        times = sorted(at_ns - self.due_ns[row] for row, at_ns in chunks if 200 <= self.outcome[row] < 300)
        return times[len(times) // 2] if times else None

    def columns(self, *, streams: bool = True) -> dict[str, PickleBuffer]:
        """The columns as raw buffers, which cross the pipe without a copy."""
        columns = {name: PickleBuffer(getattr(self, name)) for name in self.COLUMNS}
        return columns if self.streams is None or not streams else columns | self.streams.columns()


class ResponseSample:
    """At most ``limit`` responses, spread evenly over all that are offered; their number is not known in advance.

    A systematic sample: keeps every n-th; when full, drops every second one and doubles n. It is full with ``limit``
    responses, or with ``limit_bytes`` of them.

    ``keeps``: whether it keeps any.
    """

    def __init__(self, limit: int, limit_bytes: int = KEPT_BYTES) -> None:
        self.keeps: bool = limit > 0
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._stride = 1
        self._offered = 0
        self._bytes = 0
        self.kept: list[Answer] = []
        self.is_cut: bool = False

    def offer(self, request: int, body: bytes, head: bytes = b"", *, value: object = None) -> None:
        """Offer the response to the request of this index. ``value``: what a client of the user's own returned."""
        size = len(body) + len(head)
        if size > self._limit_bytes:
            self.skip()
            return
        while self._offered % self._stride == 0 and self._is_full(size):
            del self.kept[1::2]
            self._bytes = sum(len(answer.body) + len(answer.head) for answer in self.kept)
            self._stride *= 2
        if self._offered % self._stride == 0:
            self.kept.append(Answer(request, body, head))
            self._bytes += size
        self._offered += 1

    def skip(self) -> None:
        """Offer a response that is too long to be kept."""
        self._offered += 1
        self.is_cut = True

    def clear(self) -> None:
        """Drop all responses, at the start of the measured window."""
        self.kept.clear()
        self._stride, self._offered, self._bytes = 1, 0, 0
        self.is_cut = False

    def _is_full(self, size: int) -> bool:
        if len(self.kept) >= self._limit:
            return True
        over = self._bytes + size > self._limit_bytes
        self.is_cut = self.is_cut or over
        return over


FIGURE = "figure:"  # Before the name of a figure in the name of its column


class FigureColumns(ResponseSample):
    """Keeps responses as its base does, and reads figures from each: a column of each, in step with the recording.

    They are read when :meth:`read` is called, so that no stamp waits for it.

    ``reader``: of the figures.
    """

    def __init__(self, plan: FigurePlan, recording: SampleRecorder, *, limit: int, limit_bytes: int) -> None:
        super().__init__(limit, limit_bytes)
        self.reader: FigureReader = plan.reader()
        self._recording = recording
        self._waiting: list[tuple[int, bytes, bytes, object]] = []
        self._columns = {figure.name: array("d") for figure in plan.figures}

    def offer(self, request: int, body: bytes, head: bytes = b"", *, value: object = None) -> None:
        """Offer the response of the last row, which is to the request of this index; ``value``: of a client."""
        self._waiting.append((len(self._recording) - 1, head, body, value))
        if self.keeps:
            super().offer(request, body, head)

    def read(self) -> None:
        """Read the figures of the responses that have come."""
        for row, head, body, value in self._waiting:
            self._pad(row)
            for name, number in self.reader.read(head, body, value).items():
                self._columns[name].append(number)
        self._waiting.clear()

    def clear(self) -> None:
        """Drop all responses, and what is known of those without a figure, at the start of the measured window."""
        super().clear()
        self.reader.without.clear()

    def columns(self) -> dict[str, PickleBuffer]:
        """The columns as raw buffers; a response that is too long, and a failure, have NaN."""
        self.read()
        self._pad(len(self._recording))
        return {f"{FIGURE}{name}": PickleBuffer(column) for name, column in self._columns.items()}

    def _pad(self, rows: int) -> None:
        for column in self._columns.values():
            column.extend([nan] * (rows - len(column)))


class StreamColumns:
    """Columns that grow by one row per finished request, in step with the recording's.

    ``text_limit``: most bytes of texts that are kept; 0 keeps none.

    ``texts_cut``: whether a text was not kept because of the limit. ``failed``: by outcome, the first answer that did
    not count and has a reason; of requests that were due in the window.
    """

    COLUMNS = ("first_byte_ns", "chunk_count", "output_tokens", "input_tokens", "chunk_ns")
    __slots__ = (*COLUMNS, "_text", "_text_bytes", "_text_limit", "_window_ns", "failed", "texts_cut")

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

    def add(self, answer: AnyAnswer | None) -> None:
        """Add the row of an answer; None if its request was never sent."""
        if self._text_limit:
            self._text_bytes.append(self._keep_text(answer))
        if answer is None:
            self.first_byte_ns.append(0)
            self.chunk_count.append(0)
            self.output_tokens.append(-1)
            self.input_tokens.append(-1)
            return
        self.first_byte_ns.append(answer.first_byte_ns)
        self.chunk_count.append(len(answer.chunk_ns))
        self.output_tokens.append(answer.reader.output_tokens)
        self.input_tokens.append(answer.reader.input_tokens)
        self.chunk_ns.extend(answer.chunk_ns)

    def note_failure(self, answer: AnyAnswer, outcome: int, *, request: int, due_ns: int) -> None:
        """Keep the description of an answer, if it is the first of its outcome."""
        if outcome in self.failed or due_ns < self._window_ns:
            return
        if words := answer.words(outcome):
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

    def _keep_text(self, answer: AnyAnswer | None) -> int:
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
