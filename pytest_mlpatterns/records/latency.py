"""A distribution of times in a few numbers: of the latency, and of what streams have instead. Plain values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from pytest_mlpatterns.records.codec import Count, Record
from pytest_mlpatterns.records.telemetry import Histogram

Percentiles = tuple[tuple[float, float], ...]
"""``(percent, nanoseconds)``, both ascending; empty if no request succeeded."""


class LatencyHistogram(Struct, frozen=True):
    """Counts of the successful requests by latency: ``counts[i]`` from ``edges_ns[i]`` to ``edges_ns[i + 1]``.

    There is one edge more than counts. The edges are evenly spaced on a logarithmic scale; the last interval includes
    both of its edges.
    """

    edges_ns: tuple[float, ...]
    counts: tuple[Count, ...]


class Latency(Record, frozen=True):
    """Latency distribution of the successful requests, pooled over all launches; or of their TTFT, ITL or TPOT."""

    # from 0 to 100, as far into the tail as the number of requests allows; observed values, not bounds
    percentiles: Percentiles
    histogram: LatencyHistogram  # the same requests, counted by latency
    mean_ns: float  # arithmetic mean, for programs that read the result file; reports show the median
    sd_ns: float  # standard deviation, for these programs too


def interpolated(percentiles: Percentiles, percent: float) -> float:
    """The latency at a percentile, interpolated linearly between the two nearest known ones.

    ``percentiles``: at least one; outside their range the nearest one is returned.
    """
    above = bisect_left(percentiles, (percent,))
    if above in (0, len(percentiles)):
        return percentiles[min(above, len(percentiles) - 1)][1]
    (before, low), (after, high) = percentiles[above - 1], percentiles[above]
    return low + (high - low) * (percent - before) / (after - before)


class RequestCounts(Struct, frozen=True):
    """Requests of one launch."""

    requests: Count  # number of requests that were due in the window
    failed: Count  # those without a 2xx answer
    latencies: Histogram  # count of each latency of the others, in nanoseconds, rounded to seven leading bits (0.8 %)
    streams: Mapping[str, Histogram] = {}  # the same of TTFT and TPOT, by name; empty without streams

    def of_streams(self, quantity: str) -> RequestCounts | None:
        """The requests that have a time of streams, and the failed ones; None if they are not known."""
        if (times := self.streams.get(quantity)) is None:
            return None
        return RequestCounts(sum(times.values()) + self.failed, self.failed, times)


SplitMetric = Literal["rtm", "ttft", "tpot"]
SPLIT_LAYER = "split"  # Name of the layer of the telemetry that a split is made of
PARTS: Mapping[str, str] = {
    "send_wait": "waiting to be sent",  # from when the request was due in an open loop until the generator sent it
    "connection": "connection",  # the wait of the request for a connection, or for one that opens
    "wire": "wire",  # decoding, encoding and compression, in every process
    "hop": "hop",  # transport to another process, without its work and its waits
    "model_cpu": "model on CPU",  # the thread of the model's call runs
    "model_gc": "garbage collection",  # in the model's call
    "run_queue": "ready but not running",  # the thread of the model's call, while the system ran another one
    "model_wait": "model waits",  # for a lock, a sleep, I/O, a GPU, threads that help
    "model_block": "event loop blocked",  # by a coroutine of the model that does not run
    "model_call": "model call",  # as a service reports it, running and waiting
    "queue_wait": "queue wait",  # in a queue, or until a process has finished another request
    "batch_wait": "batch wait",  # until the batch was complete
    "shared_wait": "waiting for another request's call",  # for the same call
    "service": "service",  # whose inside is not known (``App``, ``Command``, a URL)
    "server": "server and layers",  # without everything above
    "socket": "waiting in sockets",  # and until the process reads the request
    "unexplained": "not explained",  # what the parts are longer than the whole, a negative time, if over 5 % of it
}
"""Every part with its label, in the order of reports, and what time it is."""
SERVICE_PARTS = frozenset(
    {
        *("wire", "hop", "model_cpu", "model_gc", "run_queue", "model_wait", "model_block", "model_call"),
        *("service", "server"),
    }
)
"""Parts in which a request is worked on; in the others it waits for requests before it."""


class SplitPart(Struct, frozen=True):
    """One part of a latency."""

    name: str  # in :data:`PARTS`
    of: str  # stage or model; empty if there is only one, or if the part is of none
    mean_ns: float  # over the requests
    median_ns: float  # of the requests whose latency is near the median
    error_ns: float  # standard error of both over launches
    # of the median alone, since slow requests scatter the mean much more; None in a baseline, which has that of both
    median_error_ns: float | None = None

    def error_of(self, statistic: Literal["mean", "median"]) -> float:
        """Standard error of the mean or the median."""
        if statistic == "median" and self.median_error_ns is not None:
            return self.median_error_ns
        return self.error_ns

    @property
    def label(self) -> str:
        """``model on CPU``, or ``model on CPU (features)`` of a stage or model."""
        return f"{PARTS[self.name]} ({self.of})" if self.of else PARTS[self.name]


class LatencySplit(Record, frozen=True):
    """A latency as the sum of its parts, over all launches of a test."""

    metric: SplitMetric  # the latency
    mean_ns: float  # sum of the means of the parts
    median_ns: float  # sum of the medians of the parts
    requests: int  # successful requests behind it
    parts: tuple[SplitPart, ...]  # in the order of :data:`PARTS`; parts of no time are left out
    # calls of each model per request, by stage or model: 1/16 in batches of 16, 0.08 behind a cache
    calls: Mapping[str, float] = {}

    def part(self, name: str, of: str = "") -> SplitPart | None:
        """The part of this name; None if it takes no time."""
        return next((part for part in self.parts if (part.name, part.of) == (name, of)), None)


LatencySplits = Mapping[SplitMetric, LatencySplit]
"""The splits of one test: of RTM, and for answers that stream of TTFT and TPOT."""


STREAM_QUANTITIES = ("ttft", "itl", "tpot")
"""Times of streams: time to first token, inter-token latency, time per output token."""
COUNTED_QUANTITIES = ("ttft", "tpot")  # Those that each request has one of, so that slow requests can be counted


class StreamRecord(Record, frozen=True):
    """The streams of one test."""

    # time to first token of the successful requests, pooled over all launches; None if none had a token
    ttft: Latency | None
    itl: Latency | None  # gaps between neighbouring chunks of one answer; None if no answer had two
    tpot: Latency | None  # time per output token of each request; None as for ``itl``
    # ``(seconds, output tokens per second)`` of each block of the last launch; a moment is the end of its block.
    # Tokens of failed answers are not counted
    tokens_over_time: tuple[tuple[float, float], ...]
    # mean number of a request, ``(value, low, high)``; None if the server does not report it
    input_tokens: tuple[float, float, float] | None
    output_tokens: tuple[float, float, float] | None  # the same of an answer

    def of(self, quantity: str) -> Latency | None:
        """The distribution of ``ttft``, ``itl`` or ``tpot``."""
        found: Latency | None = getattr(self, quantity)
        return found
