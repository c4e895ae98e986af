"""The record of one launch: samples, resource usage, warm-up, and the generator's report.

Each column of a record of resources is declared once, with its field. The monitors read the columns that a record has,
and the blocks of a paired launch merge them. So a new column is a field, and an attribute of the same name where it is
counted. Also: ``system/process_tree.py`` counts processes, and ``loadgen/columns.py`` has the columns of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import Enum, StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import Struct, structs

from pytest_mlpatterns.records.codec import Amount, Count, Share
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.setup import EnvironmentFacts
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.capacity import DuringStep
    from pytest_mlpatterns.records.samples import ResourceTrack, Samples, Window
    from pytest_mlpatterns.records.telemetry import PatternStats

_KEY = "column"  # Key of the metadata of a field that is a column


class Source(Enum):
    """What a column is read from."""

    TREE = "the processes of the deployment"
    MACHINE = "the machine, whoever uses it"
    OTHER = "something else, by the code that makes the record"


class Column(Struct, frozen=True):
    """One column."""

    name: str  # of the field, and of the attribute of the source
    source: Source
    # whether it is cumulative, so that its growth counts; else it goes up and down, and its highest value counts
    is_counter: bool


def counter(source: Source) -> dict[str, Any]:
    """The metadata of a field that is a cumulative column."""
    return {_KEY: (source, True)}


def level(source: Source) -> dict[str, Any]:
    """The metadata of a field that is a column which goes up and down."""
    return {_KEY: (source, False)}


def columns_of(record: DataclassInstance | type[DataclassInstance]) -> tuple[Column, ...]:
    """The columns of a record or of its class, in the order of its fields."""
    return tuple(Column(one.name, *one.metadata[_KEY]) for one in fields(record) if _KEY in one.metadata)


def read_columns(record: type[DataclassInstance], sources: Mapping[Source, object]) -> dict[str, int | None]:
    """The present values of the columns of some sources, by name; None for one that the system does not show."""
    return {one.name: getattr(sources[one.source], one.name) for one in columns_of(record) if one.source in sources}


REQUESTS_OF_WINDOW = 2.2
"""Longest requests that fit into a window which was lengthened for them: the one in flight, one more, and a tenth."""


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """Resource usage of a deployment on one node of a cluster; arrays of shape ``(moments,)``, as in ``Usage``."""

    node: str  # name of the node, its address
    cores: float  # number of cores that its processes may use
    replicas: int  # number of replicas on it at the end
    cpu_ns: NDArray[np.int64] = field(metadata=counter(Source.TREE))  # cumulative CPU time of the replicas on it
    rss_bytes: NDArray[np.int64] = field(metadata=level(Source.TREE))  # their resident memory
    # cumulative CPU time of the cluster's own processes on it: proxies, schedulers, agents
    serve_cpu_ns: NDArray[np.int64] = field(metadata=counter(Source.OTHER))

    def since(self, moment: int) -> NodeUsage:
        """The samples from the moment with this index on."""
        return replace(self, **_columns_since(self, moment))


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource usage of a deployment, sampled over time; arrays of shape ``(moments,)``.

    Each array is a column (:mod:`pytest_mlpatterns.records.launch`).
    """

    # moments on the clock of ``time.perf_counter_ns``
    time_ns: NDArray[np.int64] = field(metadata=counter(Source.OTHER))
    cpu_ns: NDArray[np.int64] = field(metadata=counter(Source.TREE))  # cumulative CPU time of the whole process tree
    # resident memory of the tree; a page that several processes share counts once for each
    rss_bytes: NDArray[np.int64] = field(metadata=level(Source.TREE))
    # cumulative busy time of all cores, of all processes
    machine_busy_ns: NDArray[np.int64] = field(metadata=counter(Source.MACHINE))
    # the rest: everything except the deployment and this process, load generator included
    others_ns: NDArray[np.int64] = field(metadata=counter(Source.OTHER))
    # cumulative time that the host gave to other machines; 0 if the system does not report it
    steal_ns: NDArray[np.int64] = field(metadata=counter(Source.MACHINE))
    # cumulative time in which a limit of the control group stopped processes; 0 if not reported
    throttled_ns: NDArray[np.int64] = field(metadata=counter(Source.MACHINE))
    # mean frequency of the cores; 0 if not reported
    frequency_hz: NDArray[np.int64] = field(metadata=level(Source.MACHINE))
    cores: float  # number of cores that the deployment may use
    machine_cores: int  # number of cores of the machine, to which its busy time belongs
    # number of threads that each process used under load, of those that did the work; empty if unknown
    busy_threads: tuple[int, ...] = ()
    limited: bool = False  # whether the deployment was given these cores (``cpus=``), and not all that there are
    # the nodes of a cluster that have replicas; empty on one machine. The columns above are then sums over their
    # machines, each counted once
    nodes: tuple[NodeUsage, ...] = ()
    without_generator: bool = False  # whether ``others_ns`` leaves the load generator out, too
    # open file descriptors of the tree, counted ten times a second; None if the system does not show them
    descriptors: NDArray[np.int64] | None = field(default=None, metadata=level(Source.TREE))
    # threads of the tree, as the descriptors
    threads: NDArray[np.int64] | None = field(default=None, metadata=level(Source.TREE))

    def since(self, moment: int) -> Usage:
        """The samples from the moment with this index on."""
        nodes = tuple(node.since(moment) for node in self.nodes)
        return replace(self, nodes=nodes, **_columns_since(self, moment))


