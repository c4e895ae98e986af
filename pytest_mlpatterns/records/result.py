"""The result of one perf test, as reports and the baseline see it: plain values that travel as JSON.

:mod:`pytest_mlpatterns.judging.result_builder` makes it from a measurement; this module measures and judges nothing.

A test that fails before anything is measured has no result; :class:`FailedTest` stands for it in the reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.records.codec import Count, Record
from pytest_mlpatterns.records.latency import StreamRecord
from pytest_mlpatterns.records.result_parts import (
    CauseRecord,
    Conditions,
    Definition,
    Judged,
    Limits,
    Location,
    Measured,
    Reference,
)
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import ERRORS, OPEN_KINDS, Gate, Kind, Outcome, Verdict, judged_kind
from pytest_mlpatterns.wording import listed


class RankedPattern(Struct, frozen=True):
    """One pattern of a ranking."""

    test: str  # the test's id
    pattern: str  # its name, with the wire if the results differ in that
    rank: Count | None  # place by score, from 1; None if it is excluded
    # value, low and high; 1 is the best in every metric. None if it is excluded
    score: tuple[float, float, float] | None
    parts: Mapping[str, tuple[float, float]]  # by metric, the share of the best (1: the best) and the weight
    excluded: str | None = None  # why it cannot be chosen; None if it can
    # requirements whose interval contains the limit, and values of which only a lower bound is known
    doubts: tuple[str, ...] = ()


class Ranking(Record, frozen=True):
    """The patterns of one test in order, the best first, the excluded last.

    ``sentence`` is the order in words. ``notes`` name what was left out of the weights.
    """

    group: str
    weights: Mapping[str, float]
    requirements: tuple[str, ...]
    sentence: str
    rows: tuple[RankedPattern, ...]
    notes: tuple[str, ...] = ()


class State(StrEnum):
    """State of a perf test at its end."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    INTERRUPTED = "interrupted"


PARTS: Mapping[str, type[Any]] = {
    "definition": Definition,
    "judged": Judged,
    "measured": Measured,
    "conditions": Conditions,
    "limits": Limits,
    "causes": CauseRecord,
}
"""The parts of a result whose members stand beside its own in JSON."""
_ORDER = (
    *("test", "passed", "setup", "metrics", "launches", "verdicts", "requests", "failed_requests", "blocks"),
    *("launch_count", "seconds_spent", "baseline_note", "notes", "load_over_time", "capacities", "layers", "generator"),
    *("interrupted", "tolerance", "latency", "reference", "memory_over_time", "warmups", "noise", "replica_share"),
    *("group", "location", "command", "baseline_gap", "unsteady", "counts", "not_compared", "first_failure"),
    *("overloads", "price", "scaling", "missing_indices", "stream", "cluster", "nodes"),
    *("generator_parts", "growth", "facts", "facts_changed", "profile", "held", "split", "taken", "busy", "accepted"),
    *("sorting_ns", "unjudged", "gate", "overload", "terms", "steps", "latency_over_time", "probably_slower"),
    *("not_counted", "work", "caught", "outcome", "kind"),
)
"""The members of a result in JSON, in the order in which they have always been written."""
_LEFT = frozenset(("cancelled_requests",))  # Members of earlier versions that are read over


