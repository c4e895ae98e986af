"""The samples of a load, one row per request, and the measured window.

numpy appears in annotations only, so that importing this module costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Window(Struct, frozen=True):
    """The measured stretch of time, on the clock of ``time.perf_counter_ns``."""

    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """Length of the window."""
        return self.end_ns - self.start_ns

    def covers(self, moments_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask of the moments in the window."""
        return (moments_ns >= self.start_ns) & (moments_ns < self.end_ns)


class StreamSamples(Struct, frozen=True):
    """What came in pieces: rows in the order of :class:`Samples`, arrays of shape ``(requests,)`` except ``chunk_ns``.

    Times are on the clock of ``time.perf_counter_ns``. A chunk is a piece of an answer with content, such as a token;
    pieces without content, such as the role of a chat, are none.
    """

    first_byte_ns: NDArray[np.int64]  # arrival of the first byte of the answer, that of its head, int64; 0 if none came
    chunk_count: NDArray[np.uint32]  # number of chunks, uint32; 0 if the answer was no stream
    # tokens of the answer by the server's usage, else by the user's count, int32; -1 without both
    output_tokens: NDArray[np.int32]
    input_tokens: NDArray[np.int32]  # tokens of the request by the server's usage, int32; -1 if it reported none
    chunk_ns: NDArray[np.int64]  # arrival of every chunk, request after request, int64, shape ``(chunks,)``


class Samples(Struct, frozen=True):
    """One row per request, all arrays of shape ``(requests,)``, in the order of completion.

    ``due_ns``, ``sent_ns`` and ``done_ns`` (int64) are on the clock of ``time.perf_counter_ns``: when the request was
    due, when the generator sent it or, if all connections were in use, was ready to send it, and when its last byte
    arrived. ``outcome`` (int16) is the HTTP status, or one of the negative codes of
    :class:`pytest_mlpatterns.records.outcomes.Failure`. ``request`` (uint32) is the index of the prepared request,
    ``target`` (uint8) the index of the address, ``received_bytes`` (uint32) the size of the whole response, headers
    included. ``stream`` has what came in pieces; None if the load was not read as a stream.
    """

    due_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    outcome: NDArray[np.int16]
    request: NDArray[np.uint32]
    target: NDArray[np.uint8]
    received_bytes: NDArray[np.uint32]
    stream: StreamSamples | None = None

    @property
    def came_in_pieces(self) -> bool:
        """Whether any answer was a stream with a chunk of content."""
        return self.stream is not None and self.stream.chunk_ns.size > 0

    @property
    def latency_ns(self) -> NDArray[np.int64]:
        """Time from when each request was due until its last byte arrived, in nanoseconds."""
        return self.done_ns - self.due_ns

    @property
    def send_lag_ns(self) -> NDArray[np.int64]:
        """Time by which the generator itself was late, in nanoseconds; the wait for a connection is the service's."""
        return self.sent_ns - self.due_ns

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """Mask of the requests that got a 2xx response."""
        return (self.outcome >= 200) & (self.outcome < 300)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Mask of the requests that got no 2xx response."""
        return ~self.succeeded

    def due_in(self, window: Window) -> NDArray[np.bool_]:
        """Mask of the requests that were due in the window."""
        return window.covers(self.due_ns)

    def successes_in(self, window: Window) -> NDArray[np.bool_]:
        """Mask of the successful requests that were due in the window."""
        return self.due_in(window) & self.succeeded
