"""Every metric by its name, with its roles.

Comparisons, baseline and reports ask :func:`with_role` which metrics they are about; no other module lists names. So a
new metric is one definition here. Pure. This module must not know limits, baselines, or several launches. Also: its
attribute in Python is a ``Figure`` in ``analysis/metrics/metrics.py``.
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import partial

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks, cost_at_nmrt
from pytest_mlpatterns.analysis.metrics.metric import (
    AtNmrt,
    CallersRate,
    Counted,
    FigureOfAnswers,
    Goodput,
    Group,
    Location,
    Metric,
    Nmrt,
    ResourceGrowth,
    Role,
)
from pytest_mlpatterns.analysis.metrics.metric_makers import (
    SHOWN,
    figure_metric,
    figure_percentile,
    growth_metric,
    layer_metric,
    mean_metric,
    percentile_metric,
    scaling_metric,
    size_metric,
    stream_location,
    stream_metric,
    token_rate,
)
from pytest_mlpatterns.analysis.metrics.stream_blocks import StreamBlocks
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.latency import STREAM_QUANTITIES
from pytest_mlpatterns.records.layer_description import CPU_FLOOR_NS, LATENCY_FLOOR_NS
from pytest_mlpatterns.records.objective import Objective, Promise, parse_objective, parse_promise
from pytest_mlpatterns.records.package_layers import answer_figures, own_figures, package_figures
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import did_you_mean

_NMRT = "nmrt"
_OTHER_NAMES = {"latency": "rtm", "median": "rtm", "rps": "throughput", "qps": "throughput", "cpu": "cpu_per_request"}
"""What other tools call our metrics."""
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


def own_metrics() -> dict[str, Metric]:
    """The metrics that patterns outside this package describe, and the means of figures of answers, by name."""
    layers = {figure.name: layer_metric(figure) for figure in own_figures()}
    return layers | {figure.name: figure_metric(figure) for figure in answer_figures()}


def layer_metrics() -> dict[str, Metric]:
    """The metrics of layers, by name: first of the package's patterns, then of others."""
    return {figure.name: METRICS[figure.name] for figure in package_figures()} | own_metrics()


_SD_OF_TWO = math.sqrt(2) * LAUNCH_SD
"""Relative standard deviation of a product or quotient of two figures of one launch each."""
_SD_OF_HSX = math.hypot(_SD_OF_TWO, _SD_OF_TWO) / 3


_SPEEDS = (
    *(percentile_metric(percentile) for percentile in (50, 90, 95, 99)),
    Metric(
        "throughput",
        "throughput",
        LaunchBlocks.throughput,
        Unit.RATE,
        "higher",
        kind=CallersRate(("rtm",), cycle_floor=LATENCY_FLOOR_NS),
        roles=SHOWN | {Role.PRIMARY, Role.PACED, Role.PAIRED, Role.FACTOR, Role.OF_ANSWERS},
        group=Group.CAPACITY,
    ),
    Metric(
        "total_time",
        "total time",
        LaunchBlocks.total_time,
        Unit.DURATION,
        floor=LATENCY_FLOOR_NS,
        roles=frozenset({Role.FACT, Role.PACED}),
        group=Group.CAPACITY,
    ),
    *(stream_metric(quantity, percentile) for quantity in STREAM_QUANTITIES for percentile in (50, 95, 99)),
    token_rate(
        "output_tokens",
        "output tokens",
        StreamBlocks.output_tokens,
        roles=SHOWN | {Role.PRIMARY, Role.PAIRED},
        short="tokens",
        times=("ttft", "tpot"),
    ),
    token_rate(
        "output_tokens_per_user",
        "output tokens per user",
        StreamBlocks.output_tokens_per_user,
        roles=frozenset({Role.FACT}),
        short="tokens per user",
    ),
    Metric(
        _NMRT,
        "capacity (NMRT)",
        None,
        Unit.RATE,
        better="higher",
        kind=Nmrt(),
        roles=frozenset({Role.COLUMN, Role.SIDE_BY_SIDE, Role.EVALUATED, Role.FACTOR}),
        group=Group.CAPACITY,
        short_label="NMRT",
    ),
    Metric(
        "error_rate",
        "error rate",
        LaunchBlocks.error_rate,
        Unit.RATIO,
        launch_sd=0.0,
        roles=frozenset({Role.GUARD, Role.ALWAYS_GUARD, Role.STANDING, Role.FACT, Role.EVALUATED}),
        group=Group.LATENCY,
        tolerance=0.001,
        short_label="errors",
    ),
)
"""Times, rates and failures."""


