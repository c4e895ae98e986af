"""A metric as a value, and every metric by its name.

Pure. This module must not know limits, baselines, or several launches.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks, cost_at_nmrt
from pytest_mlpatterns.analysis.metrics.stream_blocks import StreamBlocks
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.layer_kinds import (
    CPU_FLOOR_NS,
    LATENCY_FLOOR_NS,
    derived_metrics,
    own_figures,
    package_figures,
)
from pytest_mlpatterns.records.objective import Objective, Promise, parse_objective, parse_promise
from pytest_mlpatterns.units import Unit, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_mlpatterns.records.launch import Capacity
    from pytest_mlpatterns.records.layer_kinds import Figure
    from pytest_mlpatterns.records.price import Price

__all__ = [
    "COMPARED_METRICS",
    "GROWTHS",
    "LOCATIONS",
    "METRICS",
    "NOT_OF_THE_MACHINE",
    "SCALING_INDICES",
    "STREAM_QUANTITIES",
    "Metric",
    "goodput_metric",
    "is_known_metric",
    "metric_named",
    "nmrt_metric",
    "nmrt_of",
    "objectives_of",
    "own_metrics",
    "percentile_metric",
    "priced_metric",
    "stream_metric",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """Name, source, unit and direction of a metric.

    Attributes:
        name: as files and options write it, ``rtm`` or ``nmrt(p95<50.0ms)``.
        label: as reports write it.
        of: value in one launch; None for metrics of searches and of measurements of scaling.
        unit: what a value counts; gives how it prints, how a limit is read and how a slower machine scales it.
        better: which values are better.
        launch_sd: relative standard deviation expected between launches; 0 if launches do not vary by themselves.
        sampled: whether it is a mean over the requests that a launch happens to hold, which may vary.
        floor: smallest change that a comparison takes seriously, in the metric's unit.
        percentile: of a latency; None for other metrics.
        cycle_floor: the floor of a rate, as nanoseconds from one request of a caller to its next.
        objective: latency objective of an NMRT; None for NMRT alone and for other metrics.
        promise: what the requests of a goodput keep; None for other metrics.
        currency: of a cost; empty if it is not known, and for other metrics.
        of_streams: whether only answers that come in pieces have it.
        stream: quantity and percentile of a time of streams, such as ``("ttft", 95)``; None for other metrics.
        of_search: value in one capacity search, at a price; None for other metrics.
        largest: largest value that an index can have; its interval ends there.
        resource: of which it is the growth per request, as :class:`ResourceTrack` names it; empty for other metrics.
        per: number of requests to which the growth of a resource relates.
        least_gain: growth over half of a track from which it may be a leak.
        stands_for: metric in whose place comparisons judge it, since it knows more of the same times; empty for others.
    """

    name: str
    label: str
    of: Callable[[LaunchBlocks], LaunchValue | None] | None
    unit: Unit
    better: Literal["lower", "higher"] = "lower"
    launch_sd: float = LAUNCH_SD
    floor: float = 0.0
    percentile: float | None = None
    cycle_floor: float = 0.0
    objective: Objective | None = None
    promise: Promise | None = None
    currency: str = ""
    of_streams: bool = False
    stream: tuple[str, float] | None = None
    of_search: Callable[[Capacity, Price | None], LaunchValue | None] | None = None
    largest: float = math.inf
    resource: str = ""
    per: int = 1
    least_gain: float = 0.0
    sampled: bool = False
    stands_for: str = ""

    def show(self, value: float) -> str:
        """Print a value for people."""
        shown = self.unit.show(value)
        return f"{shown} {self.currency}" if self.currency else shown

    @property
    def is_nmrt(self) -> bool:
        """Whether it is NMRT, alone or under an objective."""
        return self.of_search is nmrt_of

    @property
    def is_at_nmrt(self) -> bool:
        """Whether a search for NMRT gives it, beside NMRT itself."""
        return self.of_search is not None and not self.is_nmrt

    @property
    def is_of_scaling(self) -> bool:
        """Whether its values come from the passes of ``perf.measure_scaling()``."""
        return self.of is None and self.of_search is None

    def bounded(self, found: Estimate) -> Estimate:
        """An estimate of the metric, with an interval that ends at its largest value."""
        if found.high <= self.largest:
            return found
        return Estimate(*(min(end, self.largest) for end in (found.value, found.low, found.high)))

    @property
    def is_tail(self) -> bool:
        """Whether it is a percentile of the latency other than the median."""
        return self.percentile not in (None, 50)

    @property
    def floor_text(self) -> str:
        """The floor in words."""
        return f"{format_duration(self.cycle_floor)} a request" if self.cycle_floor else self.show(self.floor)

    def allowed(self, tolerance: float, before: float, in_flight: int | None = None) -> float:
        """Largest worsening that a comparison accepts, as a share: the tolerance, or the floor where that is more.

        Args:
            tolerance: 0.10 for 10 %.
            before: the value that the share is of, above zero, in the metric's unit.
            in_flight: requests that the load kept in flight at any time; None for other loads, whose rate does not
                depend on the time of a request.
        """
        if self.cycle_floor and in_flight:
            slower = before * self.cycle_floor / 1e9 / in_flight  # share by which the time of a request may grow
            return max(tolerance, slower / (1 + slower))
        return max(tolerance, self.floor / before) if self.floor else tolerance


def nmrt_of(capacity: Capacity, _price: Price | None) -> LaunchValue | None:
    """The NMRT that a search found; None if it found none."""
    return capacity.nmrt if capacity.nmrt.value > 0 else None


_NMRT = "nmrt"
_PERCENTILE = re.compile(r"\d{1,2}(?:\.\d+)?")
STREAM_QUANTITIES = ("ttft", "itl", "tpot")
"""Times of streams: time to first token, inter-token latency, time per output token."""


def percentile_metric(percentile: float) -> Metric:
    """The metric of a latency percentile; the median is RTM."""
    name, label = ("rtm", "RTM") if percentile == 50 else (f"p{percentile:.10g}", f"p{percentile:.10g} latency")
    return Metric(
        name,
        label,
        lambda blocks: blocks.percentile(percentile),
        Unit.DURATION,
        floor=LATENCY_FLOOR_NS,
        percentile=percentile,
    )


def stream_metric(quantity: str, percentile: float = 50) -> Metric:
    """The metric of a percentile of TTFT, ITL or TPOT: ``ttft`` for the median, ``ttft:p95``."""

    def read(blocks: LaunchBlocks) -> LaunchValue | None:
        streams = blocks.streams
        return None if streams is None else getattr(streams, quantity)(percentile)

    rank = "" if percentile == 50 else f"p{percentile:.10g}"
    name, label = (quantity, quantity.upper()) if not rank else (f"{quantity}:{rank}", f"{rank} {quantity.upper()}")
    stream = (quantity, percentile)
    return Metric(name, label, read, Unit.DURATION, floor=LATENCY_FLOOR_NS, of_streams=True, stream=stream)


def _stream_location(quantity: str) -> Metric:
    """The metric of the location of TTFT or TPOT."""
    return Metric(
        f"{quantity}_mean",
        f"mean {quantity.upper()}",
        lambda blocks: None if blocks.streams is None else blocks.streams.location(quantity),
        Unit.DURATION,
        floor=LATENCY_FLOOR_NS,
        of_streams=True,
        stands_for=quantity,
    )


def _of_streams(name: str, label: str, read: Callable[[StreamBlocks], LaunchValue | None]) -> Metric:
    """A rate of tokens."""
    return Metric(
        name,
        label,
        lambda blocks: None if blocks.streams is None else read(blocks.streams),
        Unit.TOKEN_RATE,
        "higher",
        of_streams=True,
    )


def _of_layer(figure: Figure) -> Metric:
    """The metric that a kind of layer describes."""

    def read(blocks: LaunchBlocks) -> LaunchValue | None:
        found = derived_metrics(blocks.stats).get(figure.name)
        return None if found is None else LaunchValue(found.value, found.relative_error)

    launch_sd = LAUNCH_SD if figure.varies else 0.0
    return Metric(figure.name, figure.label, read, figure.unit, figure.better, launch_sd, figure.floor)


def own_metrics() -> dict[str, Metric]:
    """The metrics that patterns outside this package describe, by name."""
    return {figure.name: _of_layer(figure) for figure in own_figures()}


def _growth(name: str, label: str, resource: str, *, unit: Unit, floor: float, least_gain: float) -> Metric:
    """The growth of a resource per request, of a counted one per 1,000 requests."""
    per = 1 if unit is Unit.SIZE else 1000

    def read(blocks: LaunchBlocks) -> LaunchValue | None:
        found = blocks.growth_rate(resource)
        return None if found is None else LaunchValue(per * found, 0.0)

    return Metric(
        name, label, read, unit, launch_sd=0.0, floor=floor, resource=resource, per=per, least_gain=least_gain
    )


def _size(name: str, label: str, read: Callable[[LaunchBlocks], LaunchValue | None]) -> Metric:
    """The mean size of requests or answers."""
    return Metric(name, label, read, Unit.SIZE, launch_sd=0.0, floor=16, sampled=True)


def _asl_at_nmrt(capacity: Capacity, _price: Price | None) -> LaunchValue | None:
    return None if capacity.at_least else capacity.asl


def _of_scaling(name: str, label: str, *, launch_sd: float) -> Metric:
    """An index of scalability up to 1, from the passes of a measurement of scaling."""
    return Metric(name, label, None, Unit.RATIO, "higher", launch_sd, floor=0.01, largest=1.0)


_SD_OF_TWO = math.sqrt(2) * LAUNCH_SD
"""Relative standard deviation of a product or quotient of two figures of one launch each."""
_SD_OF_HSX = math.hypot(_SD_OF_TWO, _SD_OF_TWO) / 3

METRICS = {
    metric.name: metric
    for metric in (
        *(percentile_metric(percentile) for percentile in (50, 90, 95, 99)),
        Metric("throughput", "throughput", LaunchBlocks.throughput, Unit.RATE, "higher", cycle_floor=LATENCY_FLOOR_NS),
        *(stream_metric(quantity, percentile) for quantity in STREAM_QUANTITIES for percentile in (50, 95, 99)),
        _of_streams("output_tokens", "output tokens", StreamBlocks.output_tokens),
        _of_streams("output_tokens_per_user", "output tokens per user", StreamBlocks.output_tokens_per_user),
        Metric(_NMRT, "NMRT", None, Unit.RATE, better="higher", of_search=nmrt_of),
        Metric("error_rate", "error rate", LaunchBlocks.error_rate, Unit.RATIO, launch_sd=0.0),
        Metric("asl", "ASL", LaunchBlocks.asl, Unit.RATIO, floor=0.01),
        Metric("asl_at_nmrt", "ASL at NMRT", None, Unit.RATIO, floor=0.01, of_search=_asl_at_nmrt),
        Metric("pc", "PC", LaunchBlocks.performance_coefficient, Unit.PER_SECOND, "higher", launch_sd=_SD_OF_TWO),
        Metric("sc", "SC", None, Unit.COUNT, "higher", launch_sd=math.hypot(_SD_OF_HSX, LAUNCH_SD)),
        _of_scaling("hsx", "HSX", launch_sd=_SD_OF_HSX),
        _of_scaling("hsxt", "HSXt", launch_sd=0.001),
        _of_scaling("hsxe", "HSXe", launch_sd=_SD_OF_TWO),
        _of_scaling("hsxc", "HSXc", launch_sd=_SD_OF_TWO),
        Metric("cpu_per_request", "CPU per request", LaunchBlocks.cpu_per_request, Unit.DURATION, floor=CPU_FLOOR_NS),
        Metric("peak_memory", "peak memory", LaunchBlocks.peak_memory, Unit.SIZE, launch_sd=0.01, floor=4 * 2**20),
        _growth(
            "memory_growth",
            "memory growth per request",
            "rss_bytes",
            unit=Unit.SIZE,
            floor=256,
            least_gain=512 * 1024,
        ),
        *(
            _growth(
                f"{one}_growth",
                f"{one} growth per 1,000 requests",
                f"{one}s",
                unit=Unit.COUNT,
                floor=1,
                least_gain=4,
            )
            for one in ("descriptor", "thread")
        ),
        Metric("cost", "cost per million", LaunchBlocks.cost, Unit.COST),
        Metric("cost_at_nmrt", "cost per million at NMRT", None, Unit.COST, of_search=cost_at_nmrt),
        Metric(
            "cold_start",
            "start to first answer",
            LaunchBlocks.cold_start,
            Unit.DURATION,
            launch_sd=0.08,
            floor=50_000_000,
        ),
        _size("request_bytes", "request size", LaunchBlocks.request_bytes),
        _size("response_bytes", "response size", LaunchBlocks.response_bytes),
        *map(_of_layer, package_figures()),
    )
}
"""Every metric of the package by its name, in the order in which reports show them."""
LOCATIONS: Mapping[str, Metric] = {
    location.stands_for: location
    for location in (
        Metric(
            "latency_mean",
            "mean latency",
            LaunchBlocks.location,
            Unit.DURATION,
            floor=LATENCY_FLOOR_NS,
            stands_for="rtm",
        ),
        *map(_stream_location, ("ttft", "tpot")),
    )
}
"""The location of all times, by the metric of their median: what comparisons judge in its place.

