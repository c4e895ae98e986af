"""The result of one perf test, as reports and the baseline see it: plain values that travel as JSON.

:mod:`pytest_mlpatterns.judging.result_builder` makes it from a measurement; this module measures and judges nothing.

Reading is written by hand. A trial of msgspec saved about 60 of 100 lines, but it accepts unknown members of
dataclasses, writes set-ups and objectives as objects instead of text, and adds 25 ms to an import. Its schema has 852
lines (ours: 358), allows unknown members and describes classes only; so a test compares the types with our schema.

A test that fails before anything is measured has no result; this stands for it in the reports.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from pytest_mlpatterns.records.baseline_entry import commit_in
from pytest_mlpatterns.records.latency import (
    Latency,
    LatencySplit,
    LatencySplits,
    Percentiles,
    RequestCounts,
    SplitMetric,
    read_percentiles,
)
from pytest_mlpatterns.records.launch import (
    Capacity,
    GeneratorPart,
    LaunchValue,
    NodeFigures,
    Noise,
    SearchEnd,
    Step,
    Taken,
    Warmup,
)
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.outcomes import FirstFailure
from pytest_mlpatterns.records.overload import Overload
from pytest_mlpatterns.records.price import Price, parse_price
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.resource_track import GrowthRecord, HeldRecord
from pytest_mlpatterns.records.scaling import ScalingRecord
from pytest_mlpatterns.records.setup import EnvironmentFacts, FactChange, Setup
from pytest_mlpatterns.records.stream_record import StreamRecord
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.records.verdict import ERRORS, Gate, Kind, LeftOut, Outcome, Unjudged, Verdict, judged_kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BaselineGap", "FailedTest", "Location", "Reference", "State", "TestResult", "group_of"]


class State(StrEnum):
    """State of a perf test at its end."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    INTERRUPTED = "interrupted"


