"""The parts of a result, one for each capability: what a test asks for, what was measured, judged, found and explained.

Each part reads and writes its own members of the JSON of a result, which has them all side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import Struct

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
from pytest_mlpatterns.records.setup import EnvironmentFacts, FactChange
from pytest_mlpatterns.records.step_impact import LatencyMoment, StepImpact
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.records.verdict import Gate, LeftOut, Unjudged

__all__ = [
    "BaselineGap",
    "Beside",
    "CauseRecord",
    "Conditions",
    "Definition",
    "Judged",
    "Limits",
    "Location",
    "Measured",
    "Reference",
    "Terms",
    "read_estimates",
]


class BaselineGap(StrEnum):
    """Why a test was not compared with the baseline; the value is the text in reports and files."""

    ABSENT = "no baseline"
    NOT_COMPARABLE = "baseline not comparable"


class Beside(Struct, frozen=True):
    """The present as it was measured interleaved with a revision.

    Attributes:
        metrics: ``(value, low, high)`` by the metric's name.
        latency_percentiles: latency distribution; empty if unknown.
        stream_percentiles: distributions of ``ttft``, ``itl`` and ``tpot``; empty if unknown.
        split: where the time of the requests went; empty if unknown.
    """

    metrics: Mapping[str, tuple[float, float, float]] = {}
    latency_percentiles: Percentiles = ()
    stream_percentiles: Mapping[str, Percentiles] = {}
    split: LatencySplits = {}


_ORDER = (
    *("kind", "name", "metrics", "latency_percentiles", "present_metrics", "present_latency_percentiles", "log_ratios"),
    *("launches", "stream_percentiles", "present_stream_percentiles", "split", "present_split", "entry"),
    *("recorded_commit", "revision_commit"),
)
"""The members of a reference in JSON, in the order in which they have always been written."""


class Reference(Struct, frozen=True):
    """What a test is compared with: a baseline entry, or the same test at another git revision.

    Attributes:
        kind: baseline entry or revision.
        name: as reports show it, such as ``main (05428cb)``.
        metrics: ``(value, low, high)`` by the metric's name.
        latency_percentiles: latency distribution of the reference; empty if unknown.
        present: the present in the interleaved run; empty for a baseline, with which the result's own figures are
            compared.
        log_ratios: ``(log(present/reference), standard error)`` of each paired launch, by the metric's name.
        launches: launches that a baseline entry was recorded from; 0 if unknown, or for a revision.
        stream_percentiles: distributions of ``ttft``, ``itl`` and ``tpot`` of the reference; empty if unknown.
        split: where the time of the reference's requests went; empty if unknown.
        entry: name of the baseline entry whose recorded code the revision is; empty for other references.
        recorded_commit: commit whose files gave the baseline entry; empty if they were changed, or for a revision.
        revision_commit: full hash of the commit that was measured interleaved; empty for a baseline, or if unknown.
    """

    kind: Literal["baseline", "revision"]
    name: str
    metrics: Mapping[str, tuple[float, float, float]]
    latency_percentiles: Percentiles = ()
    present: Beside = Beside()
    log_ratios: Mapping[str, tuple[tuple[float, float], ...]] = {}
    launches: int = 0
    stream_percentiles: Mapping[str, Percentiles] = {}
    split: LatencySplits = {}
    entry: str = ""
    recorded_commit: str = ""
    revision_commit: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries, lists, text and numbers; the names of the present begin with ``present_``."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        present = {f"present_{name}": value for name, value in plain.pop("present").items()}
        return {name: (plain | present)[name] for name in _ORDER}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reference:
        """The inverse of :meth:`to_json`, also after a trip through JSON."""
        recorded = commit_in(data["name"]) if data["kind"] == "baseline" else ""
        return cls(
            data["kind"],
            data["name"],
            read_estimates(data["metrics"]),
            read_percentiles(data["latency_percentiles"]),
            Beside(
                read_estimates(data["present_metrics"]),
                read_percentiles(data["present_latency_percentiles"]),
                _distributions(data.get("present_stream_percentiles", {})),
                _splits(data.get("present_split", {})),
            ),
            {name: _pairs(values) for name, values in data.get("log_ratios", {}).items()},
            data.get("launches", 0),
            _distributions(data.get("stream_percentiles", {})),
            _splits(data.get("split", {})),
            data.get("entry", ""),
            data.get("recorded_commit", recorded),
            data.get("revision_commit", ""),
        )


class Location(Struct, frozen=True):
    """Where a test is defined: the file relative to pytest's root directory, with slashes, and its line from 1."""

    file: str
    line: int


