"""Where the time of requests went: latencies of launches as the sum of parts, from what both ends measured.

The load generator knows the whole latency, and what passed until a request was sent. The layer ``split`` of the
telemetry has what the outermost process of a pattern measured: the residence of its requests and the parts of it. What
is left of the residence is the time of the server, and what is left of the latency the time of sockets, with the wait
until the process reads a request. So the parts add up by construction. If they are longer than the whole by over 5 %,
the difference is a part of its own, with its sign.

The names in that layer come from :mod:`pytest_mlpatterns.patterns.tally`. Its histograms hold sums by the
residence of the requests, so that the parts of a request near the median are known. Pure; it must not know patterns,
nor what a split is compared with.

Parts depend on each other: when the model is called more often, its time per request grows though a call is as fast as
before, and when a request takes longer to serve, those behind it wait longer. On a busy machine code that runs longer
also waits longer for a processor. So the order is by cause, not by size: calls of the model first, then the parts of
the code, then those that a busy machine stretches, then the waits. Pure.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Literal, get_args

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.samples import StreamTimes
from pytest_mlpatterns.records.latency import (
    PARTS,
    SERVICE_PARTS,
    SPLIT_LAYER,
    LatencySplit,
    LatencySplits,
    SplitMetric,
    SplitPart,
)
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.package_layers import layer_kind
from pytest_mlpatterns.records.telemetry import LayerStats

_Key = tuple[str, str]  # Name of a part, and the stage or model that it is of
_MIDDLE = (40, 60)  # Percentiles between which a request is near the median
_EXPLAINED = 0.05  # Share of the whole by which the parts may be longer than it
_TWO_SPEEDS = 0.2
"""Share of the median latency by which the remainder of the median may be longer than the mean's."""
_SHORTEST_NS = 1.0  # A shorter part is none: clocks are not that fine, and sums of numbers are not either
_PRIOR_SD = 0.05  # Relative standard deviation of a part between launches that is assumed, with :data:`_PRIOR_DEGREES`
_PRIOR_DEGREES = 2  # Degrees of freedom of the assumed deviation: it weighs as three launches do
_RESIDENCE = ("total_ns", "")
_OF_STREAMS = ("ttft:", "tpot:")


class _Whole(Struct, frozen=True):
    """A latency of one launch, as the load generator measured it."""

    latency_ns: NDArray[np.float64]  # of each successful request, shape ``(requests,)``
    # how late each was sent, in the same shape; 0 in a closed loop, and for times that begin after that
    lag_ns: NDArray[np.float64]
    connection_ns: float = 0.0  # wait for a connection, a mean over the requests
    connection_median_ns: float = 0.0  # the same of a request near the median
    # this latency over the time that the process measures for it, on average: 1 over the tokens of an answer for
    # the time per token
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
    """The splits of launches: of RTM, and if the answers streamed of TTFT and TPOT; each averaged over the launches."""
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
    error_ns = _error(medians)
    return SplitPart(*key, fmean(means), fmean(medians), max(_error(means), error_ns), error_ns)


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


def _layer(launch: Launch) -> LayerStats | None:
    """What the outermost process measured of its requests; None if none did, as in a service of the user's own."""
    found = () if launch.stats is None else launch.stats.layers_named(SPLIT_LAYER)
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


def _reported(launch: Launch, service: tuple[float, float], requests: int) -> dict[_Key, tuple[float, float]]:
    """Mean and median of the waits and calls that a server reports, as far as they fit into its service time."""
    found: dict[_Key, tuple[float, float]] = {}
    left = service
    for layer in () if launch.stats is None else launch.stats.layers:
        for histogram, part in layer_kind(layer.layer).split:
            mean = layer.mean(histogram)
            if mean is None or (part, "") in found:
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


