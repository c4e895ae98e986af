"""How metrics of one kind are made: of latencies, streams, layers, resources and scaling. Pure."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks, growth_rate
from pytest_mlpatterns.analysis.metrics.metric import (
    USUAL_TOLERANCE,
    CallersRate,
    FigureOfAnswers,
    Group,
    LatencyPercentile,
    Location,
    Metric,
    ResourceGrowth,
    Role,
    ScalingIndex,
    StreamPercentile,
)
from pytest_mlpatterns.analysis.metrics.stream_blocks import StreamBlocks
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.layer_description import LATENCY_FLOOR_NS, Figure
from pytest_mlpatterns.records.package_layers import derived_metrics
from pytest_mlpatterns.units import Unit

SHOWN = frozenset({Role.COLUMN, Role.SIDE_BY_SIDE, Role.FACT, Role.EVALUATED})
"""Roles of a metric that every report shows."""
_TIME = frozenset({Role.PRIMARY, Role.PAIRED})
_ROLES_OF_PERCENTILES: Mapping[float, frozenset[Role]] = {
    50: SHOWN | _TIME | {Role.LEADING, Role.FACTOR},
    95: SHOWN | {Role.GUARD, Role.RECORDED},
    99: frozenset({Role.GUARD, Role.RECORDED, Role.EVALUATED}),
}
_ROLES_OF_STREAMS: Mapping[tuple[str, float], frozenset[Role]] = {
    ("ttft", 50): SHOWN | _TIME | {Role.LEADING, Role.PICTURED, Role.FACTOR},
    ("ttft", 95): SHOWN | {Role.GUARD, Role.RECORDED},
    ("ttft", 99): frozenset({Role.RECORDED}),
    ("itl", 50): frozenset({Role.FACT, Role.PICTURED}),
    ("itl", 95): frozenset({Role.FACT}),
    ("tpot", 50): SHOWN | _TIME,
    ("tpot", 95): frozenset({Role.GUARD, Role.RECORDED}),
}
_TAIL_TOLERANCE = 0.20
"""Tolerance of a percentile above the median, as a share: twice the usual one, since a tail scatters more."""


def percentile_metric(percentile: float) -> Metric:
    """The metric of a latency percentile; the median is ``rtm``."""
    is_median, rank = percentile == 50, f"p{percentile:.10g}"
    return Metric(
        "rtm" if is_median else rank,
        f"{'median' if is_median else rank} latency",
        lambda blocks: blocks.percentile(percentile),
        Unit.DURATION,
        floor=LATENCY_FLOOR_NS,
        kind=LatencyPercentile(percentile),
        roles=_ROLES_OF_PERCENTILES.get(percentile, frozenset()),
        group=Group.LATENCY,
        tolerance=USUAL_TOLERANCE if is_median else _TAIL_TOLERANCE,
        short_label="median" if is_median else "",
    )


def _in_streams(read: Callable[[StreamBlocks], LaunchValue | None]) -> Callable[[LaunchBlocks], LaunchValue | None]:
    """A value of the streams of a launch; None if its answers came whole."""
    return lambda blocks: None if blocks.streams is None else read(blocks.streams)


def stream_metric(quantity: str, percentile: float = 50) -> Metric:
    """The metric of a percentile of TTFT, ITL or TPOT: ``ttft`` for the median, ``ttft:p95``."""
    is_median, rank = percentile == 50, f"p{percentile:.10g}"
    return Metric(
        quantity if is_median else f"{quantity}:{rank}",
        f"{'median' if is_median else rank} {quantity.upper()}",
        _in_streams(lambda streams: streams.percentile(quantity, percentile)),
        Unit.DURATION,
        floor=LATENCY_FLOOR_NS,
        of_streams=True,
        kind=StreamPercentile(quantity, percentile),
        roles=_ROLES_OF_STREAMS.get((quantity, percentile), frozenset()),
        group=Group.STREAMS,
        short_label=quantity.upper() if is_median else "",
    )


def stream_location(quantity: str) -> Metric:
    """The metric of the location of TTFT or TPOT."""
    return Metric(
        f"{quantity}_mean",
        f"mean {quantity.upper()}",
        _in_streams(lambda streams: streams.values(quantity).location()),
        Unit.DURATION,
        floor=LATENCY_FLOOR_NS,
        of_streams=True,
        kind=Location(quantity),
        group=Group.STREAMS,
    )


def mean_metric(quantity: str) -> Metric:
    """The metric of the arithmetic mean of a time, of successful answers: ``mean`` for the latency, ``ttft:mean``."""
    is_whole = quantity == "latency"
    of_streams = _in_streams(lambda streams: streams.values(quantity).mean())
    return Metric(
        "mean" if is_whole else f"{quantity}:mean",
        f"mean of all {'latencies' if is_whole else quantity.upper()}",
        (lambda blocks: blocks.mean()) if is_whole else of_streams,
        Unit.DURATION,
        floor=LATENCY_FLOOR_NS,
        of_streams=not is_whole,
        group=Group.LATENCY if is_whole else Group.STREAMS,
    )


def token_rate(
    name: str,
    label: str,
    read: Callable[[StreamBlocks], LaunchValue | None],
    *,
    roles: frozenset[Role],
    short: str,
    times: tuple[str, ...] = (),
) -> Metric:
    """A rate of tokens."""
    return Metric(
        name,
        label,
        _in_streams(read),
        Unit.TOKEN_RATE,
        "higher",
        of_streams=True,
        roles=roles,
        group=Group.STREAMS,
        short_label=short,
        kind=CallersRate(times) if times else None,
    )


def layer_metric(figure: Figure) -> Metric:
    """The metric that a kind of layer describes."""

    def read(blocks: LaunchBlocks) -> LaunchValue | None:
        found = derived_metrics(blocks.launch.stats).get(figure.name)
        return None if found is None else LaunchValue(found.value, found.relative_error)

    launch_sd = LAUNCH_SD if figure.varies else 0.0
    return Metric(figure.name, figure.label, read, figure.unit, figure.better, launch_sd, figure.floor)


def figure_metric(figure: Figure) -> Metric:
    """The mean of a figure that the user reads from answers: ``queue_time``."""
    return Metric(
        figure.name,
        f"mean {figure.name}",
        lambda blocks: blocks.figure(figure.name),
        figure.unit,
        figure.better,
        floor=LATENCY_FLOOR_NS if figure.unit is Unit.DURATION else 0.0,
        kind=FigureOfAnswers(figure.name),
        group=Group.FIGURES,
        short_label=figure.name,
    )


def figure_percentile(mean: Metric, percentile: float) -> Metric:
    """A percentile of the same figure: ``queue_time:p95``."""
    rank = f"p{percentile:.10g}"
    return replace(
        mean,
        name=f"{mean.name}:{rank}",
        label=f"{rank} {mean.name}",
        of=lambda blocks: blocks.figure(mean.name, percentile),
        kind=FigureOfAnswers(mean.name, percentile),
        tolerance=USUAL_TOLERANCE if percentile == 50 else _TAIL_TOLERANCE,
        short_label="",
    )


def growth_metric(name: str, label: str, resource: str, *, short: str, floor: float, least_gain: float) -> Metric:
    """The growth of memory per request, or of a counted resource per 1,000 requests."""
    is_memory = resource == "rss_bytes"
    per = 1 if is_memory else 1000

    def read(blocks: LaunchBlocks) -> LaunchValue | None:
        found = growth_rate(blocks.launch.track, resource)
        return None if found is None else LaunchValue(per * found, 0.0)

    return Metric(
        name,
        label,
        read,
        Unit.SIZE if is_memory else Unit.COUNT,
        launch_sd=0.0,
        floor=floor,
        kind=ResourceGrowth(resource, per, least_gain),
        roles=frozenset({Role.GUARD, Role.ALWAYS_GUARD, Role.STANDING, *([Role.HELD] if is_memory else [])}),
        group=Group.RESOURCES,
        tolerance=0.50,
        short_label=short,
    )


def size_metric(
    name: str, label: str, read: Callable[[LaunchBlocks], LaunchValue | None], *, roles: frozenset[Role]
) -> Metric:
    """The mean size of requests or answers."""
    roles |= {Role.ALWAYS_GUARD, Role.STANDING, Role.WIRE}
    return Metric(name, label, read, Unit.SIZE, launch_sd=0.0, floor=16, sampled=True, roles=roles)


def scaling_metric(name: str, label: str, *, launch_sd: float) -> Metric:
    """An index of scalability up to 1, from the passes of a measurement of scaling."""
    return Metric(
        name,
        label,
        None,
        Unit.RATIO,
        "higher",
        launch_sd,
        floor=0.01,
        kind=ScalingIndex(largest=1.0),
        roles=frozenset({Role.EVALUATED}),
        group=Group.CAPACITY,
    )
