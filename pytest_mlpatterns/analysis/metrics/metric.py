"""A metric as a value, and the roles that metrics have in comparisons, the baseline and reports.

Pure. This module must not know which metrics there are.
"""

from collections.abc import Callable
from dataclasses import astuple
from enum import Enum, StrEnum, auto
from typing import Literal

from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, PRIOR_DEGREES
from pytest_mlpatterns.records.latency import COUNTED_QUANTITIES
from pytest_mlpatterns.records.launch import Capacity, Estimate, LaunchValue
from pytest_mlpatterns.records.objective import Objective, Promise
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.units import Unit, format_duration


class Role(Enum):
    """What a metric is for."""

    PRIMARY = auto()
    """Every comparison judges it; reports show it first, and an update of the baseline reports its slow drift."""
    GUARD = auto()  # Every comparison judges it, and it fails only if it is surely worse
    ALWAYS_GUARD = auto()
    """It is no speed: a guard even if a test requests it, and a tolerance for all metrics leaves it its own."""
    STANDING = auto()
    """Neither busy neighbours nor a slower machine change it, so that a stored baseline alone judges it."""
    LEADING = auto()  # The time that stands for a request, of whole answers or of streams
    PACED = auto()  # A schedule with pauses or a rate sets it, however fast the service is
    PAIRED = auto()  # An interleaved launch measures it as a ratio of neighbouring blocks
    FACTOR = auto()  # One service can be several times as fast as another by it
    RECORDED = auto()  # An update of the baseline compares it too; a change of it begins no new anchor
    OF_ANSWERS = auto()  # It is of successful answers, and unknown if every request failed
    INDEPENDENT_OF_LATENCY = auto()  # It may get worse while the time of a request does not
    HELD = auto()  # Memory that lines of the model hold explains it
    AT_NMRT = auto()  # A measurement of scaling measures it at the NMRT of each number of replicas
    COLUMN = auto()  # Tables of several tests have a column of it
    SIDE_BY_SIDE = auto()  # A chart compares it under the patterns of one test
    WIRE = auto()  # It differs by the wire, so that a chart compares it if one test ran over several
    PICTURED = auto()  # Reports draw how it is distributed, where answers stream
    FACT = auto()  # The text of a failure has it
    EVALUATED = auto()  # The table of a test that measured scaling or overload has it


class Group(StrEnum):
    """Part of a table that has the metric; the value is its heading."""

    STREAMS = "Streams"
    LATENCY = "Latency"
    CAPACITY = "Capacity"
    RESOURCES = "Resources"
    FIGURES = "Figures of answers"
    OTHERS = "Wire and pattern"


USUAL_TOLERANCE = 0.10
"""Largest worsening that a comparison accepts of a metric without a tolerance of its own, as a share."""


class LatencyPercentile(Struct, frozen=True):
    """A percentile of the latency of whole answers, above 0 and below 100."""

    percentile: float


class StreamPercentile(Struct, frozen=True):
    """A percentile of a time of streams, such as the 95th of ``ttft``."""

    quantity: str
    percentile: float


class Nmrt(Struct, frozen=True):
    """NMRT, which a capacity search gives, under a latency objective if it has one."""

    objective: Objective | None = None


class AtNmrt(Struct, frozen=True):
    """A value that the searches for NMRT alone give beside it, at a price."""

    read: Callable[[Capacity, Price | None], LaunchValue | None]


class Goodput(Struct, frozen=True):
    """The rate of requests that keep a promise."""

    promise: Promise


class ResourceGrowth(Struct, frozen=True):
    """The growth of a resource."""

    resource: str  # its name in :class:`ResourceTrack`
    per: int  # number of requests to which the growth relates
    least_gain: float  # growth over half of a track from which it may be a leak


class Location(Struct, frozen=True):
    """The location of all times of a request, which knows more of them than their median."""

    stands_for: str  # the metric of the median, in whose place comparisons judge it


class CallersRate(Struct, frozen=True):
    """A rate of a closed loop, which follows from times, since each caller sends again when it has its answer."""

    times: tuple[str, ...]  # the metrics of these times
    cycle_floor: float = 0.0  # the floor of the rate, as nanoseconds from one request of a caller to its next


class ScalingIndex(Struct, frozen=True):
    """An index of scalability, whose intervals end at its largest value."""

    largest: float


class FigureOfAnswers(Struct, frozen=True):
    """A figure that the user reads from each answer."""

    figure: str  # its name
    percentile: float | None = None  # which of its percentiles; None for its mean


class Counted(Struct, frozen=True):
    """Work that a pass of its own counts, which neither the machine nor its neighbours change."""


MetricKind = (
    LatencyPercentile
    | StreamPercentile
    | Nmrt
    | AtNmrt
    | Goodput
    | ResourceGrowth
    | Location
    | CallersRate
    | ScalingIndex
    | FigureOfAnswers
    | Counted
)
"""What more is known of some metrics than of others."""