They are no names in options. ITL has none: chunks that arrive together have gaps of zero, which have no logarithm.
"""
_NAMED = {**METRICS, **{location.name: location for location in LOCATIONS.values()}}
GROWTHS = tuple(name for name, metric in METRICS.items() if metric.resource)
"""Growth of what a deployment holds, per request."""
NOT_OF_THE_MACHINE = frozenset({"error_rate", "peak_memory", "request_bytes", "response_bytes", *GROWTHS})
"""Metrics that neither busy neighbours nor a slower machine change, so that a stored baseline alone judges them."""
SCALING_INDICES = tuple(name for name, metric in METRICS.items() if metric.is_of_scaling)
"""Indices that ``perf.measure_scaling()`` gives."""
COMPARED_METRICS: Mapping[str, Metric] = {
    name: metric for name, metric in METRICS.items() if metric.unit is not Unit.COST
}
"""Metrics that a baseline holds and a comparison judges; a cost follows from others of them and from the price."""


def nmrt_metric(objective: Objective | None) -> Metric:
    """NMRT, or NMRT under a latency objective."""
    metric = METRICS[_NMRT]
    if objective is None:
        return metric
    return replace(metric, name=f"{_NMRT}({objective})", label=f"NMRT ({objective})", objective=objective)


def goodput_metric(promise: Promise) -> Metric:
    """The rate of the requests that keep a promise."""
    return Metric(
        f"goodput({promise})",
        f"goodput ({promise})",
        lambda blocks: blocks.promise(promise).goodput(),
        Unit.RATE,
        "higher",
        promise=promise,
        of_streams=promise.is_of_streams,
    )


def priced_metric(name: str, price: Price | None) -> Metric:
    """As :func:`metric_named`; a cost prints with the currency of the price."""
    metric = metric_named(name)
    return replace(metric, currency=price.currency) if price is not None and metric.unit is Unit.COST else metric


def metric_named(name: str) -> Metric:
    """The metric of this name, the inverse of :attr:`Metric.name`.

    Raises:
        KeyError: there is no such metric.
        SettingError: it is NMRT under an objective that cannot be read.
    """
    if name in _NAMED:
        return _NAMED[name]
    if name.startswith(f"{_NMRT}(") and name.endswith(")"):
        return nmrt_metric(parse_objective(name[len(_NMRT) + 1 : -1]))
    if name.startswith("goodput(") and name.endswith(")"):
        return goodput_metric(parse_promise(name[len("goodput(") : -1]))
    quantity, colon, rank = name.partition(":p")
    if colon and quantity in STREAM_QUANTITIES and _PERCENTILE.fullmatch(rank) and 1 <= float(rank) < 100:
        return stream_metric(quantity, float(rank))
    return own_metrics()[name]


def is_known_metric(name: str) -> bool:
    """Whether this version knows a metric of this name; a file of a later version may have more."""
    try:
        metric_named(name)
    except (KeyError, SettingError):
        return False
    return True


def objectives_of(names: Iterable[str]) -> dict[str, Objective | None]:
    """Those of these metrics that are NMRT, by name in the given order: the objective, None for NMRT alone."""
    metrics = {name: metric_named(name) for name in names if is_known_metric(name)}
    return {name: metric.objective for name, metric in metrics.items() if metric.is_nmrt}
