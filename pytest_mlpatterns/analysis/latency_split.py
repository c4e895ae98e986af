"""Where the time of requests went: latencies of launches as the sum of parts, from what both ends measured.

The load generator knows the whole latency, and what passed until a request was sent. The layer ``split`` of the
telemetry has what the outermost process of a pattern measured: the residence of its requests and the parts of it. What
is left of the residence is the time of the server, and what is left of the latency that of sockets, with the wait
until the process reads a request. So the parts add up by construction. Where they are longer than the whole by over
5 %, the difference is a part of its own, with its sign.

The names in that layer are those of :mod:`pytest_mlpatterns.patterns.split_tally`. Its histograms hold sums by the
residence of the requests, so that the parts of a request near the median are known. Pure; it must not know patterns,
nor what a split is compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, get_args

import numpy as np

from pytest_mlpatterns.analysis.stream_times import StreamTimes
from pytest_mlpatterns.records.latency_split import LAYER, PARTS, LatencySplit, SplitMetric, SplitPart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.latency_split import LatencySplits
    from pytest_mlpatterns.records.launch import Launch
    from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = ["splits_of"]

_Key = tuple[str, str]
"""Name of a part, and the stage or model that it is of."""
_MIDDLE = (40, 60)
"""Percentiles between which a request is near the median."""
_EXPLAINED = 0.05
"""Share of the whole by which the parts may be longer than it."""
_TWO_SPEEDS = 0.2
"""Share of the median latency by which the remainder of the median may be longer than that of the mean."""
_SHORTEST_NS = 1.0
"""A shorter part is none: clocks are not that fine, and sums of numbers are not either."""
_PRIOR_SD = 0.05
"""Relative standard deviation of a part between launches that is assumed, with :data:`_PRIOR_DEGREES`."""
_PRIOR_DEGREES = 2
_RESIDENCE = ("total_ns", "")
_OF_STREAMS = ("ttft:", "tpot:")
_REPORTED = (
    ("queued", "wait_ns", "queue_wait"),
    ("batched", "wait_ns", "batch_wait"),
    ("batched", "call_ns", "model_call"),
)
"""What other servers report: layer, histogram, part."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """A latency of one launch, as the load generator measured it.

    Attributes:
        latency_ns: of each successful request, shape ``(requests,)``.
        lag_ns: how late each was sent, likewise; 0 in a closed loop, and for times that begin after that.
        connection_ns: wait for a connection, a mean over the requests.
        connection_median_ns: the same of a request near the median.
        share: this latency over the time that the process measures for it, on average: 1 over the tokens of an answer
            for the time per token.
    """

    latency_ns: NDArray[np.float64]
    lag_ns: NDArray[np.float64]
    connection_ns: float = 0.0
    connection_median_ns: float = 0.0
    share: float = 1.0

    @property
    def mean_ns(self) -> float:
        return float(self.latency_ns.mean())

    @property
    def median_ns(self) -> float:
        return float(np.median(self.latency_ns))

    @property
    def outside(self) -> dict[_Key, tuple[float, float]]:
        """What passes before a request is sent: mean, and median."""
        return {
            ("send_wait", ""): (float(self.lag_ns.mean()), float(self.lag_ns[_middle(self.latency_ns)].mean())),
            ("connection", ""): (self.connection_ns, self.connection_median_ns),
        }

    def less(self, parts: Mapping[_Key, tuple[float, float]]) -> tuple[float, float]:
        """Mean and median without these parts."""
        taken = [sum(value[place] for value in parts.values()) for place in (0, 1)]
        return self.mean_ns - taken[0], self.median_ns - taken[1]


def splits_of(launches: Sequence[Launch]) -> LatencySplits:
    """The splits of launches: of RTM, and if the answers streamed of TTFT and TPOT; each averaged over the launches.

    Args:
        launches: of one deployment, or of several of one kind.
    """
    streams = all(launch.samples.came_in_pieces for launch in launches)
    found: dict[SplitMetric, LatencySplit] = {}
    for metric in get_args(SplitMetric) if streams else ("rtm",):
        known = [(launch, whole) for launch in launches if (whole := _whole(launch, metric)) is not None]
        if known:
            found[metric] = _pooled(metric, known)
    return found


def _whole(launch: Launch, metric: SplitMetric) -> _Whole | None:
    """A latency of the successful requests of the window; None without one."""
    samples, good = launch.samples, launch.samples.successes_in(launch.window)
    if samples.stream is None or metric == "rtm":
        return _since_due(launch, samples.latency_ns.astype(np.float64), good)
    times = StreamTimes(samples, samples.stream)
    if metric == "ttft":
        return _since_due(launch, times.ttft_ns, good & times.has_chunks)
    good = good & np.isfinite(times.tpot_ns)
    if not good.any():
        return None
    each_ns = times.tpot_ns[good]
    whole_ns = each_ns * np.maximum(times.tokens[good] - 1, 1)
    return _Whole(each_ns, np.zeros_like(each_ns), share=float(each_ns.mean() / max(whole_ns.mean(), 1.0)))


def _since_due(launch: Launch, latency_ns: NDArray[np.float64], good: NDArray[np.bool_]) -> _Whole | None:
    """A latency that begins when a request is due."""
    if not good.any():
        return None
    report = launch.generator
    lag_ns = launch.samples.send_lag_ns[good].astype(np.float64)
    completed = max(report.completed, 1)
    waited_ns = report.connection_wait_ns / completed
    return _Whole(
        latency_ns[good],
        lag_ns if launch.open_loop else np.zeros_like(lag_ns),
        waited_ns,
        waited_ns if 2 * report.connection_waits >= completed else 0.0,
    )


def _pooled(metric: SplitMetric, known: Sequence[tuple[Launch, _Whole]]) -> LatencySplit:
    """The split of several launches, each of equal weight."""
    by_launch = [_parts(launch, metric, whole) for launch, whole in known]
    order = {name: place for place, name in enumerate(PARTS)}
    keys = sorted({key for parts in by_launch for key in parts}, key=lambda key: order[key[0]])
    parts = [_part(key, [parts.get(key, (0.0, 0.0)) for parts in by_launch]) for key in keys]
    calls = [_calls(layer) for launch, _ in known if (layer := _layer(launch)) is not None]
    return LatencySplit(
        metric,
        fmean(whole.mean_ns for _, whole in known),
        fmean(whole.median_ns for _, whole in known),
        sum(whole.latency_ns.size for _, whole in known),
        tuple(part for part in parts if max(abs(part.mean_ns), abs(part.median_ns)) >= _SHORTEST_NS),
        {of: fmean(found.get(of, 0.0) for found in calls) for of in dict.fromkeys(of for one in calls for of in one)},
    )


def _part(key: _Key, values: Sequence[tuple[float, float]]) -> SplitPart:
    means, medians = zip(*values, strict=True)
    return SplitPart(*key, fmean(means), fmean(medians), max(_error(means), _error(medians)))


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean over launches; a few launches alone would promise too much."""
    mean, degrees = fmean(values), _PRIOR_DEGREES + len(values) - 1
    scatter = sum((value - mean) ** 2 for value in values)
    variance = (_PRIOR_DEGREES * (_PRIOR_SD * mean) ** 2 + scatter) / degrees
    return math.sqrt(variance / len(values))