class Terms(Struct, frozen=True):
    """What a comparison of the test may take, and how much worse each metric may be.

    Attributes:
        budget_ns: time that it may measure.
        launches: most launches beside a stored baseline.
        tolerances: largest acceptable worsening by the name of each metric that a comparison judges; of an error rate
            the difference.
        budget_in_marker: whether the test's marker sets the budget, so that no option changes it.
    """

    budget_ns: int
    launches: int
    tolerances: Mapping[str, float]
    budget_in_marker: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Terms:
        """The inverse of ``dataclasses.asdict``."""
        tolerances = {str(name): float(share) for name, share in data["tolerances"].items()}
        in_marker = bool(data.get("budget_in_marker", False))
        return cls(int(data["budget_ns"]), int(data["launches"]), tolerances, in_marker)


class Definition(Struct, frozen=True):
    """Where a test is defined, and what it asks for.

    Attributes:
        group: the test's id without its pattern, which the patterns of one test share.
        location: where it is defined.
        command: command line that runs the test alone.
        tolerance: largest worsening against the baseline that the test accepts.
        gate: whether a failing verdict fails the test.
        overload: whether the load is meant to exceed the capacity, so that refused requests are no failures.
        price: of cores and memory; None without one.
        terms: of a comparison; None in files of older versions.
    """

    group: str = ""
    location: Location | None = None
    command: str = ""
    tolerance: float = 0.10
    gate: Gate = Gate.FAIL
    overload: bool = False
    price: Price | None = None
    terms: Terms | None = None

    def to_json(self) -> dict[str, Any]:
        """The members of a result that this part gives."""
        price = None if self.price is None else str(self.price)
        return {
            **msgspec.to_builtins(self),
            "gate": self.gate.value,
            "price": price,
        }  # a plain str: execnet accepts no subclass

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Definition:
        """The part of a result that :meth:`to_json` gave."""
        read = {
            "location": None if data["location"] is None else Location(**data["location"]),
            "gate": Gate(data.get("gate", Gate.FAIL)),
            "price": parse_price(data["price"]) if data.get("price") else None,
            "terms": Terms.from_json(data["terms"]) if data.get("terms") else None,
        }
        return cls(**{**_given(cls, data), **read})


