"""What compares one test: its measurement, and what each comparison notes for its result. It makes no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.judging.causes import Causes
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
from pytest_mlpatterns.judging.look import Look
from pytest_mlpatterns.judging.loop import Ruling
from pytest_mlpatterns.judging.metric_rules import require_requested, why_not_compared
from pytest_mlpatterns.judging.result_builder import facts_of, reference_from_baseline, reference_with_work
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.result_parts import BaselineGap, Reference
from pytest_mlpatterns.records.setup import FactChange, differing_facts
from pytest_mlpatterns.records.verdict import LeftOut, Verdict

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.counting import CountedBeside
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun

INSTRUCTIONS = METRICS["instructions"]


class Side(Struct, frozen=True):
    """What the comparison with one side has come to, beside its verdicts."""

    name: str  # of the side in messages
    why_not: str = ""  # why it cannot be compared with; empty if it can
    details: str = ""  # of that, such as what the other side printed
    is_new: bool = False  # whether the test is new, so that there is nothing to compare with
    is_judged: bool | None = None  # whether a metric was judged; None before the first look
    left_out: Mapping[str, LeftOut] = {}  # why each metric was not compared, by its label
    run: InterleavedRun | None = None  # what measures it in turns with the present; None if nothing does so far
    reference: Reference | None = None  # for reports, once it was measured; of a file it is the entry
    facts_changed: tuple[FactChange, ...] | None = None  # what of the environment differs, if it was measured

    @property
    def missing(self) -> str:
        """Why nothing was compared with it; empty if something was, or was not tried yet."""
        if self.is_judged is not False:
            return self.why_not
        metrics = ", ".join(f"{label} ({why})" for label, why in self.left_out.items())
        return f"not compared with {self.name}: {metrics or 'no metric of it is known'}"


class Settled(Struct, frozen=True):
    """What the recorded code has decided in place of the file, or why it could not."""

    labels: frozenset[str] | None = None  # of the metrics that it decided; None if the file decides so far
    left_out: Mapping[str, LeftOut] = {}  # why what only a search knows was not compared, by label
    why_not: str = ""  # why it could not be measured; empty if it could, or nothing asked for it
    remedy: str = ""  # what to do about that
    why: str = ""  # what decided, in words


class Work(Struct, frozen=True):
    """What came of counting instructions."""

    verdict: Verdict | None = None  # None if both sides were not compared
    beside: CountedBeside | None = None  # what the present was compared with
    left_out: LeftOut | None = None  # why it was not; None if it was, or nothing asked for it
    note: str = ""  # what it decided of the times, in words; empty if it was not to
    not_counted: str = ""  # the tool that is missing; empty if none is

    @property
    def then(self) -> Count | None:
        """The instructions of a request there."""
        return None if self.beside is None else self.beside.work


class Basis:
    """What a test was compared with so far, and what was not compared: each comparison notes its part.

    ``causes``: looks for why it failed. ``file``: beside the baseline. ``code``: beside the revision, or the code that
    the baseline was recorded from. ``settled``: what that decided in place of the file. ``work``: what a count decided.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self.experiment: Experiment = experiment
        self.measurement: SequentialMeasurement = measurement
        self.causes: Causes = Causes(experiment, measurement)
        self._has_revision = experiment.revision is not None
        self.file: Side = Side("the baseline", why_not=experiment.baseline.missing)
        self.code: Side = Side("the revision")
        self.settled: Settled = Settled()
        self.work: Work = Work()

    def keep(self, part: Literal["file", "code", "settled", "work"], **found: Any) -> None:
        """Note what a comparison has found, by the fields of its part."""
        setattr(self, part, replace(getattr(self, part), **found))

    def leave_out(
        self, part: Literal["file", "code", "settled"], left_out: Mapping[str, LeftOut], known: Sequence[str] = ()
    ) -> None:
        """Note why metrics have no verdict, by label; that nothing is missing of those that are known."""
        before = {label: why for label, why in getattr(self, part).left_out.items() if label not in known}
        self.keep(part, left_out={**before, **left_out})

    def judged(
        self, part: Literal["file", "code"], found: Ruling, compared: Sequence[ComparedMetric], *, look: Look
    ) -> None:
        """Note what one side has come to. Raises PerfFailure: without a metric that the test requested."""
        side: Side = getattr(self, part)
        require_requested(found, compared, beside=side.name)
        known = [one.metric.label for one in compared if one.metric.name not in found.left_out]
        self.leave_out(part, why_not_compared(found.left_out, compared, look, settings=self.experiment.settings), known)
        self.keep(part, is_judged=bool(side.is_judged or found.verdicts))

    @property
    def _side(self) -> Side:
        """What the test is compared with at first."""
        return self.code if self._has_revision else self.file

    @property
    def is_interleaved(self) -> bool:
        """Whether the test was measured in turns with another revision."""
        return self._has_revision or self.code.run is not None

    @property
    def missing(self) -> str:
        """Why nothing was compared, or what the test requested and was not; empty otherwise."""
        return self._side.missing if self.settled.labels is None else ""

    @property
    def gap(self) -> BaselineGap | None:
        """Why there is no comparable baseline; None with one, or if the test is compared with something else."""
        is_by_file = not self._has_revision and self.settled.labels is None
        return self.experiment.baseline.gap if is_by_file else None

    @property
    def left_out(self) -> Mapping[str, LeftOut]:
        """Why each metric was not compared, by its label."""
        found = {**self.file.left_out, **self.code.left_out, **self.settled.left_out}
        found = {label: why for label, why in found.items() if label not in (self.settled.labels or ())}
        return found if self.work.left_out is None else {**found, INSTRUCTIONS.label: self.work.left_out}

    @property
    def note(self) -> str:
        """What a reader of the comparison has to know; empty if there is nothing."""
        settled, details = self.settled, self.experiment.baseline.details
        words = [self._side.why_not, settled.why_not]
        if settled.labels is not None:
            words = [settled.why, f"its entry is of another environment ({details})" if details else ""]
        return "" if self.experiment.smoke else "; ".join(filter(None, [*words, self.work.note]))

    @property
    def facts_changed(self) -> tuple[FactChange, ...] | None:
        """What of the environment differs from the reference's, comparable or not; None if one is unknown."""
        if self._has_revision:
            return self.code.facts_changed
        return differing_facts(self.experiment.baseline.facts, facts_of(self.measurement.so_far))

    @property
    def reference(self) -> Reference | None:
        """What the present was compared with, for reports; None if it was not."""
        match, found, work = self.experiment.baseline, self.code.reference, self.work
        if found is None and not self._has_revision and match.entry is not None:
            found = reference_from_baseline(match.entry, match.name)
        return found if work.beside is None else reference_with_work(found, work.beside, work.verdict)

    def required(self, command: str) -> str:
        """Why a test fails that has to be compared; empty if it was. ``command``: runs this test alone."""
        missing, remedy = self.missing, self.settled.remedy
        if not missing:
            return ""
        asked = "a comparison" if self.gap is None else f"one; record it: {command} --perf-baseline update"
        why, asked = (f"{remedy}; {missing}", "one") if remedy else (missing, asked)
        return f"{why}, and --perf-baseline require asks for {asked}"