def _parts(launch: Launch, metric: SplitMetric, whole: _Whole) -> dict[_Key, tuple[float, float]]:
    """Mean and median of every part of one launch; they add up to the mean and median of the whole."""
    parts, inside = whole.outside, _inside(launch, metric, whole)
    if inside is None:
        rest = ("service", "")
        service = whole.less(parts)
        parts |= _reported(launch, service, whole.latency_ns.size) if metric == "rtm" else {}
    else:
        rest = ("socket", "")
        parts |= inside
    mean, median = whole.less(parts)
    typical = whole.median_ns / whole.mean_ns if whole.mean_ns else 1.0
    most = max(mean, typical * mean) + _TWO_SPEEDS * whole.median_ns
    if (
        inside is not None and not -_EXPLAINED * whole.median_ns <= median <= most
    ):  # two speeds: near its median the residence is another one
        parts = {key: (of_mean, typical * of_mean) for key, (of_mean, _) in parts.items()}
        mean, median = whole.less(parts)
    if mean < -_EXPLAINED * whole.mean_ns or median < -_EXPLAINED * whole.median_ns:
        rest = ("unexplained", "")
    return {**parts, rest: (mean, median)}


# --- what the outermost process measured -----------------------------------------------------------------------------


def _layer(launch: Launch) -> LayerStats | None:
    """What the outermost process measured of its requests; None if none did, as in a service of the user's own."""
    found = () if launch.stats is None else launch.stats.layers_named(LAYER)
    return next((layer for layer in found if layer.counters.get("requests", 0)), None)