def _columns_since(usage: NodeUsage | Usage, moment: int) -> dict[str, Any]:
    """The columns of a usage from the moment with this index on, by their names."""
    values = {one.name: getattr(usage, one.name) for one in columns_of(usage)}
    return {name: value[moment:] for name, value in values.items() if value is not None}


class Warmup(Struct, frozen=True):
    """The warm-up of a launch: its length, and whether it reached a steady state (None if its length was fixed)."""

    duration_ns: Count
    requests: Count
    steady: bool | None


class GeneratorPart(Struct, frozen=True):
    """Figures of one of the load generators on the nodes of a cluster, over the measured window."""

    node: str  # address of its node
    completed: Count  # requests that it completed
    core_share: float  # share of a core that it used
    ceiling_rps: Amount | None = None  # rate on its node against a server that does nothing; None if unknown
    opened_late_ns: int = 0  # how much later than agreed it opened the window
    # largest error of its times on the clock of this process; 0 on a node of the same machine
    clock_error_ns: Count = 0


class GeneratorReport(Struct, frozen=True):
    """Figures of the load generator over the measured window."""

    cpu_ns: int  # CPU time, summed over the processes
    wall_ns: int  # length of the window
    completed: int  # requests completed, summed over the processes; each attempt of one that was tried again counts
    connections: int  # connections opened
    connection_limit_reached: bool = False  # whether requests had to wait for a connection
    # median time to open a connection, since the start of the load; None if none was opened
    connect_ns: int | None = None
    connection_wait_ns: int = 0  # time for which requests of the window waited for a connection, summed over them
    connection_waits: int = 0  # number of requests that waited for one
    sent_again: int = 0  # number of requests that met a closed idle connection, and were sent again over a new one
    loop_lag_ns: int = 0  # largest delay of the event loop
    # rate of one process against a server that does nothing, on average; None if unknown
    ceiling_rps: float | None = None
    # time that a client library adds to the median request; None without a library
    library_overhead_ns: float | None = None
    processes: int = 1  # number of generator processes that shared the load
    answers_cut: bool = False  # whether fewer answers were kept for the check than it asks for, because of their size
    # whether the texts of some answers were not kept for counting their tokens, because of their size
    texts_cut: bool = False
    opened_late_ns: int = 0  # how much later than agreed the last of several processes opened the window
    parts: tuple[GeneratorPart, ...] = ()  # the figures of each process on a node of a cluster; empty on this machine
    client: str = ""  # name of the user's own client that sent the requests; empty if the generator or its library did
    ticks_cpu_ns: int = 0  # the part of the CPU time that the generator's own ticks took, 20 a second

    @property
    def core_ns(self) -> int:
        """Core time that the generator processes could have used, one core each; at least 1."""
        return max(self.wall_ns, 1) * self.processes

    @property
    def rate_rps(self) -> float:
        """Requests completed per second by one generator process."""
        return self.completed * 1e9 / self.core_ns

    @property
    def core_share(self) -> float:
        """Share of a core that one generator process used."""
        return self.cpu_ns / self.core_ns