class Judged(Struct, frozen=True):
    """What came of a test beside its verdicts.

    Attributes:
        passed: whether it passed; a test that ``--perf-gate warn`` lets pass did not.
        interrupted: whether it was ended early.
        unjudged: the kind of a test that its verdicts do not show, and the reason; None if they do.
        accepted: for each worsening that is accepted for the test, why that no longer holds; empty while it does.
        notes: what a reader has to know of the measurement, a sentence each.
        baseline_note: what a reader of the comparison has to know; empty if there is nothing.
        baseline_gap: why there was no baseline to compare with; None if there was one, or if none was requested.
        not_compared: why a metric was not compared with the reference, by its label: ``is not recorded yet``.
            Percentiles that need more requests share a sentence, ``at 4.0 answers a second p99 latency needs 115 s``.
        facts_changed: what of the environment differs from that of the reference, or of an entry that was not
            comparable; None if one of them is not known.
    """

    passed: bool
    interrupted: bool = False
    unjudged: Unjudged | None = None
    accepted: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
    baseline_note: str = ""
    baseline_gap: BaselineGap | None = None
    not_compared: Mapping[str, LeftOut] = {}
    facts_changed: tuple[FactChange, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The members of a result that this part gives."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        if self.unjudged is not None:
            plain["unjudged"]["kind"] = self.unjudged.kind.value
        if self.baseline_gap is not None:
            plain["baseline_gap"] = self.baseline_gap.value
        plain["not_compared"] = {label: str(why) for label, why in self.not_compared.items()}
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Judged:
        """The part of a result that :meth:`to_json` gave."""
        changed = data.get("facts_changed")
        read = {
            "unjudged": Unjudged.from_json(data["unjudged"]) if data.get("unjudged") else None,
            "accepted": dict(data.get("accepted", {})),
            "notes": tuple(data["notes"]),
            "baseline_gap": BaselineGap(data["baseline_gap"]) if data.get("baseline_gap") else None,
            "not_compared": {label: LeftOut.read(label, why) for label, why in data["not_compared"].items()},
            "facts_changed": None if changed is None else tuple(map(FactChange.from_json, changed)),
        }
        return cls(**{**_given(cls, data), **read})


class Measured(Struct, frozen=True):
    """The launches of a test, and their requests.

    Attributes:
        launches: one ``(value, relative_error)`` per launch, by the metric's name.
        launch_count: number of launches.
        blocks: number of blocks in them.
        seconds_spent: time that the measurement took.
        requests: number of requests.
        failed_requests: number of requests by outcome code, of those without a 2xx response.
        first_failure: the first input whose request failed, and its error; None if none failed.
        counts: requests, failures and latencies of each launch.
        replica_share: for each of several replicas the share of the requests that it answered: mean over the launches,
            smallest and largest.
        latency: distribution of all latencies; None if no request has one.
        layers: counts of the pattern's layers in the last launch's window.
    """

    launches: Mapping[str, tuple[tuple[float, float], ...]]
    launch_count: int
    blocks: int
    seconds_spent: float
    requests: int
    failed_requests: Mapping[str, int]
    first_failure: FirstFailure | None = None
    counts: tuple[RequestCounts, ...] = ()
    replica_share: tuple[tuple[float, float, float], ...] = ()
    latency: Latency | None = None
    layers: tuple[LayerStats, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The members of a result that this part gives."""
        return {**msgspec.to_builtins(self), "first_failure": str(self.first_failure or "")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
        """The part of a result that :meth:`to_json` gave."""
        read = {
            "launches": {name: _pairs(values) for name, values in data["launches"].items()},
            "first_failure": FirstFailure.read(data["first_failure"]),
            "counts": tuple(map(_read_counts, data.get("counts", ()))),
            "replica_share": tuple((mean, least, most) for mean, least, most in data["replica_share"]),
            "latency": None if data["latency"] is None else Latency.from_json(data["latency"]),
            "layers": tuple(LayerStats.from_json(item) for item in data["layers"]),
        }
        return cls(**{**_given(cls, data), **read})


class Conditions(Struct, frozen=True):
    """The machines, the load generator and the environment of the service while a test was measured.

    Attributes:
        load_over_time: ``(seconds, deployment's share, machine's share)`` of the last launch's window.
        memory_over_time: ``(seconds, bytes)`` of the last launch's window.
        warmups: one per launch.
        noise: what disturbed the machine in the windows.
        unsteady: those of the notes that say that the load was not steady.
        taken: what of the machine the deployment could not have.
        sorting_ns: CPU times of a fixed work in the launches; empty if it is not known.
        generator: figures of the load generator, by name.
        facts: the environment of the service; empty if it is not known.
        cluster: node types and counts of the cluster that took part; empty without one.
        nodes: what the deployment used of each node of it; empty without one.
        generator_parts: load generators on the nodes of a cluster, in the last launch; empty if they ran here.
    """

    load_over_time: tuple[tuple[float, float, float], ...] = ()
    memory_over_time: tuple[tuple[float, float], ...] = ()
    warmups: tuple[Warmup, ...] = ()
    noise: tuple[Noise, ...] = ()
    unsteady: tuple[str, ...] = ()
    taken: Taken = Taken()
    sorting_ns: tuple[float, ...] = ()
    generator: Mapping[str, float | bool | None] = {}
    facts: EnvironmentFacts = {}
    cluster: str = ""
    nodes: tuple[NodeFigures, ...] = ()
    generator_parts: tuple[GeneratorPart, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The members of a result that this part gives."""
        return {**msgspec.to_builtins(self), "noise": list(map(str, self.noise))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conditions:
        """The part of a result that :meth:`to_json` gave."""
        read = {
            "load_over_time": tuple(tuple(moment) for moment in data["load_over_time"]),
            "memory_over_time": _pairs(data["memory_over_time"]),
            "warmups": tuple(Warmup(**item) for item in data["warmups"]),
            "noise": tuple(map(Noise.read, data["noise"])),
            "unsteady": tuple(data.get("unsteady", ())),
            "taken": Taken(**data.get("taken", {})),
            "sorting_ns": tuple(data.get("sorting_ns", ())),
            "nodes": tuple(map(NodeFigures.from_json, data.get("nodes", ()))),
            "generator_parts": tuple(GeneratorPart(**item) for item in data.get("generator_parts", ())),
        }
        return cls(**{**_given(cls, data), **read})


class Limits(Struct, frozen=True):
    """How much load a deployment sustains.

    Attributes:
        capacities: one for each search.
        overloads: goodput beyond the NMRT, one for each measurement of it.
        scaling: NMRT at several numbers of replicas; None if the test did not measure it.
        missing_indices: why an index of scalability is not known although the test measured how its pattern scales, by
            the name of the metric.
    """

    capacities: tuple[Capacity, ...] = ()
    overloads: tuple[Overload, ...] = ()
    scaling: ScalingRecord | None = None
    missing_indices: Mapping[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """The members of a result that this part gives."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for overload in plain["overloads"]:
            overload["behaviour"] = str(overload["behaviour"])
        for search, capacity in zip(plain["capacities"], self.capacities, strict=True):
            search["objective"] = None if capacity.objective is None else str(capacity.objective)
            search["end"] = capacity.end.value
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Limits:
        """The part of a result that :meth:`to_json` gave."""
        read = {
            "capacities": tuple(_capacity(item) for item in data["capacities"]),
            "overloads": tuple(map(Overload.from_json, data.get("overloads", ()))),
            "scaling": ScalingRecord.from_json(data["scaling"]) if data.get("scaling") else None,
        }
        return cls(**{**_given(cls, data), **read})


class CauseRecord(Struct, frozen=True):
    """What explains the figures of a test.

    Attributes:
        split: where the time of the requests went, over all launches.
        profile: where the time went by function, or why that is not known; None if nothing asked for it.
        held: which lines hold more memory, or why that is not known; None if nothing asked for it.
        growth: memory over the long load of a test for leaks; None without one.
        steps: what the steps of the function beside the load did, launch by launch; empty without one.
        latency_over_time: the latency through the window of the last launch, if it had steps.
    """

    split: LatencySplits = {}
    profile: ProfileRecord | None = None
    held: HeldRecord | None = None
    growth: GrowthRecord | None = None
    steps: tuple[StepImpact, ...] = ()
    latency_over_time: tuple[LatencyMoment, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The members of a result that this part gives."""
        return {**msgspec.to_builtins(self), "profile": None if self.profile is None else self.profile.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CauseRecord:
        """The part of a result that :meth:`to_json` gave."""
        return cls(
            _splits(data.get("split", {})),
            ProfileRecord.from_json(data["profile"]) if data.get("profile") else None,
            HeldRecord.from_json(data["held"]) if data.get("held") else None,
            GrowthRecord.from_json(data["growth"]) if data.get("growth") else None,
            tuple(map(StepImpact.from_json, data.get("steps", ()))),
            tuple(map(LatencyMoment.from_json, data.get("latency_over_time", ()))),
        )


def _given(kind: type[Struct], data: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a result that a part has fields for."""
    return {name: data[name] for name in kind.__struct_fields__ if name in data}


def _pairs(data: Any) -> tuple[tuple[float, float], ...]:
    return tuple((first, second) for first, second in data)


def read_estimates(data: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """``(value, low, high)`` by the metric's name."""
    return {name: (value, low, high) for name, (value, low, high) in data.items()}


def _capacity(data: Mapping[str, Any]) -> Capacity:
    ladder = tuple(Step(**{**step, "rates_rps": tuple(step["rates_rps"])}) for step in data["ladder"])
    objective = None if data["objective"] is None else parse_objective(data["objective"])
    asl = LaunchValue(**data["asl"]) if data.get("asl") else None
    read = {"nmrt": LaunchValue(**data["nmrt"]), "ladder": ladder, "objective": objective, "asl": asl}
    return Capacity(**{**data, **read, "end": SearchEnd(data.get("end", SearchEnd.FOUND))})


def _splits(data: Mapping[SplitMetric, Any]) -> LatencySplits:
    return {metric: LatencySplit.from_json(split) for metric, split in data.items()}


def _distributions(data: Mapping[str, Any]) -> dict[str, Percentiles]:
    return {name: read_percentiles(percentiles) for name, percentiles in data.items()}


def _read_counts(data: Mapping[str, Any]) -> RequestCounts:
    """The counts of a launch from JSON, whose keys are text."""
    return RequestCounts(**{**data, "latencies": {int(ns): count for ns, count in data["latencies"].items()}})
