"""What reports show of the streams of a test: distributions, tokens over time, some requests. Pure; judges nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.latency_distribution import latency_of, stored_percentiles
from pytest_mlpatterns.analysis.metric_definitions import STREAM_QUANTITIES
from pytest_mlpatterns.analysis.stream_times import StreamTimes
from pytest_mlpatterns.records.stream_record import StreamedRequest, StreamRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.records.latency import Latency, Percentiles
    from pytest_mlpatterns.records.launch import Estimate, Launch

__all__ = ["stream_percentiles", "stream_record"]

_MOST_REQUESTS = 24
"""Most requests that a record shows one by one."""
_MOST_CHUNKS = 32
"""Most chunks of each of them."""


def stream_record(metrics: Metrics) -> StreamRecord | None:
    """What reports need of the streams of these launches; None if no answer came in pieces."""
    found = [(launch, blocks.streams) for launch, blocks in zip(metrics.launches, metrics.by_launch, strict=True)]
    streaming = [(launch, streams) for launch, streams in found if streams is not None]
    if not metrics.streams:
        return None
    last_launch, last = streaming[-1]
    streams = [streams for _, streams in streaming]
    return StreamRecord(
        ttft=_pooled([one.first_ns for one in streams]),
        itl=_pooled([one.gaps_ns for one in streams]),
        tpot=_pooled([one.per_token_ns for one in streams]),
        tokens_over_time=last.tokens_over_time(),
        requests=_some_requests(last_launch),
        input_tokens=_plain(metrics.input_tokens),
        output_tokens=_plain(metrics.output_tokens),
    )


def stream_percentiles(metrics: Metrics) -> dict[str, Percentiles]:
    """The distributions of TTFT, ITL and TPOT in a few percentiles, by name; empty if no answer came in pieces."""
    if (record := stream_record(metrics)) is None:
        return {}
    return {name: percentiles for name in STREAM_QUANTITIES if (percentiles := stored_percentiles(record.of(name)))}


def _pooled(values: Sequence[NDArray[np.float64]]) -> Latency | None:
    return latency_of(np.concatenate(values).astype(np.int64))


def _some_requests(launch: Launch) -> tuple[StreamedRequest, ...]:
    """Neighbouring requests from the middle of the window, so that it is visible how they overlap."""
    samples, window = launch.samples, launch.window
    assert samples.stream is not None  # the launch has streams
    times, first_byte_ns = StreamTimes(samples, samples.stream), samples.stream.first_byte_ns
    due = np.flatnonzero(window.covers(samples.due_ns))
    due = due[np.argsort(samples.due_ns[due], kind="stable")]
    begin = max((due.size - _MOST_REQUESTS) // 2, 0)

    def shown(row: int) -> StreamedRequest:
        due_ns, head_ns = int(samples.due_ns[row]), int(first_byte_ns[row])
        return StreamedRequest(
            due_ns=due_ns - window.start_ns,
            first_byte_ns=head_ns - due_ns if head_ns else None,
            chunks_ns=tuple(_thinned(times.since_due_ns(row)).tolist()),
            end_ns=int(samples.latency_ns[row]),
            chunks=int(times.chunk_count[row]),
            output_tokens=int(times.tokens[row]),
            outcome=int(samples.outcome[row]),
        )

    return tuple(shown(row) for row in due[begin : begin + _MOST_REQUESTS].tolist())


def _thinned(arrivals_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first arrival, the last one, and evenly spread ones between them."""
    if arrivals_ns.size <= _MOST_CHUNKS:
        return arrivals_ns
    return arrivals_ns[np.linspace(0, arrivals_ns.size - 1, _MOST_CHUNKS).round().astype(np.int64)]


def _plain(found: Estimate | None) -> tuple[float, float, float] | None:
    return None if found is None else (found.value, found.low, found.high)