_ADDED = ("cpu_ns", "completed", "connection_wait_ns", "connection_waits", "sent_again", "ticks_cpu_ns")
_LARGEST = ("connection_limit_reached", "loop_lag_ns", "answers_cut", "texts_cut", "opened_late_ns")


def merged_reports(reports: Sequence[GeneratorReport], **others: Any) -> GeneratorReport:
    """The report of all parts of a load, or of several loads; ``others``: figures of them together."""
    added = {name: sum(getattr(one, name) for one in reports) for name in _ADDED}
    largest = {name: max(getattr(one, name) for one in reports) for name in _LARGEST}
    return structs.replace(reports[-1], **added, **largest, **others)


_ADVISED = ": "  # What stands between a disturbance and the advice against it; no disturbance has it inside


class Noise(Struct, frozen=True):
    """What disturbed the machine while a test was measured."""

    what: str  # the disturbance
    advice: str = ""  # what to do about it; empty if there is none

    def __str__(self) -> str:
        return f"{self.what}{_ADVISED}{self.advice}" if self.advice else self.what

    @classmethod
    def read(cls, text: str) -> Noise:
        """The disturbance that a file holds."""
        what, _, advice = text.partition(_ADVISED)
        return cls(what, advice)


class Launch(Struct, frozen=True):
    """Everything that was recorded of one launch, in and around its window.

    ``rate_rps`` is the rate of an open loop whose rate does not change; None for any other load. ``first_failure`` is
    the first failed input of the window and its error; None if no request failed. ``silence`` says why the service is
    taken for dead at the end of the load; empty if it still answered. ``track`` is what the deployment held over the
    requests that it had answered; None if its processes are not known. ``facts`` is the environment of the service;
    only the first launch of a run may have it. ``sorting_ns`` are the CPU times of a fixed work around start and
    load, or their mean before all blocks (:mod:`pytest_mlpatterns.system.machine`); empty if it was not done.
    ``answer_form`` is what its first answer looked like, in words; empty if it was a stream, or is not known.
    ``given_window_ns`` is the length that the window was to have, if a request was longer and so the window was; None
    otherwise. ``requests`` are those that the user gave its window, which then lasts from the first one to the last
    answer; 0 for a window by time. ``steps`` come from the function that ran beside the load; empty without one.
    """

    samples: Samples
    window: Window
    usage: Usage | None
    stats: PatternStats | None
    warmup: Warmup
    generator: GeneratorReport
    cold_start_ns: int | None
    request_bytes: NDArray[np.int64]
    open_loop: bool
    rate_rps: float | None = None
    first_failure: FirstFailure | None = None
    silence: str = ""
    track: ResourceTrack | None = None
    facts: EnvironmentFacts = {}
    sorting_ns: tuple[float, ...] = ()
    answer_form: str = ""
    given_window_ns: int | None = None
    steps: tuple[DuringStep, ...] = ()
    requests: int = 0

    @property
    def sending(self) -> Window:
        """The part of the window in which requests were due."""
        return self.samples.span_of(self.window, answered=False) if self.requests else self.window

    @property
    def longest_answer_ns(self) -> int:
        """Longest time of a request that succeeded, in the warm-up or after it; 0 if none did."""
        latency_ns = self.samples.latency_ns[self.samples.succeeded]
        return int(latency_ns.max()) if latency_ns.size else 0


class Taken(Struct, frozen=True):
    """What a deployment could not have of the machine while it was measured, on average."""

    others_cores: Amount = 0.0  # cores that processes other than the deployment, the load generator and pytest used
    steal_ratio: Share = 0.0  # share of the machine's time that its host gave to other machines
    throttled_ratio: Share = 0.0  # share of the window in which a limit of the control group stopped a process


class Busy(Taken, frozen=True):
    """What took enough of the machine from a test to change its times, on average; 0 is too little for that."""

    cores: Count = 0  # of the machine

    def __str__(self) -> str:
        if self.others_cores:
            return f"other processes used {self.others_cores:.1f} of the {self.cores} cores"
        if self.steal_ratio:
            return f"the host gave {format_percent(self.steal_ratio)} of this machine's time to other machines"
        return f"a CPU limit of the container stopped it for {format_percent(self.throttled_ratio)} of the time"