_NAMED = 0.05  # Share of the whole change from which a part is named
_CERTAIN = 2.0  # Standard errors from which a change of a part is no noise
_CALLS = 0.10  # Relative change of the number of calls from which it is a cause
_FEWEST_CALLS = 0.005  # Change of the number of calls per request below which it is none
_FOLLOWS = 0.2
"""Share of the whole change that the parts of the service, or a function, explain if the waits follow from them."""
_GROWN = 0.05
"""Growth of the service in an open loop from which its queue follows from it: near its limit a little is enough."""
_MOST_BEHIND = 50  # Multiple of the service's growth that a queue behind it may grow by
_SHORTEST_CHANGE_NS = 1.0  # Least change of a part, in nanoseconds: the step of the clock
_STRETCHED = ("server", "hop")
"""Parts around the code of users, in which a process may also wait for a processor that others use."""
_MOST_STRETCHED = 10.0  # Multiple of the code's growth that these may grow by
_CODE, _AROUND, _RUN_QUEUE, _WAIT = range(4)  # Kinds of a part; each may follow from those before it
_NO_PART = SplitPart("server", "", 0.0, 0.0, 0.0)


class CallsChange(Struct, frozen=True):
    """How often a model is called per request, before and now; ``of`` is its stage or model, as in a part."""

    of: str
    before: float
    now: float


class PartChange(Struct, frozen=True):
    """One part of a latency, before and now."""

    name: str  # of the part
    of: str  # stage or model
    before_ns: float  # at the reference
    now_ns: float  # at present
    error_ns: float  # standard error of the change
    label: str  # in reports

    @property
    def change_ns(self) -> float:
        """Now less before."""
        return self.now_ns - self.before_ns

    @property
    def is_service(self) -> bool:
        """Whether a request is worked on in this part; else it waits."""
        return self.name in SERVICE_PARTS

    @property
    def kind(self) -> int:
        """What it is: the code, what is around it, the run queue, or a wait; each may follow from those before it."""
        if not self.is_service:
            return _WAIT
        return _RUN_QUEUE if self.name == "run_queue" else _AROUND if self.name in _STRETCHED else _CODE


class SplitChange(Struct, frozen=True):
    """How a latency and its parts changed."""

    total_ns: float  # change of the whole
    # models that are called more often (less often, if the whole got shorter), the cause of what follows
    calls: tuple[CallsChange, ...]
    parts: tuple[PartChange, ...]  # the parts that changed, in the order of causes
    rest_ns: float  # change of everything else
    largest: PartChange | None  # the part that changed most, named or not; None if there is none

    def follows_from(self, cause_ns: float, callers: float | None) -> bool:
        """Whether the parts that changed are waits alone, and these follow from a cause that is known otherwise.

        ``cause_ns``: by how much longer a request takes in the cause; 0 if none is known. ``callers``: that share a
        process, each of which waits for the others; None in an open loop, whose queue may grow by any multiple.
        """
        longer = [part for part in self.parts if part.change_ns * self.total_ns > 0]
        if cause_ns <= 0 or self.calls or any(part.kind < _RUN_QUEUE for part in longer):
            return False
        return callers is None or cause_ns * max(callers, 1.0) >= _FOLLOWS * abs(self.total_ns)


def split_change(
    before: LatencySplit,
    now: LatencySplit,
    *,
    of: Literal["mean", "median"] = "median",
    callers_per_process: float | None = None,
    only: Collection[str] = (),
) -> SplitChange:
    """Compare two splits of one latency.

    ``callers_per_process``: how many requests of a closed loop share a process, so that each waits for the others; None
    for an open loop.
    """
    changes = [change for change in _changes(before, now, of) if not only or change.name in only]
    total_ns = sum(change.change_ns for change in changes)
    parts = _by_cause(changes, total_ns, callers_per_process)
    return SplitChange(
        total_ns,
        tuple(_more_calls(before, now, total_ns)),
        tuple(parts),
        total_ns - sum(part.change_ns for part in parts),
        max(changes, key=lambda change: abs(change.change_ns), default=None),
    )


def _changes(before: LatencySplit, now: LatencySplit, of: Literal["mean", "median"]) -> list[PartChange]:
    """Every part of one of them, the present's first."""
    then = {(part.name, part.of): part for part in before.parts}
    found = {(part.name, part.of): part for part in now.parts}
    changes = []
    for key in dict.fromkeys((*found, *then)):
        old, new = then.get(key, _NO_PART), found.get(key, _NO_PART)
        before_ns, now_ns = (part.mean_ns if of == "mean" else part.median_ns for part in (old, new))
        label = found[key].label if key in found else then[key].label
        changes.append(PartChange(*key, before_ns, now_ns, math.hypot(old.error_of(of), new.error_of(of)), label))
    return changes