_EVALUATED = frozenset({Role.EVALUATED})
_INDICES = (
    Metric(
        "asl",
        "CPU share (ASL)",
        LaunchBlocks.asl,
        Unit.RATIO,
        floor=0.01,
        roles=SHOWN | {Role.AT_NMRT},
        group=Group.RESOURCES,
        short_label="ASL",
    ),
    Metric(
        "asl_at_nmrt",
        "CPU share (ASL) at NMRT",
        None,
        Unit.RATIO,
        floor=0.01,
        kind=AtNmrt(lambda capacity, _price: None if capacity.at_least else capacity.asl),
        group=Group.RESOURCES,
        short_label="ASL at NMRT",
    ),
    Metric(
        "pc",
        "PC",
        LaunchBlocks.performance_coefficient,
        Unit.PER_SECOND,
        "higher",
        launch_sd=_SD_OF_TWO,
        roles=_EVALUATED,
        group=Group.RESOURCES,
    ),
    Metric(
        "sc",
        "SC",
        None,
        Unit.COUNT,
        "higher",
        launch_sd=math.hypot(_SD_OF_HSX, LAUNCH_SD),
        roles=_EVALUATED,
        group=Group.CAPACITY,
    ),
    scaling_metric("hsx", "HSX", launch_sd=_SD_OF_HSX),
    scaling_metric("hsxt", "HSXt", launch_sd=0.001),
    scaling_metric("hsxe", "HSXe", launch_sd=_SD_OF_TWO),
    scaling_metric("hsxc", "HSXc", launch_sd=_SD_OF_TWO),
)
"""System load, and the indices of scalability."""


_SD_OF_PASSES = 0.0015
"""Relative standard deviation between passes that count the same code: 0.00 to 0.16 % over six services, at a load of
10 to 16 on two cores (``benchmarks/instructions.py``)."""
_DEGREES_OF_PASSES = 12.0  # Degrees of freedom that this is worth, by the passes that showed it
_BESIDE = frozenset({Role.SIDE_BY_SIDE, Role.EVALUATED})
_RESOURCES = (
    Metric(
        "cpu_per_request",
        "CPU per request",
        partial(LaunchBlocks.used_per_answer, column="cpu_ns"),
        Unit.DURATION,
        floor=CPU_FLOOR_NS,
        roles=_BESIDE
        | {
            Role.GUARD,
            Role.PAIRED,
            Role.FACT,
            Role.AT_NMRT,
            Role.RECORDED,
            Role.OF_ANSWERS,
            Role.INDEPENDENT_OF_LATENCY,
        },
        group=Group.RESOURCES,
        tolerance=0.07,
        short_label="CPU",
    ),
    Metric(
        "instructions",
        "instructions per request",
        None,
        Unit.INSTRUCTIONS,
        launch_sd=_SD_OF_PASSES,
        kind=Counted(),
        roles=_BESIDE
        | {Role.GUARD, Role.ALWAYS_GUARD, Role.STANDING, Role.FACTOR, Role.RECORDED, Role.COLUMN, Role.FACT},
        group=Group.RESOURCES,
        tolerance=0.02,
        short_label="instructions",
        sd_degrees=_DEGREES_OF_PASSES,
    ),
    Metric(
        "peak_memory",
        "peak memory",
        LaunchBlocks.peak_memory,
        Unit.SIZE,
        launch_sd=0.01,
        floor=4 * 2**20,
        roles=_BESIDE
        | {Role.GUARD, Role.ALWAYS_GUARD, Role.STANDING, Role.FACT, Role.AT_NMRT, Role.RECORDED, Role.HELD},
        group=Group.RESOURCES,
        tolerance=0.15,
        short_label="memory",
    ),
    growth_metric(
        "memory_growth",
        "memory growth per request",
        "rss_bytes",
        short="memory growth",
        floor=256,
        least_gain=512 * 1024,
    ),
    *(
        growth_metric(
            f"{one}_growth", f"{one} growth per 1,000 requests", f"{one}s", short=f"{one}s", floor=1, least_gain=4
        )
        for one in ("descriptor", "thread")
    ),
    Metric(
        "cost",
        "cost per million",
        LaunchBlocks.cost,
        Unit.COST,
        roles=SHOWN | {Role.AT_NMRT, Role.OF_ANSWERS},
        group=Group.RESOURCES,
    ),
    Metric(
        "cost_at_nmrt", "cost per million at NMRT", None, Unit.COST, kind=AtNmrt(cost_at_nmrt), group=Group.RESOURCES
    ),
    Metric(
        "cold_start",
        "start to first answer",
        LaunchBlocks.cold_start,
        Unit.DURATION,
        launch_sd=0.08,
        floor=50_000_000,
        roles=_BESIDE | {Role.GUARD, Role.ALWAYS_GUARD, Role.INDEPENDENT_OF_LATENCY},
        group=Group.RESOURCES,
        tolerance=0.50,
        short_label="start",
    ),
    size_metric("request_bytes", "request size", LaunchBlocks.request_bytes, roles=frozenset()),
    size_metric("response_bytes", "response size", LaunchBlocks.response_bytes, roles=frozenset({Role.GUARD})),
)
"""What a deployment uses, and what that costs."""


