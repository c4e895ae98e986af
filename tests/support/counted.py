"""How each metric counts the requests that were due: those that it judges, those that failed, and those that it names.

What a metric judges is counted by its own values, so that a request which none of the three counts is missing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, METRICS, goodput_metric
from pytest_mlpatterns.analysis.metrics.metric import StreamPercentile
from pytest_mlpatterns.analysis.metrics.metric_makers import stream_metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.objective import Promise, parse_promise
from pytest_mlpatterns.records.package_layers import package_figures

_OF_WHOLE_ANSWERS = frozenset(("rtm", "p90", "p95", "p99", "throughput", "error_rate", "cpu_per_request", "pc")) | {
    "request_bytes",
    "response_bytes",
    "cost",
    "total_time",
}
"""Metrics of every answer: all successful requests are judged."""
_OF_NO_REQUEST = frozenset(
    (
        *(name for name, metric in METRICS.items() if metric.of is None or name in GROWTHS),
        *(figure.name for figure in package_figures()),
        *("asl", "peak_memory", "cold_start"),
    )
)
"""Metrics of processes, patterns and searches, which have no count of these requests."""
_PROMISES = ("latency<1h", "ttft<1h", "tpot<1h", "itl<1h", "ttft<1h, tpot<1h")


class Counted(NamedTuple):
    """The requests that were due, by what one metric does with them."""

    judged: int
    failed: int
    named: int


def counted_requests(metrics: Metrics) -> dict[str, Counted]:
    """The counts of every metric and of some promises, by name."""
    failed = sum(metrics.failures.values())
    found = {name: Counted(metrics.latencies_ns.size, failed, 0) for name in _OF_WHOLE_ANSWERS}
    for name, metric in METRICS.items():
        if isinstance(metric.kind, StreamPercentile):
            quantity = metric.kind.quantity
            found[name] = Counted(_judged(metrics, quantity), failed, _named(metrics.unjudged(stream_metric(quantity))))
    without_token = _named(metrics.unjudged(stream_metric("ttft")))
    found["output_tokens"] = Counted(_with_tokens(metrics), failed, without_token)
    found["output_tokens_per_user"] = found["tpot"]
    assert set(found) | _OF_NO_REQUEST == set(METRICS)
    for text in _PROMISES:
        promise = parse_promise(text)
        judged = _promised(metrics, promise) - failed
        found[text] = Counted(judged, failed, _named(metrics.unjudged(goodput_metric(promise))))
    return found


def _judged(metrics: Metrics, quantity: str) -> int:
    streams = [blocks.streams for blocks in metrics.by_launch if blocks.streams is not None]
    if quantity == "itl":  # its values are gaps, of which an answer has many
        return sum(
            int((_good(metrics, number) & (one.times.chunk_count >= 2)).sum()) for number, one in enumerate(streams)
        )
    return sum(one.values(quantity).ascending.size for one in streams)


def _promised(metrics: Metrics, promise: Promise) -> int:
    """The requests that kept a promise or broke it, those that failed included, from the two rates of each launch."""
    total = 0
    for launch, blocks in zip(metrics.launches, metrics.by_launch, strict=True):
        counted = blocks.promise(promise)
        rate, share = counted.goodput(), counted.attainment()
        total += round(rate.value * launch.window.duration_ns / 1e9 / share.value)
    return total


def _with_tokens(metrics: Metrics) -> int:
    streams = [blocks.streams for blocks in metrics.by_launch if blocks.streams is not None]
    return sum(int((_good(metrics, number) & one.times.has_chunks).sum()) for number, one in enumerate(streams))


def _good(metrics: Metrics, number: int) -> NDArray[np.bool_]:
    launch = metrics.launches[number]
    return launch.samples.successes_in(launch.window)


def _named(sentence: str) -> int:
    """The number of answers that a sentence names; 0 if it is empty."""
    return int(sentence.partition(" ")[0].replace(",", "")) if sentence else 0