def _by_cause(changes: Sequence[PartChange], total_ns: float, callers: float | None) -> list[PartChange]:
    """The parts that are named, in the order of causes, each by size.

    Code comes first if it explains the change; else code, server and hops; else the whole service; waits last. A part
    is named if it is a large enough share of the change, or of its kind's change if that kind leads. Parts that changed
    against the direction of the whole come last.
    """
    sign = 1 if total_ns >= 0 else -1
    certain = [
        change for change in changes if abs(change.change_ns) >= max(_CERTAIN * change.error_ns, _SHORTEST_CHANGE_NS)
    ]
    callers_behind = max(callers or 1.0, 1.0)
    led, led_ns = 0, abs(total_ns)  # kinds before this one lead
    for kinds in (_WAIT, _RUN_QUEUE, _AROUND):
        stretch = _stretch(changes, kinds)
        grown_ns = sum(max(sign * change.change_ns, 0.0) for change in certain if change.kind < kinds)
        before_ns = sum(change.before_ns for change in changes if change.kind < kinds)
        least_ns = _least_cause(total_ns, before_ns, in_open_loop=callers is None)
        if grown_ns > 0 and grown_ns * stretch * callers_behind >= least_ns:
            led, led_ns = kinds, grown_ns
    named = [
        change
        for change in certain
        if abs(change.change_ns) >= _NAMED * (led_ns if change.kind < led else abs(total_ns))
    ]
    named.sort(key=lambda change: -sign * change.change_ns)
    return sorted(named, key=lambda change: (sign * change.change_ns < 0, max(change.kind, led - 1) if led else 0))


def _least_cause(total_ns: float, before_ns: float, *, in_open_loop: bool) -> float:
    """What parts that took ``before_ns`` must have grown by for the others to follow from them."""
    follows_ns = _FOLLOWS * abs(total_ns)
    return min(follows_ns, max(_GROWN * before_ns, abs(total_ns) / _MOST_BEHIND)) if in_open_loop else follows_ns


def _stretch(changes: Sequence[PartChange], kinds: int) -> float:
    """By how much the machine stretches the time of parts before a kind: the more cores are busy, the longer.

    The state before is read from every part of the service that follows in the order of causes. The state now is read
    from the run queue alone, since the other parts may have changed by themselves.
    """
    causes = [change for change in changes if change.kind < kinds]
    followers = [change for change in changes if kinds <= change.kind < _WAIT]
    ready_ns = sum(change.now_ns for change in followers if change.name == "run_queue")
    sides = (
        (sum(max(change.before_ns, 0.0) for change in followers), sum(change.before_ns for change in causes)),
        (ready_ns, sum(change.now_ns for change in causes)),
    )
    return min(1 + max((others_ns / own_ns for others_ns, own_ns in sides if own_ns > 0), default=0), _MOST_STRETCHED)


def _more_calls(before: LatencySplit, now: LatencySplit, total_ns: float) -> list[CallsChange]:
    """Models that are called more often (less often, if the whole got shorter), if that is more than their slowdown.

    A model that got slower by a larger factor than its calls grew is itself the cause.
    """
    found, more = [], sum(now.calls.values()) - sum(before.calls.values())
    for of, calls in now.calls.items():
        then = before.calls.get(of)
        if then is None or (change := calls - then) * total_ns <= 0:
            continue
        if abs(more) < abs(change) / 2:  # of an ensemble another model answers last
            continue
        if abs(change) < max(_FEWEST_CALLS, _CALLS * then):
            continue
        if not then or not calls:  # a cache that always hits on one side
            found.append(CallsChange(of, then, calls))
            continue
        grown = max(_model_ns(now, of), 1.0) / max(_model_ns(before, of), 1.0)
        if math.copysign(1, change) * math.log(grown) <= 2 * abs(math.log(calls / then)):
            found.append(CallsChange(of, then, calls))
    return found


def _model_ns(split: LatencySplit, of: str) -> float:
    """Mean time of a request in calls of a model."""
    return sum(part.mean_ns for part in split.parts if part.of == of and part.name.startswith("model_"))