class LaunchValue(Struct, frozen=True):
    """One metric over one launch: its value and its relative standard error from resampling the launch's blocks."""

    value: float
    relative_error: float


class Step(Struct, frozen=True):
    """One concurrency of a capacity search: throughput in several short windows, latency, errors, and resources.

    ``asl_ratio`` is the share of its cores that the deployment used, ``peak_rss_bytes`` its highest resident memory;
    None if its processes are not known.
    """

    concurrency: Count
    rates_rps: tuple[float, ...]
    median_ns: float | None
    error_ratio: float
    limited: str | None
    asl_ratio: float | None = None
    peak_rss_bytes: Count | None = None

    @property
    def rate_rps(self) -> float:
        """Median over the windows."""
        return median(self.rates_rps) if self.rates_rps else 0.0


class SearchEnd(StrEnum):
    """What ended a capacity search; the value is the text in files."""

    FOUND = "found"  # What was searched for
    DECIDED = "decided"  # The caller's question was decided
    GENERATOR = "generator"  # The load generator was the limit, or it sent too late: nothing is known of the service
    TIME = "time"  # The time was up
    TOP = "top"  # The ladder has no higher concurrency


class Pauses(Struct, frozen=True):
    """The pauses of a service during a search under an objective: it stopped for longer than the objective allows."""

    windows: Count  # with a pause
    of: Count  # windows of the search in all
    longest_ns: Count  # length of the longest pause
    least: LaunchValue  # the rate that keeps the objective if the service usually makes more pauses
    most: LaunchValue  # the rate that keeps the objective if the service usually makes fewer pauses
    without: LaunchValue  # the rate that keeps the objective if the service makes no pause


class Capacity(Struct, frozen=True):
    """The outcome of a capacity search."""

    nmrt: LaunchValue  # most requests per second that the deployment sustains
    concurrency: Count  # smallest number of requests in flight that reaches it
    ladder: tuple[Step, ...]  # the steps of the search
    stopped: str  # why the search ended, in words
    at_least: bool  # whether the deployment had not degraded when the search ended, so that ``nmrt`` is a lower bound
    objective: Objective | None = None  # the latency objective of the search; None for throughput alone
    asl: LaunchValue | None = None  # average system load at ``concurrency``, over its steps; None if it is not known
    peak_rss_bytes: Count | None = None  # highest resident memory in these steps; None if it is not known
    # number of cores that the deployment may use, to which ``asl`` relates; None if it is not known
    cores: float | None = None
    limited: bool = False  # whether it was given these cores (``cpus=``), and not all that there are
    end: SearchEnd = SearchEnd.FOUND  # what ended the search
    # pauses of the service under the objective, which ``nmrt`` counts; None if it made none, and without an objective
    pauses: Pauses | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % confidence interval, in the unit that the attribute's name carries."""

    value: float
    low: float
    high: float

    def _refuse(self, other: object) -> NoReturn:
        __tracebackhide__ = True
        raise TypeError(
            f"an Estimate is an interval and cannot be compared with {other!r}; compare its .value or .high, or let "
            'the test judge it: perf.assert_rtm_below("20ms")'
        )

    def __lt__(self, other: object) -> NoReturn:
        """In place of a comparison by order, of which an interval has none."""
        __tracebackhide__ = True
        self._refuse(other)

    def __le__(self, other: object) -> NoReturn:
        __tracebackhide__ = True
        self._refuse(other)

    def __gt__(self, other: object) -> NoReturn:
        __tracebackhide__ = True
        self._refuse(other)

    def __ge__(self, other: object) -> NoReturn:
        __tracebackhide__ = True
        self._refuse(other)


class NodeFigures(Struct, frozen=True):
    """One node of a cluster over the measured windows."""

    node: str  # name of the node, its address
    cores: float  # number of cores that its processes may use
    replicas: Count  # number of replicas on it in the last launch
    cpu_share: float  # share of its cores that the replicas used
    peak_rss_bytes: Count  # highest resident memory of the replicas
    serve_cpu_share: float  # share of its cores that the cluster's own processes used: proxies, schedulers, agents
