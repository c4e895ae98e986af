"""Every metric by its name.

Pure. It must not know limits, baselines, or several launches.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.analysis.blocks import LaunchBlocks
from pytest_mlpatterns.analysis.cost import cost_at_nmrt, given_cost_at_nmrt
from pytest_mlpatterns.analysis.intervals import LAUNCH_SD
from pytest_mlpatterns.analysis.metric import Metric, nmrt_of
from pytest_mlpatterns.analysis.stream_blocks import StreamBlocks
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.objective import Objective, Promise, parse_objective, parse_promise
from pytest_mlpatterns.records.telemetry import derived_metrics
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_mlpatterns.records.launch import Capacity
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
    "objectives_of",
    "percentile_metric",
    "priced_metric",
    "stream_metric",
]


_LATENCY_FLOOR = 5_000
"""Change of a latency that no machine resolves reliably; a noisy one resolves less, which its intervals show."""
_CPU_FLOOR = 2_000
"""The same for CPU time per request, which does not hold the time to wake a process."""
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
        floor=_LATENCY_FLOOR,
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
    return Metric(name, label, read, Unit.DURATION, floor=_LATENCY_FLOOR, of_streams=True, stream=stream)


def _stream_location(quantity: str) -> Metric:
    """The metric of the location of TTFT or TPOT."""
    return Metric(
        f"{quantity}_mean",
        f"mean {quantity.upper()}",
        lambda blocks: None if blocks.streams is None else blocks.streams.location(quantity),
        Unit.DURATION,
        floor=_LATENCY_FLOOR,
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


def _of_pattern(
    name: str,
    label: str,
    unit: Unit,
    *,
    better: Literal["lower", "higher"] = "lower",
    floor: float = 0.0,
    launch_sd: float = LAUNCH_SD,
) -> Metric:
    """A metric from the telemetry of a pattern.

    ``name`` is also its name in :func:`pytest_mlpatterns.records.telemetry.derived_metrics`.
    """

    def read(blocks: LaunchBlocks) -> LaunchValue | None:
        figure = derived_metrics(blocks.stats).get(name)
        return None if figure is None else LaunchValue(figure.value, figure.relative_error)

    return Metric(name, label, read, unit, better, launch_sd, floor)


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
        Metric("throughput", "throughput", LaunchBlocks.throughput, Unit.RATE, "higher", cycle_floor=_LATENCY_FLOOR),
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
        Metric("cpu_per_request", "CPU per request", LaunchBlocks.cpu_per_request, Unit.DURATION, floor=_CPU_FLOOR),
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
        Metric("given_cost", "cost per million with given cores", LaunchBlocks.given_cost, Unit.COST),
        Metric("cost_at_nmrt", "cost per million at NMRT", None, Unit.COST, of_search=cost_at_nmrt),
        Metric(
            "given_cost_at_nmrt",
            "cost per million with given cores at NMRT",
            None,
            Unit.COST,
            of_search=given_cost_at_nmrt,
        ),
        Metric("energy_per_request", "energy per request", LaunchBlocks.energy_per_request, Unit.ENERGY),
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
        _of_pattern("cache_hit_ratio", "cache hit ratio", Unit.RATIO, better="higher", floor=0.01, launch_sd=0.0),
        _of_pattern("cache_hit", "time of a cache hit", Unit.DURATION, floor=_LATENCY_FLOOR),
        _of_pattern("cache_miss", "time of a cache miss", Unit.DURATION, floor=_LATENCY_FLOOR),
        _of_pattern("batch_size", "batch size", Unit.COUNT, better="higher", floor=0.5),
        _of_pattern("batch_wait", "wait for a batch", Unit.DURATION, floor=_LATENCY_FLOOR),
        _of_pattern("step_rate", "steps per second", Unit.COUNT, better="higher"),
        _of_pattern("queue_depth", "queue depth", Unit.COUNT, floor=0.5),
        _of_pattern("queue_wait", "wait in the queue", Unit.DURATION, floor=_LATENCY_FLOOR),
        _of_pattern("hop", "hop", Unit.DURATION, floor=_LATENCY_FLOOR),
        _of_pattern("decode", "time to decode a request", Unit.DURATION, floor=_CPU_FLOOR),
        _of_pattern("encode", "time to encode an answer", Unit.DURATION, floor=_CPU_FLOOR),
        _of_pattern("compression_ratio", "compression ratio", Unit.COUNT, better="higher", floor=0.05, launch_sd=0.0),
    )
}
"""Every metric by its name, in the order in which reports show them."""
LOCATIONS: Mapping[str, Metric] = {
    location.stands_for: location
    for location in (
        Metric(
            "latency_mean", "mean latency", LaunchBlocks.location, Unit.DURATION, floor=_LATENCY_FLOOR, stands_for="rtm"
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
    raise KeyError(name)


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