def _inside(launch: Launch, metric: SplitMetric, whole: _Whole) -> dict[_Key, tuple[float, float]] | None:
    """Mean and median of the parts of the residence, which they add up to; None if no request was measured."""
    layer, prefix = _layer(launch), "" if metric == "rtm" else f"{metric}:"
    if layer is None or not (requests := layer.counters.get(f"{prefix}requests", 0)):
        return None
    means = {key: whole.share / requests * ns for key, ns in _times(layer.counters, prefix).items()}
    if metric == "tpot":  # a token near the median is of any request
        typical = whole.median_ns / whole.mean_ns if whole.mean_ns else 1.0
        medians = {key: typical * ns for key, ns in means.items()}
    else:
        medians = _near_median(layer, prefix)
    keys = [key for key in means if key != _RESIDENCE]
    parts = {key: (means[key], medians.get(key, 0.0)) for key in keys}
    mean, median = (of.get(_RESIDENCE, 0.0) - sum(of.get(key, 0.0) for key in keys) for of in (means, medians))
    return {**parts, ("server", ""): (mean, median)}


def _times(counters: Mapping[str, int], prefix: str = "") -> dict[_Key, int]:
    """The residence and its parts, in nanoseconds over all requests."""
    found = {}
    for counter, ns in counters.items():
        if counter.startswith(prefix) and (prefix or not counter.startswith(_OF_STREAMS)):
            of, _, name = counter.removeprefix(prefix).rpartition("/")
            if name in PARTS or (name, of) == _RESIDENCE:
                found[name, of] = ns
    return found


def _near_median(layer: LayerStats, prefix: str) -> dict[_Key, float]:
    """Residence and parts of a request near the median of the residence: those from p40 to p60, on average."""
    requests = layer.histograms.get(f"{prefix}requests", {})
    total, below = sum(requests.values()), 0
    first, last = (total * percent / 100 for percent in _MIDDLE)
    shares = {}
    for bucket in sorted(requests):
        inside = min(below + requests[bucket], last) - max(below, first)
        below += requests[bucket]
        if inside > 0:
            shares[bucket] = inside / (requests[bucket] * (last - first))  # of the sum of its requests
    found: dict[_Key, float] = {}
    for name, sums in layer.histograms.items():
        for key in _times({name: 0}, prefix):
            found[key] = sum(share * sums.get(bucket, 0) for bucket, share in shares.items())
    return found


def _middle(latency_ns: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the requests near the median, at least one."""
    first, last = (latency_ns.size * percent / 100 for percent in _MIDDLE)
    nearest: NDArray[np.int64] = np.argsort(latency_ns, kind="stable")[math.floor(first) : math.ceil(last)]
    return nearest


def _calls(layer: LayerStats) -> dict[str, float]:
    """Calls of each model per request."""
    requests = layer.counters["requests"]
    counted = ((counter, times) for counter, times in layer.counters.items() if not counter.startswith(_OF_STREAMS))
    named = ((counter.rpartition("/"), times) for counter, times in counted)
    return {of: times / requests for (of, _, name), times in named if name == "calls"}


# --- what another server reports -------------------------------------------------------------------------------------


def _reported(launch: Launch, service: tuple[float, float], requests: int) -> dict[_Key, tuple[float, float]]:
    """Mean and median of the waits and calls that a server reports, as far as they fit into its service time.

    Args:
        launch: with the telemetry of the server.
        service: mean and median of the time in the service.
        requests: successful ones.
    """
    found: dict[_Key, tuple[float, float]] = {}
    left = service
    for layer in () if launch.stats is None else launch.stats.layers:
        for name, histogram, part in _REPORTED:
            mean = layer.mean(histogram)
            if layer.layer != name or mean is None or (part, "") in found:
                continue
            share = min(_observed(layer, histogram) / requests, 1.0)  # a cache before it lets few through
            median = layer.median(histogram)
            typical = 0.0 if share < 0.5 else mean if median is None else median
            found[part, ""] = (min(share * mean, max(left[0], 0.0)), min(typical, max(left[1], 0.0)))
            left = (left[0] - found[part, ""][0], left[1] - found[part, ""][1])
    return found


def _observed(layer: LayerStats, histogram: str) -> int:
    """How many requests a reported time is of; every input of a batch waits for its whole call."""
    if histogram == "call_ns" and (items := layer.counters.get("items", 0)):
        return items
    return layer.counters.get(f"{histogram}_count", 0) or sum(layer.histograms.get(histogram, {}).values())
