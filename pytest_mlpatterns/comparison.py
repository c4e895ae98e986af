"""One test compared with what it was: its baseline, or the same test at another git revision.

Says which verdicts that comes to, and what a reader has to know of it; who fails for them is the caller's business.
This module must not know pytest.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.account import counterpart_in_baseline, counterpart_in_pairing, estimate_or_none
from pytest_mlpatterns.against import NothingToCompareError
from pytest_mlpatterns.errors import UncountableResultError
from pytest_mlpatterns.load.capacity import parse_objective
from pytest_mlpatterns.looks import Looks
from pytest_mlpatterns.pairwise import MEASURED, judge_no_slower
from pytest_mlpatterns.turn import Side
from pytest_mlpatterns.verdict import Stand, judge_change, why_uncountable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.against import ReferenceSide
    from pytest_mlpatterns.catalog import Metric
    from pytest_mlpatterns.config import Settings
    from pytest_mlpatterns.evidence import Evidence
    from pytest_mlpatterns.ledger import Reference
    from pytest_mlpatterns.measure import Bench
    from pytest_mlpatterns.metrics import Metrics
    from pytest_mlpatterns.paired import Pairing
    from pytest_mlpatterns.records import Judgement, LaunchValue
    from pytest_mlpatterns.result import Counterpart
    from pytest_mlpatterns.subject import Subject

__all__ = ["Comparison", "see_that_it_counts", "stand_on", "to_the_end"]

_ALPHA = 0.01
"""Chance that a comparison with the baseline fails what is just within the tolerance, over all looks and metrics."""


class Comparison:
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
        evidence: Evidence,
        bench: Bench,
        settings: Settings,
        subject: Subject,
        reference: Reference,
        revision: ReferenceSide | None,
    ) -> None:
        self._evidence = evidence
        self._bench = bench
        self._settings = settings
        self._subject = subject
        self._reference = reference
        self._revision = revision
        self._why_not = ""
        self._left_out: dict[str, None] = {}
        self.counterpart: Counterpart | None = None
        if revision is None and reference.entry is not None:
            self.counterpart = counterpart_in_baseline(reference.entry, reference.name)

    @property
    def note(self) -> str:
        """What a reader has to know: why nothing was compared, or which metrics were not; empty where all is plain."""
        if self._bench.smoke:
            return ""
        if self._revision is None:
            return self._reference.missing or self._reference.said
        if self._left_out and not self._why_not:
            return f"not compared with {self._revision.name}: {', '.join(self._left_out)}"
        return self._why_not

    def judge(self, metrics: Sequence[Metric], tolerance: float) -> Sequence[Judgement]:
        """Compare these metrics; measure where nothing was measured, unless pairs of blocks tell as much.

        Args:
            metrics: those that are not known, or that pairs do not measure, are left out.
            tolerance: largest acceptable worsening, 0.05 for 5 %.

        Raises:
            DeploymentError: a side did not start, or died.
            UncountableResultError: what was measured supports no verdict.
        """
        by_pairs = self._revision is not None and not self._bench.smoke and self._subject.plan.check is None
        if not by_pairs:
            self._evidence.measure_at_least(1)
        if self._bench.smoke:
            return ()
        if self._revision is None:
            return self._with_baseline(metrics, tolerance)
        found = self._with_revision(self._revision, metrics, tolerance)
        self._evidence.measure_at_least(1)  # where nothing could be compared
        see_that_it_counts(self._evidence.metrics)
        return found

    def _with_baseline(self, metrics: Sequence[Metric], tolerance: float) -> Sequence[Judgement]:
        entry = self._reference.entry
        see_that_it_counts(self._evidence.metrics)
        found: list[Judgement] = []
        for metric in metrics if entry is not None else ():
            before = entry.metrics.get(metric.name) if entry is not None else None
            if before and estimate_or_none(self._evidence.metrics, metric) is not None:
                looks = Looks(
                    first=1,
                    last=self._settings.launches,
                    alpha=_ALPHA / len(metrics),
                    passing=_ALPHA,
                    beside=len(before),
                )
                share = tolerance * self._reference.widening
                judge = functools.partial(self._judge_change, metric, before, share, looks)
                found.append(self._evidence.decide(judge, self._search_again(metric)))
        return found

    def _judge_change(self, metric: Metric, before: Sequence[LaunchValue], tolerance: float, looks: Looks) -> Judgement:
        now = self._evidence.metrics
        see_that_it_counts(now)
        values = now.launch_values(metric)
        judgement = judge_change(metric, values, before, tolerance, looks=looks, stand=stand_on(now, metric))
        said = self._reference.said
        return replace(judgement, reason=f"{judgement.reason}; {said}") if said else judgement

    def _search_again(self, metric: Metric) -> Callable[[], None] | None:
        """How more evidence for this metric is had, None where another launch gives it."""
        if metric.of is not None:
            return None
        objective = None if metric.name == "nmrt" else parse_objective(metric.name[len("nmrt(") : -1])
        return functools.partial(self._evidence.search, to_the_end, objective)

    def _with_revision(self, theirs: ReferenceSide, metrics: Sequence[Metric], tolerance: float) -> Sequence[Judgement]:
        """Measure both sides interleaved; what cannot be measured so is not compared, and that is said."""
        names = [metric.name for metric in metrics if metric.name in MEASURED]
        self._left_out.update((metric.label, None) for metric in metrics if metric.name not in MEASURED)
        if not names or self._why_not:
            return ()
        plan = self._subject.plan
        try:
            offered = theirs.offer()
            differences = self._subject.setup.differences(offered.setup)
            if differences:
                self._why_not = f"not comparable with {theirs.name} ({'; '.join(differences)})"
                return ()
            self._bench.close()  # the two sides have the machine to themselves
            pairing = self._subject.pair(
                Side(theirs.name, theirs.start, replace(plan, payload=offered.payload)),
                Side("the present", self._subject.start, plan),
            )
            return self._judge_pairing(pairing, names, tolerance)
        except NothingToCompareError as error:
            self._why_not = str(error)
            return ()
        finally:
            theirs.close()

    def _judge_pairing(self, pairing: Pairing, names: Sequence[str], tolerance: float) -> Sequence[Judgement]:
        try:
            found = judge_no_slower(pairing, names, tolerance, self._settings.budget_ns)
        except KeyboardInterrupt:
            self._evidence.interrupted = True
            raise
        finally:
            self._evidence.take(pairing.second_launches)
            self._evidence.paired_s += pairing.spent_s
        self.counterpart = counterpart_in_pairing(pairing)
        return found


def see_that_it_counts(metrics: Metrics, *, errors_count: bool = True) -> None:
    """Raise where what was measured supports no verdict.

    Raises:
        UncountableResultError: and says why.
    """
    if why := why_uncountable(metrics, errors_count=errors_count):
        raise UncountableResultError(why)


def stand_on(metrics: Metrics, metric: Metric) -> Stand:
    """What a verdict on a metric rests on so far."""
    return Stand(max(len(metrics.launch_values(metric)), 1), metrics.blocks)


def to_the_end(_value: LaunchValue) -> bool:
    """A search that goes on to its end."""
    return False