METRICS = {metric.name: metric for metric in (*_SPEEDS, *_INDICES, *_RESOURCES, *map(layer_metric, package_figures()))}
"""Every metric of the package by its name, in the order in which reports show them."""
_LOCATIONS_BY_NAME = {
    location.name: location
    for location in (
        Metric(
            "latency_mean",
            "mean latency",
            LaunchBlocks.location,
            Unit.DURATION,
            floor=LATENCY_FLOOR_NS,
            kind=Location("rtm"),
            group=Group.LATENCY,
            short_label="mean",
        ),
        *map(stream_location, ("ttft", "tpot")),
    )
}
LOCATIONS: Mapping[str, Metric] = {
    location.kind.stands_for: location
    for location in _LOCATIONS_BY_NAME.values()
    if isinstance(location.kind, Location)
}
"""The location of all times, by the metric of their median: what comparisons judge in its place.

They are no names in options. ITL has none: chunks that arrive together have gaps of zero, which have no logarithm.
"""
_MEANS = {mean.name: mean for mean in map(mean_metric, ("latency", *STREAM_QUANTITIES))}  # Only limits name them
GROWTHS = tuple(name for name, metric in METRICS.items() if isinstance(metric.kind, ResourceGrowth))
"""Names of the metrics that are the growth of a resource, per request."""
SCALING_INDICES = tuple(name for name, metric in METRICS.items() if metric.is_of_scaling)
"""Indices that ``perf.measure_scaling()`` gives."""


def with_role(role: Role, *, streams: bool | None = None) -> dict[str, Metric]:
    """The metrics that have a role by name, in the order of their definitions.

    ``streams``: True for those of streams only, False for the others only, None for all.
    """
    return {
        name: metric
        for name, metric in METRICS.items()
        if role in metric.roles and (streams is None or metric.of_streams is streams)
    }


def metrics_in(group: Group) -> tuple[str, ...]:
    """The names of the metrics in a part of a table, each followed by its location."""
    return with_locations(name for name, metric in METRICS.items() if metric.group is group)


