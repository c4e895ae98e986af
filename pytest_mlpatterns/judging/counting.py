"""The instructions of a request, counted on both sides of a comparison, and what they can decide.

A failure rests on two passes of the present, as far as the time of a side allows them. Pure but for the passes, which
are another measurement of the loop (:mod:`pytest_mlpatterns.judging.loop`). This module must not know how instructions
are counted, nor when a test asks for them.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, leading_time, with_locations
from pytest_mlpatterns.analysis.metrics.metric import Counted, Metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import CONFIRMING_LAUNCHES
from pytest_mlpatterns.errors import CountError, SettingError
from pytest_mlpatterns.judging.budget import Budget
from pytest_mlpatterns.judging.compared_metrics import facts_of
from pytest_mlpatterns.judging.look import EntrySample, MeasuredSample, Sample
from pytest_mlpatterns.judging.loop import Ruling, Supply, decide, ruling_of
from pytest_mlpatterns.judging.metric_rules import judge_guarded
from pytest_mlpatterns.judging.settle import Seen, settle
from pytest_mlpatterns.records.setup import differing_facts
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.where import functions_explain
from pytest_mlpatterns.revision.commits import UnknownRevisionError
from pytest_mlpatterns.units import SECOND_NS, format_duration
from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.profiling.callgrind import Countable
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.count import Count
    from pytest_mlpatterns.records.setup import EnvironmentFacts
    from pytest_mlpatterns.revision.client import RevisionClient
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.plan import LoadPlan

INSTRUCTIONS = METRICS["instructions"]
_MOST_CHANGES = 3  # Changed packages that a verdict names
PASS_NS = 60_000_000_000  # Time of the passes of one side
_ALIKE = ("means", "architecture", "python", "requests", "environment")
"""Fields of two counts that are equal if they count the same instructions for the same code."""


def is_counted(metric: Metric) -> bool:
    """Whether a pass of its own counts a metric."""
    return isinstance(metric.kind, Counted)


def is_left_to_a_count(verdict: Verdict) -> bool:
    """Whether a time or a rate is undecided because the machine was busy, or because its values scatter too much."""
    if verdict.outcome is not Outcome.INCONCLUSIVE or not functions_explain(verdict.metric):
        return False
    if verdict.why_open is not None or verdict.change is None:
        return verdict.by_machine
    return verdict.change.high - verdict.change.low > (verdict.tolerance or 0.0)


def own_share(figures: Mapping[str, float], in_flight: int | None, threads: int) -> float:
    """The share of a request's latency that is CPU time of the service itself; 0 if it is not known.

    ``figures``: by metric, of the quietest launch, since nothing makes a request shorter. ``in_flight``: of a closed
    loop, whose requests wait for the CPU time of others, as far as there are fewer ``threads`` that work.
    """
    latency_ns = max(figures.get(name, 0.0) for name in with_locations([leading_time(streams=False).name]))
    callers = in_flight or 1
    share = figures.get("cpu_per_request", 0.0) / latency_ns if latency_ns else 0.0
    return share * callers / min(callers, max(threads, 1))


def holds_here(entry: Entry, now: Count, facts: EnvironmentFacts | None) -> bool:
    """Whether the count of an entry, of any machine, is that of its code here.

    ``facts``: of the service; None if the packages may be others.
    """
    then = entry.work
    if then is None or any(getattr(then, name) != getattr(now, name) for name in _ALIKE):
        return False
    changes = () if facts is None else differing_facts(entry.facts, facts)
    return changes is not None and not any(one.may_change_work for one in changes)


class CountedBeside(Struct, frozen=True):
    """What the present is counted beside."""

    kind: Literal["baseline", "revision"]
    name: str  # in messages
    sample: Sample
    work: Count  # its last pass

    @classmethod
    def entry(cls, entry: Entry) -> CountedBeside:
        """An entry with a count."""
        assert entry.work is not None
        return cls("baseline", f"the baseline of {entry.recorded_at}", EntrySample(entry), entry.work)


class CountedPasses:
    """Counts the instructions of one test, and of the code that it is compared with."""

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._then: tuple[Count, ...] = ()

    @property
    def now(self) -> tuple[Count, ...]:
        """The passes of the present."""
        return self._measurement.metrics.counts

    @functools.cached_property
    def other(self) -> RevisionClient | None:
        """The code that the present is compared with, or that its baseline was recorded from; None if it is the same.

        Raises UnknownRevisionError, SettingError: it cannot be had.
        """
        revision, settle = self._experiment.revision, self._experiment.settle
        return settle().revision if revision is None and settle is not None else revision

    @property
    def may_compare(self) -> bool:
        """Whether there may be a count or other code to count the present beside."""
        with contextlib.suppress(UnknownRevisionError, SettingError):
            return self._experiment.baseline.counted is not None or self.other is not None
        return False

    @property
    def can(self) -> Countable:
        """Whether the service of the test can be counted here."""
        from pytest_mlpatterns.judging.cause_search import why_not_readable
        from pytest_mlpatterns.profiling.callgrind import Countable, countable

        why = why_not_readable(self._experiment)
        return Countable(why) if why else countable()

    def count(self) -> None:
        """Count the present in one more pass; it takes the inputs that a stored count had.

        Raises CountError: it cannot be counted.
        """
        system, stored = self._experiment.system, self._experiment.baseline.counted
        requests = None if stored is None or stored.work is None else stored.work.requests
        found = self.count_side("the present", system.start, self._experiment.plan, requests=requests)
        self._measurement.take_count(found)

    def required(self, what: str) -> CountedPasses:
        """The same with a pass, for what an assertion asks. Raises SettingError: it cannot be counted here."""
        if why := self.can.why:
            raise SettingError(f"{what} cannot be decided: {why}")
        if not self.now:
            self.count()
        return self

    def decide(self, judge: Callable[[], Verdict]) -> Verdict:
        """Judge, and count the present once more while that is open or a failure rests on one pass."""

        def look() -> Ruling:
            is_confirmed = len(self.now) >= CONFIRMING_LAUNCHES
            return ruling_of(lambda: [judge()], "count", is_confirmed=is_confirmed, fewest=0)

        def budget() -> Budget:
            return Budget(PASS_NS, round(sum(one.seconds for one in self.now) * SECOND_NS))

        def each_ns() -> float:
            return self.now[-1].seconds * SECOND_NS

        supply = Supply(self.count, lambda: len(self.now), CONFIRMING_LAUNCHES, each_ns)
        return decide(look, {"count": supply}, budget).verdicts[0]

    def compare(self, compared: ComparedMetric) -> tuple[Verdict, CountedBeside]:
        """Count the other side, and decide whether the present needs more instructions; it has at least one pass.

        Raises CountError: a side cannot be counted, or there is none but the present. DeploymentError, SettingError:
        the other code cannot be had.
        """
        match, now, facts = self._experiment.baseline, self.now[-1], facts_of(self._measurement.so_far)
        is_stored = self._experiment.revision is None
        if is_stored and match.counted is not None and holds_here(match.counted, now, facts):
            beside = CountedBeside.entry(match.counted)
            return self.decide(lambda: self._judge(compared, beside)), beside
        own = match.entry if is_stored and match.entry is not None and holds_here(match.entry, now, None) else None
        if (other := self.other) is None and own is None:
            raise CountError("no entry with the same software has it: --perf-baseline update --perf-count instructions")
        found = None if other is None else self._beside(other)
        verdict = None if found is None else self.decide(lambda: self._judge(compared, found))
        if own is not None:
            return self._settled(compared, own, found, verdict), found or CountedBeside.entry(own)
        assert verdict is not None
        assert found is not None
        return verdict, found

    def _judge(self, compared: ComparedMetric, beside: CountedBeside, present: Sample | None = None) -> Verdict:
        """The verdict on the present, or on what stands for it, beside one side."""
        now = present or MeasuredSample(self._measurement.metrics)
        return judge_guarded(compared, beside.sample, now, against=beside.kind, in_flight=None)

    def _settled(self, compared: ComparedMetric, own: Entry, *beside: Any) -> Verdict:
        """The verdict, with what the entry of this machine shows of packages that changed since.

        ``beside``: the other code and the verdict beside it; None if the present is that code.
        """
        found, verdict = beside
        stored, facts = CountedBeside.entry(own), facts_of(self._measurement.so_far)
        changes = [one for one in differing_facts(own.facts, facts) or () if one.may_be_intended]
        changes = [one for one in changes if one.may_change_work]
        return settle(
            Seen(
                file=self._judge(compared, stored),
                recorded=verdict,
                name="" if found is None else found.name,
                is_same=found is None and self._experiment.settle is not None,
                is_standing=True,
                today=None if found is None else self._judge(compared, stored, found.sample),
                changed=listed([*map(str, changes[:_MOST_CHANGES])]),
                is_small=all(one.is_small for one in changes),
            )
        ).verdict

    def _beside(self, other: RevisionClient) -> CountedBeside:
        """The same test at the other code, counted once."""
        try:
            if not self._then:
                theirs, tree = other.setup(), other.worktree
                if differences := self._experiment.setup.differences(theirs.setup, timing=False):
                    raise CountError(f"{other.name} is not comparable ({'; '.join(differences)})")
                plan, roots = replace(self._experiment.plan, payload=theirs.payload), (tree.directory, tree.root)
                found = self.count_side(other.name, other.start, plan, requests=self.now[-1].requests, roots=roots)
                self._then = (found,)
        finally:
            other.close()
        return CountedBeside("revision", other.name, MeasuredSample(Metrics((), counts=self._then)), self._then[-1])

    def count_side(
        self,
        name: str,
        start: Callable[..., Deployment],
        plan: LoadPlan,
        *,
        requests: int | None,
        roots: tuple[Path, ...] = (),
    ) -> Count:
        """One pass of a side, beside the budget, which the live line announces.

        ``requests``: of a round; None for any. ``roots``: the directory of its project and the top of its tree; empty
        for those of the test. Raises CountError: it cannot be counted.
        """
        from pytest_mlpatterns.measurement.counted_pass import counted_pass
        from pytest_mlpatterns.profiling.frame_names import SourceNames

        self._measurement.runner.close()  # the side needs the machine to itself
        show, options = self._experiment.driver.on_search, self._experiment.system.options
        show(f"counting the instructions of {name}, up to {format_duration(PASS_NS)}")
        names = SourceNames(*(roots or (options.root,)))
        try:
            with self._measurement.spending.beside():
                return counted_pass(
                    start, plan, directory=options.directory, names=names, limit_ns=PASS_NS, requests=requests
                )
        finally:
            show("")
