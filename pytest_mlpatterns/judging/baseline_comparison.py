"""One test compared with what it was: its baseline, or the same test at another git revision.

Says which verdicts that comes to, and what a reader has to know of it; who fails for them is the caller's business.
This module must not know pytest.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.verdicts import SampleSize, judge_change, why_invalid
from pytest_mlpatterns.baseline.calibration import scaled
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.errors import InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.judging.interleaved_verdicts import MEASURED, judge_no_slower
from pytest_mlpatterns.judging.result_builder import reference_from_baseline, reference_from_interleaved
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.revision.client import NothingToCompareError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.metric_definitions import Metric
    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.result import Reference
    from pytest_mlpatterns.records.verdict import Verdict
    from pytest_mlpatterns.revision.client import RevisionClient

__all__ = ["BaselineComparison", "see_that_it_counts", "stand_on", "to_the_end"]

_ALPHA = 0.01
"""Chance that a comparison with the baseline fails what is just within the tolerance, over all looks and metrics."""
_MOOD = 1.15
"""By less than this the calibration workload differs from time to time anyway: 1.08 was seen."""


class BaselineComparison:
    """Compares what one test measures.

    Args:
        evidence: what was measured so far; grows as verdicts ask for it.
        bench: runs the test's deployment.
        settings: what the test was asked to do.
        subject: what is measured.
        reference: the baseline.
        revision: the same test at another git revision, which is compared with instead of the baseline.

    Attributes:
        counterpart: what was compared with, for reports; None where nothing was.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what one test is about
        self,
        evidence: SequentialMeasurement,
        bench: LaunchRunner,
        settings: Settings,
        subject: Experiment,
        reference: BaselineMatch,
        revision: RevisionClient | None,
    ) -> None:
        self._evidence = evidence
        self._bench = bench
        self._settings = settings
        self._subject = subject
        self._reference = reference
        self._revision = revision
        self._pairing: InterleavedRun | None = None
        self._why_not = ""
        self._left_out: dict[str, str] = {}
        self.counterpart: Reference | None = None
        if revision is None and reference.entry is not None:
            self.counterpart = reference_from_baseline(reference.entry, reference.name)

    @property
    def missing(self) -> str:
        """What was to be compared and was not, and why; empty where all of it was."""
        if self._revision is None and self._reference.missing:
            return self._reference.missing
        if self._why_not or not self._left_out:
            return self._why_not
        name = "the baseline" if self._revision is None else self._revision.name
        return f"not compared with {name}: {', '.join(f'{what}{why}' for what, why in self._left_out.items())}"

    @property
    def note(self) -> str:
        """What a reader has to know: why nothing was compared, or which metrics were not; empty where all is plain."""
        if self._bench.smoke:
            return ""
        said = "" if self._revision is not None else self._reference.said
        return "; ".join(filter(None, (said, self.missing)))

    def judge(self, metrics: Sequence[Metric], tolerance: float, *, asked: bool = True) -> Sequence[Verdict]:
        """Compare these metrics; measure where nothing was measured, unless pairs of blocks tell as much.

        Args:
            metrics: those that one side does not know, or that pairs do not measure, are left out, and that is said.
            tolerance: largest acceptable worsening, 0.05 for 5 %.
            asked: the test asked for them itself: then too few samples are an error, and NMRT is searched for.

        Raises:
            DeploymentError: a side did not start, or died.
            InvalidResultError: what was measured supports no verdict.
        """
        by_pairs = self._revision is not None and not self._bench.smoke and self._subject.plan.check is None
        if not by_pairs:
            self._evidence.measure_at_least(1)
        if self._bench.smoke:
            return ()
        if self._revision is None:
            return self._with_baseline(metrics, tolerance, asked=asked)
        found = self._with_revision(self._revision, metrics, tolerance)
        self._evidence.measure_at_least(1)  # where nothing could be compared
        see_that_it_counts(self._evidence.metrics)
        return found

    def _with_baseline(self, metrics: Sequence[Metric], tolerance: float, *, asked: bool) -> Sequence[Verdict]:
        see_that_it_counts(self._evidence.metrics)
        if asked and self._reference.mode is not BaselineMode.OFF:
            for metric in metrics:
                self._search_for(metric)
        if (entry := self._reference.entry) is None:
            return ()
        found: list[Verdict] = []
        for metric in metrics:
            before = entry.metrics.get(metric.name)
            if not asked and self._evidence.metrics.only_at_least(metric):
                continue  # the search ended once it knew enough for the test's own limit
            if not before:
                self._left_out[metric.label] = " (not recorded yet)"
                continue
            looks = SequentialPlan(
                first=1,
                last=self._settings.launches,
                alpha=_ALPHA / len(metrics),
                passing=_ALPHA,
                beside=len(before),
            )
            share = tolerance * self._reference.widening
            judge = functools.partial(self._judge_change, metric, before, share, looks)
            try:
                verdict = self._evidence.decide(judge, self._search_again(metric))
                found.append(self._unless_explained(verdict, metric, entry, share, looks))
            except _NotKnownError:
                self._left_out[metric.label] = f" (not known for {self._subject.setup.pattern})"
            except TooFewSamplesError as error:
                if asked:
                    raise
                self._left_out[metric.label] = f" ({error})"
        return found

    def _unless_explained(
        self, verdict: Verdict, metric: Metric, entry: Entry, tolerance: float, looks: SequentialPlan
    ) -> Verdict:
        """The verdict; one that fails is left open where the machine itself got slower, and that is enough for it."""
        if verdict.outcome is not Outcome.FAIL or self._slowdown is None or self._slowdown < _MOOD:
            return verdict
        before = scaled(entry, self._slowdown).metrics[metric.name]
        if self._judge_change(metric, before, tolerance, looks).outcome is Outcome.FAIL:
            return verdict
        why = (
            f"but this machine takes {self._slowdown:.2f} times as long for the same work as when the baseline was "
            "recorded, which explains it: run it again, or compare interleaved (--perf-against)"
        )
        return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{verdict.reason}; {why}")

    @functools.cached_property
    def _slowdown(self) -> float | None:
        """How much slower the machine is than when the baseline was recorded; measured where it is first asked for."""
        return self._reference.slowdown()

    def _search_for(self, metric: Metric) -> None:
        """NMRT is known only where it was searched for."""
        search = self._search_again(metric)
        if search is not None and not self._evidence.metrics.launch_values(metric):
            search()

    def _judge_change(
        self, metric: Metric, before: Sequence[LaunchValue], tolerance: float, looks: SequentialPlan
    ) -> Verdict:
        now = self._evidence.metrics
        see_that_it_counts(now)
        if metric.percentile is not None:
            now.latency_ns(metric.percentile)  # refuses too few samples
        values = () if now.only_at_least(metric) else now.launch_values(metric)
        if not values:
            raise _NotKnownError
        verdict = judge_change(
            metric,
            values,
            before,
            tolerance,
            looks=looks,
            stand=stand_on(now, metric),
            in_flight=self._subject.setup.in_flight,
        )
        said = self._reference.said
        return replace(verdict, reason=f"{verdict.reason}; {said}") if said else verdict

    def _search_again(self, metric: Metric) -> Callable[[], None] | None:
        """How more evidence for this metric is had, None where another launch gives it."""
        if metric.of is not None:
            return None
        objective = None if metric.name == "nmrt" else parse_objective(metric.name[len("nmrt(") : -1])
        return functools.partial(self._evidence.search, to_the_end, objective)

    def _with_revision(self, theirs: RevisionClient, metrics: Sequence[Metric], tolerance: float) -> Sequence[Verdict]:
        """Measure both sides interleaved; what cannot be measured so is not compared, and that is said."""
        names = [metric.name for metric in metrics if metric.name in MEASURED]
        self._left_out.update((metric.label, "") for metric in metrics if metric.name not in MEASURED)
        if self._subject.runs_already:
            self._why_not = (
                f"not compared with {theirs.name}: {self._subject.setup.pattern} runs already and is the same service "
                "on both sides; name it as App(...) or Command(...), which a revision can start"
            )
        if not names or self._why_not:
            return ()
        try:
            if self._pairing is None:
                self._pairing = self._paired_with(theirs)
            if self._pairing is None:
                return ()
            self._bench.close()  # the two sides have the machine to themselves
            return self._judge_pairing(self._pairing, names, tolerance)
        except NothingToCompareError as error:
            self._why_not = str(error)
            return ()
        finally:
            theirs.close()

    def _paired_with(self, theirs: RevisionClient) -> InterleavedRun | None:
        """Both sides, which further metrics are judged on too; None where they do not compare, and why is kept."""
        plan, offered = self._subject.plan, theirs.offer()
        if differences := self._subject.setup.differences(offered.setup):
            self._why_not = f"not comparable with {theirs.name} ({'; '.join(differences)})"
            return None
        return self._subject.pair(
            Variant(theirs.name, theirs.start, replace(plan, payload=offered.payload)),
            Variant("the present", self._subject.start, plan),
        )

    def _judge_pairing(self, pairing: InterleavedRun, names: Sequence[str], tolerance: float) -> Sequence[Verdict]:
        launches, spent_s = len(pairing.second_launches), pairing.spent_s
        try:
            found = judge_no_slower(pairing, names, tolerance, self._settings.budget_ns)
        except KeyboardInterrupt:
            self._evidence.interrupted = True
            raise
        finally:
            self._evidence.take(pairing.second_launches[launches:])
            self._evidence.paired_s += pairing.spent_s - spent_s
        self.counterpart = reference_from_interleaved(pairing)
        unknown = set(names) - {verdict.metric for verdict in found}
        self._left_out.update((METRICS[name].label, " (not known of both sides)") for name in names if name in unknown)
        return found


class _NotKnownError(Exception):
    """The present has no value of a metric."""


def see_that_it_counts(metrics: Metrics, *, errors_count: bool = True) -> None:
    """Raise where what was measured supports no verdict.

    Raises:
        InvalidResultError: and says why.
    """
    if why := why_invalid(metrics, errors_count=errors_count):
        raise InvalidResultError(why)


def stand_on(metrics: Metrics, metric: Metric) -> SampleSize:
    """What a verdict on a metric rests on so far."""
    return SampleSize(max(len(metrics.launch_values(metric)), 1), metrics.blocks)


def to_the_end(_value: LaunchValue) -> bool:
    """A search that goes on to its end."""
    return False