class BaselineGap(StrEnum):
    """Why a test was not compared with the baseline; the value is the text in reports and files."""

    ABSENT = "no baseline"
    NOT_COMPARABLE = "baseline not comparable"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a test is compared with: a baseline entry, or the same test at another git revision.

    Attributes:
        kind: baseline entry or revision.
        name: as reports show it, such as ``main (05428cb)``.
        metrics: ``(value, low, high)`` by the metric's name.
        latency_percentiles: latency distribution of the reference; empty if unknown.
        present_metrics: the same as ``metrics`` for the present, measured interleaved with the revision; empty for a
            baseline, which the result's own metrics are compared with.
        present_latency_percentiles: latency distribution of the present in the interleaved run; empty for a baseline.
        log_ratios: ``(log(present/reference), standard error)`` of each paired launch, by the metric's name.
        launches: launches that a baseline entry was recorded from; 0 if unknown, or for a revision.
        stream_percentiles: distributions of ``ttft``, ``itl`` and ``tpot`` of the reference; empty if unknown.
        present_stream_percentiles: the same of the present in the interleaved run; empty for a baseline.
        split: where the time of the reference's requests went; empty if unknown.
        present_split: the same of the present in the interleaved run; empty for a baseline.
        entry: name of the baseline entry whose recorded code the revision is; empty for other references.
        recorded_commit: commit whose files gave the baseline entry; empty if they were changed, or for a revision.
    """

    kind: Literal["baseline", "revision"]
    name: str
    metrics: Mapping[str, tuple[float, float, float]]
    latency_percentiles: Percentiles = ()
    present_metrics: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    present_latency_percentiles: Percentiles = ()
    log_ratios: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    launches: int = 0
    stream_percentiles: Mapping[str, Percentiles] = field(default_factory=dict)
    present_stream_percentiles: Mapping[str, Percentiles] = field(default_factory=dict)
    split: LatencySplits = field(default_factory=dict)
    present_split: LatencySplits = field(default_factory=dict)
    entry: str = ""
    recorded_commit: str = ""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a test is defined: the file relative to pytest's root directory, with slashes, and its line from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class TestResult:
    """One perf test as reports and the baseline see it: plain values only, so that it travels as JSON.

    Attributes:
        passed: whether it passed; a test that ``--perf-gate warn`` lets pass did not.
        metrics: ``(value, low, high)`` by the metric's name.
        launches: one ``(value, relative_error)`` per launch, by the metric's name.
        failed_requests: number of requests by outcome code, of those without a 2xx response.
        baseline_note: what a reader of the comparison has to know; empty if there is nothing.
        baseline_gap: why there was no baseline to compare with; None if there was one, or if none was requested.
        load_over_time: ``(seconds, deployment's share, machine's share)`` of the last launch's window.
        memory_over_time: ``(seconds, bytes)`` of the last launch's window.
        layers: counts of the pattern's layers in the last launch's window.
        tolerance: largest worsening against the baseline that the test accepts.
        warmups: one per launch.
        noise: what disturbed the machine in the windows.
        replica_share: for each of several replicas the share of the requests that it answered: mean over the launches,
            smallest and largest.
        group: the test's id without its pattern, which the patterns of one test share.
        command: command line that runs the test alone.
        unsteady: those of the notes that say that the load was not steady.
        first_failure: the first input whose request failed, and its error; None if none failed.
        counts: requests, failures and latencies of each launch.
        not_compared: why a metric was not compared with the reference, by its label: ``is not recorded yet``.
            Percentiles that need more requests share a sentence, ``at 4.0 answers a second p99 latency needs 115 s``.
        overloads: goodput beyond the NMRT, one for each measurement of it.
        scaling: NMRT at several numbers of replicas; None if the test did not measure it.
        missing_indices: why an index of scalability is not known although the test measured how its pattern scales, by
            the name of the metric.
        stream: what came in pieces; None if the answers did not stream.
        cancelled_requests: number of requests that the generator cancelled on purpose; ``requests`` has them not.
        cluster: node types and counts of the cluster that took part; empty without one.
        nodes: what the deployment used of each node of it; empty without one.
        generator_parts: load generators on the nodes of a cluster, in the last launch; empty if they ran here.
        growth: memory over the long load of a test for leaks; None without one.
        facts: the environment of the service; empty if it is not known.
        facts_changed: what of it differs from the environment of the reference, or of an entry that was not comparable;
            None if one of them is not known.
        profile: where the time went by function, or why that is not known; None if nothing asked for it.
        held: which lines hold more memory, or why that is not known; None if nothing asked for it.
        split: where the time of the requests went, over all launches.
        taken: what of the machine the deployment could not have.
        accepted: for each worsening that is accepted for the test, why that no longer holds; empty while it does.
        sorting_ns: CPU time of a fixed work at the end of each launch; empty if it is not known.
        unjudged: the kind of a test that its verdicts do not show, and the reason; None if they do.
        gate: whether a failing verdict fails the test.
    """

    __test__ = False

    test: str
    passed: bool
    setup: Setup
    metrics: Mapping[str, tuple[float, float, float]]
    launches: Mapping[str, tuple[tuple[float, float], ...]]
    verdicts: tuple[Verdict, ...]
    requests: int
    failed_requests: Mapping[str, int]
    blocks: int
    launch_count: int
    seconds_spent: float
    baseline_note: str
    notes: tuple[str, ...]
    load_over_time: tuple[tuple[float, float, float], ...]
    capacities: tuple[Capacity, ...]
    layers: tuple[LayerStats, ...]
    generator: Mapping[str, float | bool | None]
    interrupted: bool = False
    tolerance: float = 0.10
    latency: Latency | None = None
    reference: Reference | None = None
    memory_over_time: tuple[tuple[float, float], ...] = ()
    warmups: tuple[Warmup, ...] = ()
    noise: tuple[Noise, ...] = ()
    replica_share: tuple[tuple[float, float, float], ...] = ()
    group: str = ""
    location: Location | None = None
    command: str = ""
    baseline_gap: BaselineGap | None = None
    unsteady: tuple[str, ...] = ()
    counts: tuple[RequestCounts, ...] = ()
    not_compared: Mapping[str, LeftOut] = field(default_factory=dict)
    first_failure: FirstFailure | None = None
    overloads: tuple[Overload, ...] = ()
    price: Price | None = None
    scaling: ScalingRecord | None = None
    missing_indices: Mapping[str, str] = field(default_factory=dict)
    stream: StreamRecord | None = None
    cancelled_requests: int = 0
    cluster: str = ""
    nodes: tuple[NodeFigures, ...] = ()
    generator_parts: tuple[GeneratorPart, ...] = ()
    growth: GrowthRecord | None = None
    facts: EnvironmentFacts = field(default_factory=dict)
    facts_changed: tuple[FactChange, ...] | None = None
    profile: ProfileRecord | None = None
    held: HeldRecord | None = None
    split: LatencySplits = field(default_factory=dict)
    taken: Taken = field(default_factory=Taken)
    accepted: Mapping[str, str] = field(default_factory=dict)
    sorting_ns: tuple[float, ...] = ()
    unjudged: Unjudged | None = None
    gate: Gate = Gate.FAIL

    @property
    def kind(self) -> Kind:
        """What came of the test, as reports and exit codes show it."""
        if self.unjudged is not None:
            return self.unjudged.kind
        return judged_kind(self.verdicts, passed=self.passed, interrupted=self.interrupted)

    @property
    def advisory(self) -> bool:
        """Whether the test did not pass and its gate lets that pass: by a verdict, not by an error."""
        return not self.passed and self.gate is Gate.WARN and self.kind not in ERRORS

    @property
    def outcome(self) -> State:
        """State of the test; an undecided verdict makes a passed test undecided."""
        if self.interrupted:
            return State.INTERRUPTED
        if not self.passed:
            return State.FAILED
        is_open = any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in self.verdicts)
        return State.UNDECIDED if is_open else State.PASSED

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries, lists, text and numbers, together with :attr:`outcome` and :attr:`kind`."""
        plain = {**asdict(self), "setup": self.setup.to_json(), "outcome": self.outcome.value, "kind": self.kind.value}
        plain["gate"] = self.gate.value  # a plain str: execnet accepts no subclass
        if self.unjudged is not None:
            plain["unjudged"]["kind"] = self.unjudged.kind.value
        plain["verdicts"] = [verdict.to_json() for verdict in self.verdicts]
        for overload in plain["overloads"]:
            overload["behaviour"] = str(overload["behaviour"])
        plain["price"] = None if self.price is None else str(self.price)
        plain["profile"] = None if self.profile is None else self.profile.to_json()
        plain["noise"] = list(map(str, self.noise))
        plain["first_failure"] = str(self.first_failure or "")
        plain["not_compared"] = {label: str(why) for label, why in self.not_compared.items()}
        if self.baseline_gap is not None:
            plain["baseline_gap"] = self.baseline_gap.value
        for search, capacity in zip(plain["capacities"], self.capacities, strict=True):
            search["objective"] = None if capacity.objective is None else str(capacity.objective)
            search["end"] = capacity.end.value
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TestResult:
        """The inverse of :meth:`to_json`, also after a trip through JSON or between processes."""
        fields = {name: value for name, value in data.items() if name not in ("outcome", "kind")}
        return cls(
            **{
                **fields,
                "setup": Setup.from_json(data["setup"]),
                "metrics": _estimates(data["metrics"]),
                "launches": {name: _pairs(values) for name, values in data["launches"].items()},
                "verdicts": tuple(map(Verdict.from_json, data["verdicts"])),
                "notes": tuple(data["notes"]),
                "capacities": tuple(_capacity(item) for item in data["capacities"]),
                "layers": tuple(LayerStats.from_json(item) for item in data["layers"]),
                "load_over_time": tuple(tuple(moment) for moment in data["load_over_time"]),
                "latency": None if data["latency"] is None else Latency.from_json(data["latency"]),
                "reference": None if data["reference"] is None else _reference(data["reference"]),
                "memory_over_time": _pairs(data["memory_over_time"]),
                "warmups": tuple(Warmup(**item) for item in data["warmups"]),
                "noise": tuple(map(Noise.read, data["noise"])),
                "first_failure": FirstFailure.read(data["first_failure"]),
                "unsteady": tuple(data.get("unsteady", ())),
                "counts": tuple(map(_counts, data.get("counts", ()))),
                "not_compared": {label: LeftOut.read(label, why) for label, why in data["not_compared"].items()},
                "overloads": tuple(map(Overload.from_json, data.get("overloads", ()))),
                "replica_share": tuple((mean, least, most) for mean, least, most in data["replica_share"]),
                "location": None if data["location"] is None else Location(**data["location"]),
                "price": parse_price(data["price"]) if data.get("price") else None,
                "baseline_gap": BaselineGap(data["baseline_gap"]) if data.get("baseline_gap") else None,
                "scaling": ScalingRecord.from_json(data["scaling"]) if data.get("scaling") else None,
                "nodes": tuple(map(NodeFigures.from_json, data.get("nodes", ()))),
                "generator_parts": tuple(GeneratorPart(**item) for item in data.get("generator_parts", ())),
                "growth": GrowthRecord.from_json(data["growth"]) if data.get("growth") else None,
                "stream": StreamRecord.from_json(data["stream"]) if data.get("stream") else None,
                "facts_changed": _changes(data.get("facts_changed")),
                "held": HeldRecord.from_json(data["held"]) if data.get("held") else None,
                "profile": ProfileRecord.from_json(data["profile"]) if data.get("profile") else None,
                "split": _splits(data.get("split", {})),
                "taken": Taken(**data.get("taken", {})),
                "accepted": dict(data.get("accepted", {})),
                "sorting_ns": tuple(data.get("sorting_ns", ())),
                "unjudged": Unjudged.from_json(data["unjudged"]) if data.get("unjudged") else None,
                "gate": Gate(data.get("gate", Gate.FAIL)),
            }
        )


