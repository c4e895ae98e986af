"""Every metric by its name: how a launch yields it, how it prints, which way is worse, which change is too small.

Pure. It must not know limits, baselines, or several launches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns.analysis.blocks import LaunchBlocks
from pytest_mlpatterns.analysis.intervals import LAUNCH_SD
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.telemetry import derived_metrics
from pytest_mlpatterns.units import format_count, format_duration, format_percent, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["METRICS", "Metric", "metric_named", "percentile_metric"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is called, how a launch yields it, how it prints, and which way is worse.

    ``of`` is None for NMRT, which a search yields and not a launch.
    ``launch_sd`` is how much it is expected to vary between launches (0: not by itself). ``floor`` is the smallest
    change that a comparison takes seriously, in the metric's unit: 30 µs of latency are a machine's mood, not a
    regression. ``cycle_floor`` is the same for a rate, as nanoseconds from one request of a caller to its next.
    ``percentile`` is set for latencies.
    """

    name: str
    label: str
    of: Callable[[LaunchBlocks], LaunchValue | None] | None
    show: Callable[[float], str]
    better: Literal["lower", "higher"] = "lower"
    launch_sd: float = LAUNCH_SD
    floor: float = 0.0
    percentile: float | None = None
    cycle_floor: float = 0.0

    @property
    def unit(self) -> str:
        """What a value counts: ``ns``, ``rps``, ``ratio`` or ``bytes``; empty where it is a plain number."""
        return _UNITS.get(self.show, "")

    @property
    def floor_text(self) -> str:
        """The floor in words."""
        return f"{format_duration(self.cycle_floor)} a request" if self.cycle_floor else self.show(self.floor)

    def is_small(self, before: float, after: float, in_flight: int | None = None) -> bool:
        """Whether a change is too small for a comparison to take it seriously.

        Args:
            before: a value, in the metric's unit.
            after: likewise.
            in_flight: how many requests were in flight at any time, None where the load did not keep them so; then a
                rate says nothing of the time that a request takes.
        """
        if self.cycle_floor and in_flight and min(before, after) > 0:
            return in_flight * abs(1 / after - 1 / before) * 1e9 <= self.cycle_floor
        return abs(after - before) <= self.floor


_LATENCY_FLOOR = 30_000
_UNITS = {format_duration: "ns", format_rate: "rps", format_percent: "ratio", format_size: "bytes"}


def percentile_metric(percentile: float) -> Metric:
    """The metric of a latency percentile; the median is RTM."""
    name, label = ("rtm", "RTM") if percentile == 50 else (f"p{percentile:.10g}", f"p{percentile:.10g} latency")
    return Metric(
        name,
        label,
        lambda blocks: blocks.percentile(percentile),
        format_duration,
        floor=_LATENCY_FLOOR,
        percentile=percentile,
    )


def _of_pattern(  # noqa: PLR0913 - the fields of a metric
    name: str,
    label: str,
    show: Callable[[float], str],
    *,
    better: Literal["lower", "higher"] = "lower",
    floor: float = 0.0,
    launch_sd: float = LAUNCH_SD,
) -> Metric:
    """A metric that a pattern knows of itself, by its name in
    :func:`pytest_mlpatterns.records.telemetry.derived_metrics`."""

    def read(blocks: LaunchBlocks) -> LaunchValue | None:
        figure = derived_metrics(blocks.stats).get(name)
        return None if figure is None else LaunchValue(figure.value, figure.relative_error)

    return Metric(name, label, read, show, better, launch_sd, floor)


METRICS = {
    metric.name: metric
    for metric in (
        *(percentile_metric(percentile) for percentile in (50, 90, 95, 99)),
        Metric("throughput", "throughput", LaunchBlocks.throughput, format_rate, "higher", cycle_floor=_LATENCY_FLOOR),
        Metric("nmrt", "NMRT", None, format_rate, better="higher"),
        Metric("error_rate", "error rate", LaunchBlocks.error_rate, format_percent, launch_sd=0.0),
        Metric("asl", "ASL", LaunchBlocks.asl, format_percent, floor=0.01),
        Metric("cpu_per_request", "CPU per request", LaunchBlocks.cpu_per_request, format_duration, floor=10_000),
        Metric("peak_memory", "peak memory", LaunchBlocks.peak_memory, format_size, launch_sd=0.0, floor=4 * 2**20),
        Metric("cold_start", "start to first answer", LaunchBlocks.cold_start, format_duration, floor=50_000_000),
        Metric("request_bytes", "request size", LaunchBlocks.request_bytes, format_size, launch_sd=0.0, floor=16),
        Metric("response_bytes", "response size", LaunchBlocks.response_bytes, format_size, launch_sd=0.0, floor=16),
        _of_pattern("cache_hit_ratio", "cache hit ratio", format_percent, better="higher", floor=0.01, launch_sd=0.0),
        _of_pattern("cache_hit", "time of a cache hit", format_duration, floor=_LATENCY_FLOOR),
        _of_pattern("cache_miss", "time of a cache miss", format_duration, floor=_LATENCY_FLOOR),
        _of_pattern("batch_size", "batch size", format_count, better="higher", floor=0.5),
        _of_pattern("batch_wait", "wait for a batch", format_duration, floor=_LATENCY_FLOOR),
        _of_pattern("queue_depth", "queue depth", format_count, floor=0.5),
        _of_pattern("queue_wait", "wait in the queue", format_duration, floor=_LATENCY_FLOOR),
        _of_pattern("hop", "hop", format_duration, floor=_LATENCY_FLOOR),
        _of_pattern("decode", "time to decode a request", format_duration, floor=10_000),
        _of_pattern("encode", "time to encode an answer", format_duration, floor=10_000),
        _of_pattern("compression_ratio", "compression ratio", format_count, better="higher", floor=0.05, launch_sd=0.0),
    )
}
"""Every metric by its name, in the order in which reports show them."""


def metric_named(name: str) -> Metric:
    """The metric of this name; ``nmrt(p95<50ms)`` is NMRT under a latency objective.

    Raises:
        KeyError: there is none.
    """
    if name.startswith("nmrt("):
        return replace(METRICS["nmrt"], name=name, label=f"NMRT {name[4:]}")
    return METRICS[name]