class Metric(Struct, frozen=True):
    """Name, source, unit and direction of a metric."""

    name: str  # as files and options write it, ``rtm`` or ``nmrt(p95<50.0ms)``
    label: str  # as reports write it
    # value in one launch; None for metrics of searches and of measurements of scaling
    of: Callable[[LaunchBlocks], LaunchValue | None] | None
    unit: Unit  # what a value counts; gives how it prints, how a limit is read and how a slower machine scales it
    better: Literal["lower", "higher"] = "lower"  # which values are better
    # relative standard deviation expected between launches; 0 if launches do not vary by themselves
    launch_sd: float = LAUNCH_SD
    floor: float = 0.0  # smallest change that a comparison takes seriously, in the metric's unit
    currency: str = ""  # of a cost; empty if it is not known, and for other metrics
    of_streams: bool = False  # whether only answers that come in pieces have it
    sampled: bool = False  # whether it is a mean over the requests that a launch happens to hold, which may vary
    kind: MetricKind | None = None  # what more is known of some metrics; None for others
    roles: frozenset[Role] = frozenset()  # what it is for
    group: Group = Group.OTHERS  # part of a table that has it
    # largest worsening that a comparison accepts by default, as a share; of an error rate the difference
    tolerance: float = USUAL_TOLERANCE
    short_label: str = ""  # in tables and beside a change; empty: as :attr:`short` has it
    sd_degrees: float = PRIOR_DEGREES  # degrees of freedom that this is worth beside the launches of a comparison

    @property
    def counts_failures(self) -> bool:
        """Whether it is the share of requests that failed, which is compared by its difference."""
        return self.name == "error_rate"

    def show(self, value: float) -> str:
        """Print a value for people."""
        shown = self.unit.show(value)
        return f"{shown} {self.currency}" if self.currency else shown

    @property
    def is_counted(self) -> bool:
        """Whether a pass of its own counts it."""
        return isinstance(self.kind, Counted)

    @property
    def is_of_scaling(self) -> bool:
        """Whether its values come from the passes of ``perf.measure_scaling()``."""
        return self.of is None and not isinstance(self.kind, Nmrt | AtNmrt | Counted)

    def bounded(self, found: Estimate) -> Estimate:
        """An estimate of the metric, with an interval that ends at its largest value."""
        if not isinstance(self.kind, ScalingIndex):
            return found
        return Estimate(*(min(end, self.kind.largest) for end in astuple(found)))

    @property
    def is_tail(self) -> bool:
        """Whether slow requests are counted for it: a percentile of latency, TTFT or TPOT other than the median."""
        if isinstance(self.kind, StreamPercentile) and self.kind.quantity not in COUNTED_QUANTITIES:
            return False
        return isinstance(self.kind, LatencyPercentile | StreamPercentile) and self.kind.percentile != 50

    @property
    def percentile(self) -> float:
        """The percentile that it is."""
        assert isinstance(self.kind, LatencyPercentile | StreamPercentile)
        return self.kind.percentile

    @property
    def is_stream_tail(self) -> bool:
        """Whether it is a percentile of a time of streams other than the median."""
        return isinstance(self.kind, StreamPercentile) and self.kind.percentile != 50

    @property
    def short(self) -> str:
        """Its label for little room, such as ``p95`` or ``memory``."""
        return self.short_label or (self.name if self.is_tail and not self.of_streams else self.label)

    @property
    def floor_text(self) -> str:
        """The floor in words."""
        if isinstance(self.kind, CallersRate) and self.kind.cycle_floor:
            return f"{format_duration(self.kind.cycle_floor)} a request"
        return self.show(self.floor)

    def allowed(self, tolerance: float, before: float, in_flight: int | None = None) -> float:
        """Largest worsening that a comparison accepts, as a share: the tolerance, or the floor if that is more.

        ``tolerance``: 0.10 for 10 %. ``before``: the value that the share is of, above zero, in the metric's unit.
        ``in_flight``: requests that the load kept in flight at any time; None for other loads, whose rate does not
        depend on the time of a request.
        """
        if in_flight and isinstance(self.kind, CallersRate) and self.kind.cycle_floor:
            slower = before * self.kind.cycle_floor / 1e9 / in_flight  # share by which the time of a request may grow
            return max(tolerance, slower / (1 + slower))
        return max(tolerance, self.floor / before) if self.floor else tolerance


def resource_of(metric: Metric) -> ResourceGrowth:
    """The resource whose growth a metric is."""
    assert isinstance(metric.kind, ResourceGrowth)
    return metric.kind


def times_of(metric: Metric) -> tuple[str, ...]:
    """The times that a rate of a closed loop follows from; empty for other metrics."""
    return metric.kind.times if isinstance(metric.kind, CallersRate) else ()


def objective_of(metric: Metric) -> Objective | None:
    """The objective of the searches that give a metric; None if they have none, or if no search gives it."""
    return metric.kind.objective if isinstance(metric.kind, Nmrt) else None
