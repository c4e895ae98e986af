"""The parts of a result, one for each capability: what a test asks for, what was measured, judged, found and explained.

Each part reads and writes its own members of the JSON of a result, which has them all side by side.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

import msgspec
from msgspec import Struct

from pytest_mlpatterns.records.baseline_entry import commit_in
from pytest_mlpatterns.records.capacity import LatencyMoment, Overload, ScalingRecord, StepImpact
from pytest_mlpatterns.records.codec import Amount, InFiles, Record, plain
from pytest_mlpatterns.records.codec import Count as Number
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.latency import Latency, LatencySplits, Percentiles, RequestCounts
from pytest_mlpatterns.records.launch import Busy, Capacity, GeneratorPart, NodeFigures, Noise, Taken, Warmup
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.outcomes import FirstFailure, describe_failures
from pytest_mlpatterns.records.price import Price, parse_price
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.samples import GrowthRecord, HeldRecord
from pytest_mlpatterns.records.setup import EnvironmentFacts, FactChange
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.records.verdict import Gate, LeftOut, Unjudged


class BaselineGap(StrEnum):
    """Why a test was not compared with the baseline; the value is the text in reports and files."""

    ABSENT = "no baseline"
    NOT_COMPARABLE = "baseline not comparable"


class Beside(Struct, frozen=True):
    """The present as it was measured interleaved with a revision."""

    metrics: Mapping[str, tuple[float, float, float]] = {}  # ``(value, low, high)`` by the metric's name
    latency_percentiles: Percentiles = ()  # latency distribution; empty if unknown
    # distributions of ``ttft``, ``itl`` and ``tpot``; empty if unknown
    stream_percentiles: Mapping[str, Percentiles] = {}
    split: LatencySplits = msgspec.field(default_factory=dict)  # where the time of the requests went; empty if unknown


_ORDER = (
    *("kind", "name", "metrics", "latency_percentiles", "present_metrics", "present_latency_percentiles", "log_ratios"),
    *("launches", "stream_percentiles", "present_stream_percentiles", "split", "present_split", "entry"),
    *("recorded_commit", "revision_commit"),
)
"""The members of a reference in JSON, in the order in which they have always been written."""


class Reference(Record, frozen=True):
    """What a test is compared with: a baseline entry, or the same test at another git revision."""

    kind: Literal["baseline", "revision"]  # baseline entry or revision
    name: str  # as reports show it, such as ``main (05428cb)``
    metrics: Mapping[str, tuple[float, float, float]]  # ``(value, low, high)`` by the metric's name
    latency_percentiles: Percentiles = ()  # latency distribution of the reference; empty if unknown
    # the present in the interleaved run; empty for a baseline, with which the result's own figures are compared
    present: Beside = Beside()
    # ``(log(present/reference), standard error)`` of each paired launch, by the metric's name
    log_ratios: Mapping[str, tuple[tuple[float, float], ...]] = {}
    launches: Number = 0  # launches that a baseline entry was recorded from; 0 if unknown, or for a revision
    # distributions of ``ttft``, ``itl`` and ``tpot`` of the reference; empty if unknown
    stream_percentiles: Mapping[str, Percentiles] = {}
    # where the time of the reference's requests went; empty if unknown
    split: LatencySplits = msgspec.field(default_factory=dict)
    entry: str = ""  # name of the baseline entry whose recorded code the revision is; empty for other references
    # commit whose files gave the baseline entry; empty if they were changed, or for a revision
    recorded_commit: str = ""
    # full hash of the commit that was measured interleaved; empty for a baseline, or if unknown
    revision_commit: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries, lists, text and numbers; the names of the present begin with ``present_``."""
        own = super().to_json()
        present = {f"present_{name}": value for name, value in own.pop("present").items()}
        return {name: (own | present)[name] for name in _ORDER}

    @property
    def pairs(self) -> int:
        """Paired launches that were measured; a percentile whose requests count together has fewer values than that."""
        return max(map(len, self.log_ratios.values()), default=0)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`, also after a trip through JSON."""
        recorded = commit_in(data["name"]) if data["kind"] == "baseline" else ""
        names = {name: f"present_{name}" for name in Beside.__struct_fields__}
        present = {name: data[stored] for name, stored in names.items() if stored in data}
        return super().from_json({"recorded_commit": recorded, **data, "present": present})


class Location(Struct, frozen=True):
    """Where a test is defined: the file relative to pytest's root directory, with slashes, and its line from 1."""

    file: str
    line: Number

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Terms(Struct, frozen=True):
    """What a comparison of the test may take, and how much worse each metric may be."""

    budget_ns: Number  # time that it may measure
    launches: Number  # most launches beside a stored baseline
    # largest acceptable worsening by the name of each metric that a comparison judges; of an error rate the
    # difference
    tolerances: Mapping[str, Amount]
    budget_in_marker: bool = False  # whether the test's marker sets the budget, so that no option changes it


class Definition(Record, frozen=True):
    """Where a test is defined, and what it asks for."""

    group: str = ""  # the test's id without its pattern, which the patterns of one test share
    location: Location | None = None  # where it is defined
    command: str = ""  # command line that runs the test alone
    tolerance: float = 0.10  # largest worsening against the baseline that the test accepts
    gate: Gate = Gate.FAIL  # whether a failing verdict fails the test
    overload: bool = False  # whether the load is meant to exceed the capacity, so that refused requests are no failures
    price: Price | None = None  # of cores and memory; None without one
    terms: Terms | None = None  # of a comparison; None in files of older versions

    _in_files: ClassVar[InFiles] = {
        "price": (lambda price: price and str(price), lambda text: parse_price(text) if text else None)
    }


class Judged(Record, frozen=True):
    """What came of a test beside its verdicts."""

    passed: bool  # whether it passed; a test that ``--perf-gate warn`` lets pass did not
    interrupted: bool = False  # whether it was ended early
    # names of the metrics by which an undecided test is probably slower; empty if it is not
    probably_slower: tuple[str, ...] = ()
    # the kind of a test that its verdicts do not show, and the reason; None if they do
    unjudged: Unjudged | None = None
    # for each worsening that is accepted for the test, why that no longer holds; empty while it does
    accepted: Mapping[str, str] = {}
    caught: tuple[str, ...] = ()  # the errors of assertions that the test caught, so that it passed, in a line each
    notes: tuple[str, ...] = ()  # what a reader has to know of the measurement, a sentence each
    baseline_note: str = ""  # what a reader of the comparison has to know; empty if there is nothing
    # why there was no baseline to compare with; None if there was one, or if none was requested
    baseline_gap: BaselineGap | None = None
    # why a metric was not compared with the reference, by its label: ``is not recorded yet``. Percentiles that
    # need more requests share a sentence, ``at 4.0 answers a second p99 latency needs 115 s``
    not_compared: Mapping[str, LeftOut] = {}
    # why instructions could not be counted that would decide what a busy machine leaves open; empty if nothing asked
    not_counted: str = ""
    # what of the environment differs from the reference's, or from an entry's that was not comparable; None if
    # one of them is not known
    facts_changed: tuple[FactChange, ...] | None = None

    _in_files: ClassVar[InFiles] = {
        "not_compared": (
            lambda whys: {label: str(why) for label, why in whys.items()},
            lambda texts: {label: LeftOut.read(label, text) for label, text in texts.items()},
        )
    }


class Measured(Record, frozen=True):
    """The launches of a test, and their requests."""

    # one ``(value, relative_error)`` per launch, by the metric's name
    launches: Mapping[str, tuple[tuple[float, float], ...]]
    launch_count: Number  # number of launches
    blocks: Number  # number of blocks in them
    seconds_spent: float  # time that the measurement took
    requests: Number  # number of requests
    failed_requests: Mapping[str, Number]  # number of requests by outcome code, of those without a 2xx response
    # the first input whose request failed, and its error; None if none failed
    first_failure: FirstFailure | None = None
    counts: tuple[RequestCounts, ...] = ()  # requests, failures and latencies of each launch
    # for each of several replicas the share of the requests that it answered: mean over the launches, smallest
    # and largest
    replica_share: tuple[tuple[float, float, float], ...] = ()
    latency: Latency | None = None  # distribution of all latencies; None if no request has one
    layers: tuple[LayerStats, ...] = ()  # counts of the pattern's layers in the last launch's window
    busy: Busy | None = None  # what took enough of the machine to change times; None if nothing did, or if unknown

    _in_files: ClassVar[InFiles] = {"first_failure": (lambda failure: str(failure or ""), FirstFailure.read)}

    @property
    def failed_count(self) -> int:
        """Number of requests without a 2xx response."""
        return sum(self.failed_requests.values())

    @property
    def failed_kinds(self) -> str:
        """These requests by kind, and the first of them; empty without any."""
        return describe_failures({int(code): n for code, n in self.failed_requests.items()}, self.first_failure)


class Conditions(Record, frozen=True):
    """The machines, the load generator and the environment of the service while a test was measured."""

    # ``(seconds, deployment's share, machine's share)`` of the last launch's window
    load_over_time: tuple[tuple[float, float, float], ...] = ()
    memory_over_time: tuple[tuple[float, float], ...] = ()  # ``(seconds, bytes)`` of the last launch's window
    warmups: tuple[Warmup, ...] = ()  # one per launch
    noise: tuple[Noise, ...] = ()  # what disturbed the machine in the windows
    unsteady: tuple[str, ...] = ()  # the notes that say that the load was not steady
    taken: Taken = Taken()  # what of the machine the deployment could not have
    sorting_ns: tuple[Amount, ...] = ()  # CPU times of a fixed work in the launches; empty if it is not known
    generator: Mapping[str, int | float | bool | None] = {}  # figures of the load generator, by name
    # the environment of the service; empty if it is not known
    facts: EnvironmentFacts = msgspec.field(default_factory=dict)
    cluster: str = ""  # node types and counts of the cluster that took part; empty without one
    nodes: tuple[NodeFigures, ...] = ()  # what the deployment used of each node of it; empty without one
    # load generators on the nodes of a cluster, in the last launch; empty if they ran here
    generator_parts: tuple[GeneratorPart, ...] = ()

    _in_files: ClassVar[InFiles] = {
        "noise": (lambda noise: list(map(str, noise)), lambda texts: tuple(map(Noise.read, texts))),
    }


class Limits(Record, frozen=True):
    """How much load a deployment sustains."""

    capacities: tuple[Capacity, ...] = ()  # one for each search
    overloads: tuple[Overload, ...] = ()  # goodput beyond the NMRT, one for each measurement of it
    scaling: ScalingRecord | None = None  # NMRT at several numbers of replicas; None if the test did not measure it
    # why an index of scalability is not known although the test measured how its pattern scales, by the name of
    # the metric
    missing_indices: Mapping[str, str] = {}

    _in_files: ClassVar[InFiles] = {
        "capacities": (
            lambda found: [{**plain(one), "objective": one.objective and str(one.objective)} for one in found],
            lambda data: [{**one, "objective": one["objective"] and parse_objective(one["objective"])} for one in data],
        )
    }


class CountedWork(Record, frozen=True):
    """The instructions of a request, as the last pass of each side counted them."""

    now: Count
    before: Count | None = None  # of what the present was compared with; None if that was not counted


class CauseRecord(Record, frozen=True):
    """What explains the figures of a test."""

    split: LatencySplits = msgspec.field(default_factory=dict)  # where the time of the requests went, over all launches
    # where the time went by function, or why that is not known; None if nothing asked for it
    profile: ProfileRecord | None = None
    # which lines hold more memory, or why that is not known; None if nothing asked for it
    held: HeldRecord | None = None
    work: CountedWork | None = None  # None if instructions were not counted
    growth: GrowthRecord | None = None  # memory over the long load of a test for leaks; None without one
    # what the steps of the function beside the load did, launch by launch; empty without one
    steps: tuple[StepImpact, ...] = ()
    # the latency through the window of the last launch, if it had steps
    latency_over_time: tuple[LatencyMoment, ...] = ()