def group_of(test: str, parts: Sequence[str]) -> str:
    """A test's id without some of the parts that dashes separate in its brackets.

    Given ``cached``, ``test_perf.py::test_digits[small-cached]`` gives ``test_perf.py::test_digits[small]``.
    """
    name, bracket, inside = test.partition("[")
    inside = inside.removesuffix("]")
    for part in parts:
        padded = f"-{inside}-".replace(f"-{part}-", "-", 1)
        inside = padded[1:-1]
    return f"{name}{bracket}{inside}]" if inside else name


def _pairs(data: Any) -> tuple[tuple[float, float], ...]:
    return tuple((first, second) for first, second in data)


def _estimates(data: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    return {name: (value, low, high) for name, (value, low, high) in data.items()}


def _changes(data: Sequence[Mapping[str, Any]] | None) -> tuple[FactChange, ...] | None:
    return None if data is None else tuple(map(FactChange.from_json, data))


def _capacity(data: Mapping[str, Any]) -> Capacity:
    ladder = tuple(Step(**{**step, "rates_rps": tuple(step["rates_rps"])}) for step in data["ladder"])
    objective = None if data["objective"] is None else parse_objective(data["objective"])
    asl = LaunchValue(**data["asl"]) if data.get("asl") else None
    read = {"nmrt": LaunchValue(**data["nmrt"]), "ladder": ladder, "objective": objective, "asl": asl}
    return Capacity(**{**data, **read, "end": SearchEnd(data.get("end", SearchEnd.FOUND))})


def _counts(data: Mapping[str, Any]) -> RequestCounts:
    return RequestCounts(**{**data, "latencies": {int(ns): count for ns, count in data["latencies"].items()}})


def _reference(data: Mapping[str, Any]) -> Reference:
    return Reference(
        data["kind"],
        data["name"],
        _estimates(data["metrics"]),
        read_percentiles(data["latency_percentiles"]),
        _estimates(data["present_metrics"]),
        read_percentiles(data["present_latency_percentiles"]),
        {name: _pairs(values) for name, values in data.get("log_ratios", {}).items()},
        data.get("launches", 0),
        _distributions(data.get("stream_percentiles", {})),
        _distributions(data.get("present_stream_percentiles", {})),
        _splits(data.get("split", {})),
        _splits(data.get("present_split", {})),
        data.get("entry", ""),
        data.get("recorded_commit", commit_in(data["name"]) if data["kind"] == "baseline" else ""),
    )


def _splits(data: Mapping[SplitMetric, Any]) -> LatencySplits:
    return {metric: LatencySplit.from_json(split) for metric, split in data.items()}


def _distributions(data: Mapping[str, Any]) -> dict[str, Percentiles]:
    return {name: read_percentiles(percentiles) for name, percentiles in data.items()}


@dataclass(frozen=True, slots=True)
class FailedTest:
    """A perf test that failed, or would have without ``--perf-gate warn``, with or without a measurement.

    Attributes:
        test: its id.
        reason: why, in a few lines.
        location: where it is defined.
        kind: of the failure.
        gate: ``warn`` if the test passed although its verdict failed.
        group: its id without its pattern.
        pattern: under which it ran, as text.
        text: the whole message of a verdict that did not fail the test, which pytest does not show then.
    """

    test: str
    reason: str
    location: Location | None
    kind: Kind = Kind.TEST_ERROR
    gate: Gate = Gate.FAIL
    group: str = ""
    pattern: str = ""
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries and plain text; execnet accepts no subclass of it."""
        return {**asdict(self), "kind": self.kind.value, "gate": self.gate.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FailedTest:
        """The inverse of :meth:`to_json`."""
        location = None if data["location"] is None else Location(**data["location"])
        return cls(**{**data, "location": location, "kind": Kind(data["kind"]), "gate": Gate(data["gate"])})
