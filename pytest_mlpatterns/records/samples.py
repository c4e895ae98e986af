"""The samples of a load, one row per request; the measured window; and what the deployment held, and how that grew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from pytest_mlpatterns.records.codec import Count, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.launch import Estimate


class ResourceTrack(Struct, frozen=True):
    """Readings of one deployment, arrays of shape ``(readings,)``."""

    requests: NDArray[np.int64]  # requests answered until the reading; it never falls
    rss_bytes: NDArray[np.int64]  # resident memory of the process tree
    # open file descriptors of the process tree; None if the system does not show them
    descriptors: NDArray[np.int64] | None = None
    threads: NDArray[np.int64] | None = None  # threads of the process tree; None as for descriptors


class Growth(Struct, frozen=True):
    """How one resource grew per request, over one track."""

    requests: int  # requests from the first reading to the last one
    slope: Estimate  # growth per request over the second half of the track
    recent: Estimate  # the same over the last quarter
    gained: float  # growth over the second half
    levels_off: bool  # whether the growth slows down, stops or comes in single steps, so that it need not go on

    def exceeds(self, limit: float, least: float) -> bool:
        """Whether it is a leak: growth per request surely above a limit, large enough, and not levelling off."""
        return self.slope.low > limit and self.gained >= least and not self.levels_off

    def stays_below(self, limit: float) -> bool:
        """Whether it is surely below a limit, in the second half or at least in the last quarter."""
        return min(self.slope.high, self.recent.high) < limit


class GrowthRecord(Record, frozen=True):
    """The memory of a deployment over one long load, for reports."""

    requests: tuple[Count, ...]  # requests answered until each reading
    rss_bytes: tuple[Count, ...]  # resident memory at each reading
    # growth in bytes per request over the second half, ``(value, low, high)``; None if too little was read
    slope: tuple[float, float, float] | None
    levels_off: bool  # whether that growth need not go on


Traced = Literal["", "start", "load"]  # Since when processes follow their allocations: never, or from there on
HELD_LAYER = "held memory"
"""Name of the layer of the telemetry with which the processes of a deployment report what their lines hold.

Its counters are bytes by ``LINE:FILE``, and ``total`` for all of them.
"""


class HeldMemory(Struct, frozen=True):
    """What the processes of one side held, by the line that allocated it."""

    # bytes by file and line: the innermost line of the user's code, or of any code if there is none
    sites: Mapping[tuple[str, int], float]
    total_bytes: float  # of all lines, also those that are not among the largest
    requests: int = 0  # answered between the two readings whose difference this is; 0 for a reading since the start


class MemorySite(Struct, frozen=True):
    """A function that holds memory."""

    function: str  # qualified name; ``<module>`` for the code of a module itself
    file: str  # relative to pytest's root directory, to site-packages or to the standard library
    line: Count  # the one that holds most at present
    source: str  # its text; empty if unknown
    before: float  # bytes at the reference, or bytes per request for a growth
    now: float  # the same at present

    @property
    def change(self) -> float:
        """Now less before."""
        return self.now - self.before


class HeldRecord(Record, frozen=True):
    """Where the memory of a test went that holds more, or leaks, at present."""

    note: str = ""  # why that is not known; empty if it is
    per_request: bool = False  # whether the figures are bytes per request instead of bytes
    before: float = 0.0  # held by all lines at the reference
    now: float = 0.0  # the same at present
    sites: tuple[MemorySite, ...] = ()  # functions that hold more, the largest first


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

    first_byte_ns: NDArray[np.int64]  # arrival of the first byte of the answer, in its head, int64; 0 if none came
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
    included. ``stream`` has what came in pieces; None if the load was not read as a stream. ``figures`` are read
    from answers, by name (float64, in the unit of the metric); NaN of an answer that does not have one.
    """

    due_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    outcome: NDArray[np.int16]
    request: NDArray[np.uint32]
    target: NDArray[np.uint8]
    received_bytes: NDArray[np.uint32]
    stream: StreamSamples | None = None
    figures: Mapping[str, NDArray[np.float64]] = {}

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

    def idle_ns(self, window: Window, callers: int) -> int:
        """Time of a window in which the callers of a closed loop had no request in flight, summed over them."""
        ends = window.start_ns, window.end_ns
        in_flight_ns = int((self.done_ns.clip(*ends) - self.due_ns.clip(*ends)).sum())
        return max(callers * window.duration_ns - in_flight_ns, 0)

    def span_of(self, window: Window, *, answered: bool) -> Window:
        """From when the first request of a window was due until the last one was, or was answered."""
        inside = self.due_in(window)
        if not inside.any():
            return window
        end_ns = self.done_ns[inside].max() if answered else self.due_ns[inside].max() + 1
        return Window(int(self.due_ns[inside].min()), int(end_ns))

    def successes_in(self, window: Window) -> NDArray[np.bool_]:
        """Mask of the successful requests that were due in the window."""
        return self.due_in(window) & self.succeeded