class TestResult(Struct, frozen=True):
    """One perf test as reports and the baseline see it: plain values only, so that it travels as JSON."""

    __test__ = False

    test: str  # its id
    setup: Setup  # what was measured
    metrics: Mapping[str, tuple[float, float, float]]  # ``(value, low, high)`` by the metric's name
    verdicts: tuple[Verdict, ...]  # in the order in which they were made
    reference: Reference | None  # what it was compared with; None if nothing was
    stream: StreamRecord | None  # what came in pieces; None if the answers did not stream
    definition: Definition  # where the test is defined, and what it asks for
    judged: Judged  # what came of it beside its verdicts
    measured: Measured  # its launches, and their requests
    conditions: Conditions  # the machines, the load generator and the environment meanwhile
    limits: Limits  # how much load the deployment sustains
    causes: CauseRecord  # what explains the figures

    @property
    def kind(self) -> Kind:
        """What came of the test, as reports and exit codes show it."""
        if self.judged.unjudged is not None:
            return self.judged.unjudged.kind
        kind = judged_kind(self.verdicts, passed=self.judged.passed, interrupted=self.judged.interrupted)
        return Kind.PROBABLY_SLOWER if kind is Kind.UNDECIDED and self.judged.probably_slower else kind

    @property
    def advisory(self) -> bool:
        """Whether the test did not pass and its gate lets that pass: by a verdict, not by an error."""
        return not self.judged.passed and self.definition.gate is Gate.WARN and self.kind not in ERRORS

    @property
    def generator_limited(self) -> bool:
        """Whether the load generator was the limit, so that the figures do not show the service."""
        return bool(self.conditions.generator.get("limited"))

    @property
    def compares_nothing(self) -> bool:
        """Whether the test asks not to be compared, by ``compare=()``."""
        return self.definition.terms is not None and not self.definition.terms.tolerances

    @property
    def outcome(self) -> State:
        """State of the test; an undecided verdict makes a passed test undecided, and one that failed is not lost."""
        if self.judged.interrupted and self.kind not in (Kind.REGRESSION, Kind.LIMIT):
            return State.INTERRUPTED
        if not self.judged.passed:
            return State.FAILED
        is_open = any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in self.verdicts)
        return State.UNDECIDED if is_open else State.PASSED

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the test failed: its verdicts, and what else ended it; empty if it did not fail."""
        if self.outcome is not State.FAILED:
            return ()
        worst = Outcome.INCONCLUSIVE if self.kind in OPEN_KINDS else Outcome.FAIL
        reasons = [verdict.reason for verdict in self.verdicts if verdict.outcome is worst]
        return (*reasons, *([] if self.judged.unjudged is None else [self.judged.unjudged.reason]))

    def with_notes(self, notes: Iterable[str]) -> TestResult:
        """The result with further notes."""
        return replace(self, judged=replace(self.judged, notes=(*self.judged.notes, *notes)))

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries, lists, text and numbers, together with :attr:`outcome` and :attr:`kind`."""
        plain = {
            "test": self.test,
            "setup": self.setup.to_json(),
            "metrics": dict(self.metrics),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "reference": None if self.reference is None else self.reference.to_json(),
            "stream": None if self.stream is None else self.stream.to_json(),
            "outcome": self.outcome.value,
            "kind": self.kind.value,
        }
        for name in PARTS:
            plain |= getattr(self, name).to_json()
        return {name: plain[name] for name in _ORDER}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TestResult:
        """The inverse of :meth:`to_json`, also after a trip through JSON or between processes.

        Raises KeyError, TypeError, ValueError: it has members of another kind, or other members.
        """
        if unknown := data.keys() - set(_ORDER) - _LEFT:
            raise TypeError(f"a result has no member {listed(sorted(unknown), 'or')}")
        return cls(
            test=data["test"],
            setup=Setup.from_json(data["setup"]),
            metrics={name: tuple(found) for name, found in data["metrics"].items()},
            verdicts=tuple(map(Verdict.from_json, data["verdicts"])),
            reference=None if data["reference"] is None else Reference.from_json(data["reference"]),
            stream=StreamRecord.from_json(data["stream"]) if data.get("stream") else None,
            **{name: part.from_json(data) for name, part in PARTS.items()},
        )


def name_of(test: str) -> str:
    """A test's id without its file and classes; its brackets may hold any text, such as ``test_digits[cv::Mat]``."""
    path, bracket, inside = (test.partition("::")[2] or test).partition("[")  # a directory may have brackets too
    return f"{path.rpartition('::')[2]}{bracket}{inside}"


def id_from(directory: Path, test: str, root: Path) -> str:
    """A test's id as a command in a directory takes it; pytest's ids are relative to its root.

    ``directory``: where the command runs, absolute. ``root``: pytest's root directory, absolute.
    """
    file, colons, name = test.partition("::")
    return f"{os.path.relpath(root / file, directory)}{colons}{name}"


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


class FailedTest(Record, frozen=True):
    """A perf test that failed, or would have without ``--perf-gate warn``, with or without a measurement."""

    test: str  # its id
    reason: str  # why, in a few lines
    location: Location | None  # where it is defined
    kind: Kind = Kind.TEST_ERROR  # of the failure
    gate: Gate = Gate.FAIL  # ``warn`` if the test passed although its verdict failed
    group: str = ""  # its id without its pattern
    pattern: str = ""  # under which it ran, as text
    text: str = ""  # the whole message of a verdict that did not fail the test, which pytest does not show then


class RunEnd(Record, frozen=True):
    """How a run ended."""

    # whether it ran to its end; an interrupt, an exit, an internal error of pytest or a lost worker ends it before
    complete: bool = True
    # ids of the perf tests that were selected and did not come to an end; None if they are not known
    not_run: tuple[str, ...] | None = ()
    # ids of what failed beside the perf tests: ordinary tests, and files that were not collected
    other_failures: tuple[str, ...] = ()
    smoke: bool = False  # whether each test sent one request (``--perf-smoke``), so that nothing was measured
