"""From launches to metrics: RTM, percentiles, throughput, ASL and the rest, each with its interval over launches.

Pure: takes launches, returns estimates. It must not know limits or baselines.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property, partial
from typing import ClassVar, NoReturn

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.health.sustained import GeneratorMetrics, backlogs_of, why_limited, why_not_sustained
from pytest_mlpatterns.analysis.metrics.blocked_values import BlockedValues
from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.analysis.metrics.metric import (
    AtNmrt,
    FigureOfAnswers,
    Goodput,
    LatencyPercentile,
    Metric,
    Nmrt,
    StreamPercentile,
)
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.metrics.pattern_metrics import NO_INDICES, Figure, PatternMetrics, ScalingIndices
from pytest_mlpatterns.analysis.metrics.percentile_estimate import LaunchTimes, PooledTimes
from pytest_mlpatterns.analysis.metrics.searched_rates import counted_rates, known_rate
from pytest_mlpatterns.analysis.metrics.stream_metrics import StreamMetrics
from pytest_mlpatterns.analysis.statistics.distributions import Modes
from pytest_mlpatterns.analysis.statistics.intervals import (
    CONFIDENCE,
    TO_95_PERCENT,
    estimate,
    min_samples,
    wilson_interval,
)
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.latency import STREAM_QUANTITIES, RequestCounts
from pytest_mlpatterns.records.launch import Capacity, Estimate, Launch, LaunchValue
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.wording import count, did_you_mean

_BILLION = 1e9  # Factor with which a figure that may be below 1 becomes as large as a time in nanoseconds


def missing_figure(name: str) -> str:
    """The message about a figure that :class:`Metrics` has not; empty for one that it has."""
    if hasattr(Metrics, name) or name in Metrics.__dataclass_fields__:
        return ""
    advice = advice_on_missing(Metrics, name, f"perf.{_percentile_of(name)}")
    return f"perf.metrics has no {name}; {advice or 'pytest --perf-help lists the metrics'}"


def _percentile_of(name: str) -> str:
    """What to write for a percentile of the quantity that a name begins with."""
    quantity = name.partition("_")[0]
    return f"metrics.{quantity if quantity in STREAM_QUANTITIES else 'latency'}_ns({{}})"


@dataclass(frozen=True, repr=False)
class Metrics(PatternMetrics, StreamMetrics):
    """The metrics of one test over all its launches. Each is an :class:`Estimate`, or None if it does not apply.

    Args:
        launches: at least one, each with at least one request.
        capacities: one for each capacity search, in the order in which they were made.
        price: of cores and memory; None if there is no cost.
        indices: of scalability, if the test measured how its pattern scales.
        starts_ns: times from start to first answer of deployments that were started again and not loaded.
        counts: passes that counted the instructions of a request.
    """

    launches: tuple[Launch, ...]
    capacities: tuple[Capacity, ...] = ()
    price: Price | None = None
    indices: ScalingIndices = NO_INDICES
    starts_ns: tuple[int, ...] = ()
    counts: tuple[Count, ...] = ()

    def __repr__(self) -> str:
        return f"<metrics of {self.requests:,} requests in {len(self.launches)} launches>"

    @property
    def rtm_ns(self) -> Estimate:
        """Response time median: from when a request was due until its last byte; failed requests are the latest."""
        return self.latency_ns(50)

    @property
    def mean_ns(self) -> Estimate:
        """Arithmetic mean latency of the successful requests."""
        return self._known("mean")

    @property
    def throughput_rps(self) -> Estimate:
        """Successful answers per second in the window."""
        return self._known("throughput")

    total_time_ns: ClassVar[Figure] = Figure(
        "total_time", "From when the first of ``requests=`` was due until the last answer; None of a window by time."
    )

    @property
    def error_ratio(self) -> Estimate:
        """Share of requests without a 2xx answer, with its binomial interval."""
        return self.error_share(CONFIDENCE)

    def error_share(self, confidence: float) -> Estimate:
        """The same with an interval of another confidence.

        Raises:
            InvalidResultError: no request was due.
        """
        if not self.requests:
            raise InvalidResultError("no request was due in the measured window, so there is no error rate")
        return wilson_interval(sum(self.failures.values()), self.requests, confidence)

    asl_ratio: ClassVar[Figure] = Figure(
        "asl", "Average system load: mean share of the cores that it may use, that the deployment's processes used."
    )
    asl_at_nmrt_ratio: ClassVar[Figure] = Figure(
        "asl_at_nmrt",
        """Average system load with as many requests in flight as reach NMRT, over the searches for it.

        None without a search, and if the searches found only a lower bound.
        """,
    )
    performance_coefficient: ClassVar[Figure] = Figure(
        "pc", "PC, ``1 / (RTM in seconds × ASL)`` at the test's load: short responses from little of the machine."
    )
    cpu_ns_per_request: ClassVar[Figure] = Figure(
        "cpu_per_request", "CPU time of the deployment's process tree per successful answer."
    )
    instructions_per_request: ClassVar[Figure] = Figure(
        "instructions", "User-space instructions of the deployment's processes per request; None if not counted."
    )
    peak_rss_bytes: ClassVar[Figure] = Figure(
        "peak_memory", "Highest resident memory of the process tree in the window."
    )
    memory_growth_bytes_per_request: ClassVar[Figure] = Figure(
        "memory_growth",
        "Growth of the process tree's resident memory per request, at least 0; short windows show little of it.",
    )
    descriptor_growth_per_1000_requests: ClassVar[Figure] = Figure(
        "descriptor_growth", "Growth of the process tree's open file descriptors per 1,000 requests, at least 0."
    )
    thread_growth_per_1000_requests: ClassVar[Figure] = Figure(
        "thread_growth", "Growth of the process tree's threads per 1,000 requests, at least 0."
    )
    cost_per_million_requests: ClassVar[Figure] = Figure(
        "cost",
        """Cost of a million successful answers, in ``price.currency``; None without a price.

        It pays for the CPU time and the peak memory that the deployment's processes used under the test's load.
        """,
    )
    cost_per_million_requests_at_nmrt: ClassVar[Figure] = Figure(
        "cost_at_nmrt",
        """Cost of a million successful answers at NMRT, over the searches for it, as ``cost_per_million_requests``.

        None without a price or a search, and if the searches found only a lower bound.
        """,
    )
    cold_start_ns: ClassVar[Figure] = Figure(
        "cold_start", "From the start of the processes to the first answered inference."
    )

    @property
    def request_bytes(self) -> Estimate:
        """Mean size of a request on the wire, headers included."""
        return self._known("request_bytes")

    @property
    def response_bytes(self) -> Estimate:
        """Mean size of a successful answer on the wire, headers included."""
        return self._known("response_bytes")

    nmrt_rps: ClassVar[Figure] = Figure(
        "nmrt",
        """Number of requests at max throughput: the most per second that is sustained; None if it was not searched for.

        Of the searches without a latency objective; of a search that ended early it is a lower bound
        (``capacities[...].at_least``).
        """,
    )

    @property
    def nmrt_concurrency(self) -> Estimate | None:
        """The smallest number of requests in flight with which NMRT is reached, over the searches."""
        found = [capacity.concurrency for capacity in self._searches(None)]
        return Estimate(sum(found) / len(found), min(found), max(found)) if found else None

    @cached_property
    def generator(self) -> GeneratorMetrics:
        """The load generator's own figures."""
        lag = np.concatenate([blocks.send_lag_ns for blocks in self.by_launch])
        cpu = sum(launch.generator.cpu_ns for launch in self.launches)
        completed = sum(launch.generator.completed for launch in self.launches)
        return GeneratorMetrics(cpu / max(completed, 1), lag, self.why_limited())

    @cached_property
    def not_sustained(self) -> str | None:
        """Why the service does not sustain the load, an open loop of one rate; None if it does, and for other loads."""
        return why_not_sustained(backlogs_of(self.launches))

    @property
    def requests(self) -> int:
        """Requests that were due in the measured windows."""
        return sum(blocks.requests for blocks in self.by_launch)

    @property
    def blocks(self) -> int:
        """Blocks over all launches, of each no more than it has requests: a block without one is no evidence."""
        return sum(min(blocks.count, max(blocks.requests, 1)) for blocks in self.by_launch)

    @cached_property
    def failures(self) -> dict[int, int]:
        """How many requests ended with each status or failure code that is not 2xx."""
        total: Counter[int] = Counter()
        for blocks in self.by_launch:
            total.update(blocks.failures)
        return dict(total.most_common())

    def __getattr__(self, name: str) -> NoReturn:
        """Only called for a name that does not exist."""
        __tracebackhide__ = True
        raise missing_attribute(self, name, _percentile_of(name))

    def __getitem__(self, name: object) -> NoReturn:
        """Figures are attributes."""
        __tracebackhide__ = True
        raise TypeError(missing_figure(str(name)) or f"perf.metrics[{name!r}], expected perf.metrics.{name}")

    @property
    def first_failure(self) -> FirstFailure | None:
        """The first failed input and its error, such as ``perf_payload item 1 -> ValueError: …``; None without one."""
        return next((launch.first_failure for launch in self.launches if launch.first_failure is not None), None)

    def latency_ns(
        self, percentile: float, confidence: float = CONFIDENCE, *, scatter: Sequence[LaunchValue] = ()
    ) -> Estimate:
        """A latency percentile over all requests that were due; a failed request is infinitely late.

        Its interval holds what launches and blocks differ by, and what few samples leave open, as
        ``pytest_mlpatterns.analysis.metrics.percentile_estimate`` describes.

        Args:
            percentile: at least 1 and less than 100.
            confidence: of the interval.
            scatter: launches of a baseline, which show how much launches differ.

        Raises:
            TooFewSamplesError: too few requests to bound it at 99 % confidence.
            InvalidResultError: no request succeeded.
            ValueError: another percentile.
        """
        min_samples(percentile)  # refuses what is no percentile
        metric = percentile_metric(percentile)
        values = self.launch_values(metric)
        return self._latencies.estimate(metric, percentile, values, confidence=confidence, scatter=scatter)

    def interval_of(
        self, metric: Metric, confidence: float = CONFIDENCE, *, scatter: Sequence[LaunchValue] = ()
    ) -> Estimate | None:
        """The metric with the interval that a limit is compared with; None if it does not apply.

        That of a percentile and of the error rate rests on all requests, others on the values of the launches.

        Raises:
            TooFewSamplesError: a percentile of too few requests.
            InvalidResultError: a percentile without a request that succeeded, or an error rate without any.
        """
        if metric.counts_failures:
            return self.error_share(confidence)
        match metric.kind:
            case Goodput(promise):
                return self.promised(promise, goodput=True, confidence=confidence)
            case LatencyPercentile(percentile):
                return self.latency_ns(percentile, confidence, scatter=scatter)
            case StreamPercentile(quantity, percentile):
                return self.stream_percentile(quantity, percentile, confidence, scatter=scatter)
            case FigureOfAnswers() as kind if found := self._with_figure(kind.figure):
                return self._figure(metric, kind.percentile, found, confidence=confidence, scatter=scatter)
        return self.estimate(metric, confidence, scatter=scatter)

    def _figure(
        self,
        metric: Metric,
        percentile: float | None,
        found: Sequence[BlockedValues],
        *,
        confidence: float,
        scatter: Sequence[LaunchValue],
    ) -> Estimate | None:
        """The mean or a percentile of a figure of answers, which is exact if no answer differs."""
        least, most = (float(pick(one.ascending[at] for one in found)) for pick, at in ((min, 0), (max, -1)))
        if least == most:
            return Estimate(least, least, least)
        if percentile is None:
            return self.estimate(metric, confidence, scatter=scatter)
        times = PooledTimes([LaunchTimes(one.ascending.astype(np.float64) * _BILLION) for one in found])
        launches = [replace(one, value=one.value * _BILLION) for one in self.launch_values(metric)]
        pooled = times.estimate(metric, percentile, launches, confidence=confidence, scatter=scatter)
        return Estimate(*(part / _BILLION for part in astuple(pooled)))

    def _with_figure(self, name: str) -> list[BlockedValues]:
        """A figure of answers in each launch that has it."""
        found = [blocks.figures[name] for blocks in self.by_launch if name in blocks.figures]
        return [one for one in found if one.ascending.size]

    def figure_notes(self) -> list[str]:
        """Sentences about figures that only some of the answers have."""
        successes, notes = sum(blocks.latencies_ns.size for blocks in self.by_launch), []
        for name in self.by_launch[0].figures:
            has = sum(one.ascending.size for one in self._with_figure(name))
            if has < successes:
                notes.append(f"{name} is that of {has:,} of {count(successes, 'answer')}; the others do not have it")
        return notes

    def modes_of(self, metric: Metric) -> Modes | None:
        """The two modes of the times that a metric is a percentile of; None if they have one, and for other metrics."""
        match metric.kind:
            case StreamPercentile(quantity):
                return self.stream_modes(quantity)
            case LatencyPercentile():
                return self._latencies.modes
        return None

    def launch_values(self, metric: Metric) -> tuple[LaunchValue, ...]:
        """The metric's value in each launch that has one; for NMRT, in each search; for its indices, in each pass."""
        if isinstance(metric.kind, Nmrt):
            return tuple(rate for rate in counted_rates(self._searches(metric.kind.objective)) if rate.value > 0)
        if metric.is_counted:
            return tuple(map(_counted_value, self.counts))
        if isinstance(metric.kind, AtNmrt):
            values = [metric.kind.read(capacity, self.price) for capacity in self._searches(None)]
        elif metric.of is None:
            return self.indices.values.get(metric.name, ())
        else:
            values = [metric.of(blocks) for blocks in self.by_launch]
            if metric.name == "cold_start":
                values += [LaunchValue(float(start_ns), 0.0) for start_ns in self.starts_ns]
        return tuple(value for value in values if value is not None)

    def comparable_values(self, metric: Metric) -> tuple[LaunchValue, ...]:
        """The finite launch values: a percentile among the failed requests of a launch is infinite."""
        return tuple(value for value in self.launch_values(metric) if math.isfinite(value.value))

    def estimate(
        self, metric: Metric, confidence: float = CONFIDENCE, *, scatter: Sequence[LaunchValue] = ()
    ) -> Estimate | None:
        """The metric over all launches; None if it does not apply.

        Args:
            metric: which one.
            confidence: of the interval.
            scatter: launches of a baseline, which show how much launches differ.
        """
        if isinstance(metric.kind, Nmrt) and metric.kind.objective is not None:
            interval_of = partial(estimate, launch_sd=metric.launch_sd, confidence=confidence, scatter=scatter)
            searches = self._searches(metric.kind.objective)
            return known_rate(searches, interval_of) if searches else None
        values = self.launch_values(metric)
        if any(math.isinf(launch.value) for launch in values):
            return Estimate(math.inf, min(launch.value for launch in values), math.inf)
        return metric.bounded(estimate(values, metric.launch_sd, confidence, scatter=scatter)) if values else None

    def load_over_time(self) -> list[tuple[float, float, float]]:
        """ASL over time in the last launch: ``(seconds, deployment's share, whole machine's share)`` per block."""
        return self.by_launch[-1].load_over_time()

    def memory_over_time(self) -> list[tuple[float, float]]:
        """Resident memory over time in the last launch: ``(seconds, highest bytes)`` per block."""
        return self.by_launch[-1].memory_over_time()

    @property
    def latencies_ns(self) -> NDArray[np.int64]:
        """The latency of every successful request, over all launches, shape ``(successes,)``."""
        return np.concatenate([blocks.latencies_ns for blocks in self.by_launch])

    @property
    def request_counts(self) -> tuple[RequestCounts, ...]:
        """The requests of each launch, counted by latency."""
        return tuple(blocks.counts for blocks in self.by_launch)

    def beyond(self, latency_ns: float, quantity: str = "") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Successful requests of each block that took longer, in a quantity of streams or (empty) latency; and all."""
        found = [blocks.beyond(latency_ns, quantity) for blocks in self.by_launch]
        late, all_ = (np.concatenate(one) for one in zip(*found, strict=True))
        return late, all_

    @cached_property
    def _latencies(self) -> PooledTimes:
        return PooledTimes([LaunchTimes(one.latencies_ns, sum(one.failures.values())) for one in self.by_launch])

    def only_at_least(self, metric: Metric) -> bool:
        """Whether the metric is NMRT, and there were searches that all ended before the deployment degraded."""
        searches = self._searches(metric.kind.objective) if isinstance(metric.kind, Nmrt) else []
        return bool(searches) and all(capacity.at_least for capacity in searches)

    def _searches(self, objective: Objective | None) -> list[Capacity]:
        """The searches for NMRT under an objective, or under none: those that went to the end, if any did."""
        found = [capacity for capacity in self.capacities if capacity.objective == objective]
        return [capacity for capacity in found if not capacity.at_least] or found

    @cached_property
    def by_launch(self) -> tuple[LaunchBlocks, ...]:
        """The launches, cut into blocks."""
        return tuple(LaunchBlocks(launch, self.price) for launch in self.launches)

    def _known(self, name: str) -> Estimate:
        found = self.estimate(metric := metric_named(name))
        if found is None:
            raise InvalidResultError(f"no request succeeded, so there is no {metric.label}")
        return found

    def why_limited(self, judged_ns: float = 0.0) -> str | None:
        """Why the load generator may have been the limit; None if it was not.

        Args:
            judged_ns: latency that is judged, if that is more than the median: its lag matters beside this one.
        """
        for launch, blocks in zip(self.launches, self.by_launch, strict=True):
            median = blocks.percentile(50)
            latency_ns = max(judged_ns, median.value if median else 0.0)
            lag = blocks.send_lag_ns if launch.open_loop else None
            if why := why_limited(launch.generator, send_lag_ns=lag, latency_ns=latency_ns):
                return why
        return None


def _counted_value(count: Count) -> LaunchValue:
    """The instructions of one pass, and what its rounds scatter by."""
    found = count.per_request
    return LaunchValue(found.value, (found.high - found.low) / (2 * TO_95_PERCENT * found.value))


_PERCENTILE = re.compile(r"(?:^|_)p(?P<percent>\d{1,2})(?:_|$)")


def missing_attribute(owner: object, name: str, instead: str) -> AttributeError:
    """The error of a missing attribute; ``instead`` is what to write for a percentile, with ``{}`` for its number."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    advice = advice_on_missing(type(owner), name, instead)
    return AttributeError(f"{text}; {advice}" if advice else text, name=name, obj=owner)


def advice_on_missing(kind: type, name: str, instead: str) -> str:
    """What to write instead of an attribute that the objects of a class do not have; empty if none is similar."""
    if found := _PERCENTILE.search(name):
        return f"use {instead.format(found['percent'])}"
    known = [one for one in dir(kind) if not one.startswith("_")]
    return "" if name.startswith("_") else did_you_mean(name, known).rstrip()