def with_locations(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each followed by the location that comparisons judge in its place."""
    return tuple(one for name in names for one in (name, *([LOCATIONS[name].name] if name in LOCATIONS else [])))


def bisectable() -> tuple[str, ...]:
    """The names of the metrics that two commits are compared by: as ratios of paired launches, or counted."""
    return tuple(name for name, metric in METRICS.items() if Role.PAIRED in metric.roles or metric.is_counted)


def streams_first(metrics: Mapping[str, Metric]) -> tuple[str, ...]:
    """The names of metrics in the order of reports, streams' before the others."""
    return tuple(sorted(metrics, key=lambda name: not metrics[name].of_streams))


def leading_time(*, streams: bool) -> Metric:
    """The time that stands for a request: RTM, or TTFT where answers stream."""
    return next(iter(with_role(Role.LEADING, streams=streams).values()))


def are_of_streams(names: Iterable[str]) -> bool:
    """Whether metrics of these names were measured of answers that stream."""
    return leading_time(streams=True).name in names


def comparable_metrics() -> dict[str, Metric]:
    """Metrics that a baseline holds and a comparison judges; a cost follows from others of them and from the price."""
    return {name: metric for name, metric in METRICS.items() if metric.unit is not Unit.COST}


def is_comparable(name: object) -> bool:
    """Whether a comparison can judge a metric of this name."""
    found = known_metric(name) if isinstance(name, str) else None
    return found is not None and (name in comparable_metrics() or isinstance(found.kind, FigureOfAnswers))


def which_metric(name: object, known: Iterable[str]) -> str:
    """The question which of these metrics was meant, also by what other tools call it; empty if none is similar."""
    return did_you_mean(name, known, others=_OTHER_NAMES) if isinstance(name, str) else ""


STANDING = frozenset(with_role(Role.STANDING))  # Names of the metrics that no machine changes


def standing_metrics(*, overloads: bool) -> frozenset[str]:
    """Metrics that no machine changes; where the load exceeds the capacity, a slower one refuses more of it."""
    return frozenset(name for name in STANDING if not (overloads and METRICS[name].counts_failures))


def nmrt_metric(objective: Objective | None) -> Metric:
    """NMRT, or NMRT under a latency objective."""
    metric = METRICS[_NMRT]
    if objective is None:
        return metric
    return replace(
        metric,
        name=f"{_NMRT}({objective})",
        label=f"capacity (NMRT) with {objective}",
        short_label=f"NMRT ({objective})",
        kind=Nmrt(objective),
    )


def goodput_metric(promise: Promise) -> Metric:
    """The rate of the requests that keep a promise."""
    return Metric(
        f"goodput({promise})",
        f"goodput with {promise}",
        lambda blocks: blocks.promise(promise).goodput(),
        Unit.RATE,
        "higher",
        kind=Goodput(promise),
        of_streams=promise.is_of_streams,
    )


def priced_metric(name: str, price: Price | None) -> Metric:
    """As :func:`metric_named`; a cost prints with the currency of the price."""
    metric = metric_named(name)
    return replace(metric, currency=price.currency) if price is not None and metric.unit is Unit.COST else metric


def metric_named(name: str) -> Metric:
    """The metric of this name, the inverse of :attr:`Metric.name`. Raises KeyError: there is no such metric."""
    known = METRICS.get(name) or _LOCATIONS_BY_NAME.get(name) or _MEANS.get(name)
    if known is not None:
        return known
    if name.startswith(f"{_NMRT}(") and name.endswith(")"):
        return nmrt_metric(parse_objective(name[len(_NMRT) + 1 : -1]))
    if name.startswith("goodput(") and name.endswith(")"):
        return goodput_metric(parse_promise(name[len("goodput(") : -1]))
    quantity, _, rank = name.rpartition(":")
    found = _PERCENTILE.fullmatch(rank)
    own = own_metrics()
    if found is None or not 1 <= (percentile := float(found[1])) < 100:
        return own[name]
    if quantity in ("", *STREAM_QUANTITIES):
        return stream_metric(quantity, percentile) if quantity else percentile_metric(percentile)
    if not isinstance(own[quantity].kind, FigureOfAnswers):
        raise KeyError(name)
    return figure_percentile(own[quantity], percentile)


def location_of(metric: Metric) -> Metric | None:
    """The location of the times whose median a metric is, which has its floor; None for other metrics."""
    found = LOCATIONS.get(metric.name)
    return found if found is None or found.floor == metric.floor else replace(found, floor=metric.floor)


def known_metric(name: str) -> Metric | None:
    """The metric of a name; None if this version knows none, as of a later version or of a pattern of one's own."""
    try:
        return metric_named(name)
    except (KeyError, SettingError):
        return None


def is_known_metric(name: str) -> bool:
    """Whether this version knows a metric of this name."""
    return known_metric(name) is not None


def objectives_of(names: Iterable[str]) -> dict[str, Objective | None]:
    """Those of these metrics that are NMRT, by name in the given order: the objective, None for NMRT alone."""
    kinds = {name: known.kind for name in names if (known := known_metric(name)) is not None}
    return {name: kind.objective for name, kind in kinds.items() if isinstance(kind, Nmrt)}
