"""Verdicts on ratios of two sides that are measured in turns: a limit of a ratio, and the change of a metric.

Pure. This module must not know how variants are started, nor which metrics a comparison judges.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.analysis.metrics.metric import Location, Metric
from pytest_mlpatterns.analysis.statistics.log_ratio import USUAL_PRIOR, RatioPrior, judge_ratio
from pytest_mlpatterns.analysis.verdicts.launch_kinds import PairedKinds, paired_kinds, side_of
from pytest_mlpatterns.analysis.verdicts.tolerances import median_text
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
    from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, RatioVerdict
    from pytest_mlpatterns.judging.look import Pairs

_LEAST = 1e-9  # Smallest limit on a ratio of rates, since 0 has no logarithm


class RatioQuestion(Struct, frozen=True):
    """One metric of a run, and the limit of the ratio second/first."""

    metric: str  # its name
    limit: float  # of the ratio
    better: Literal["lower", "higher"]  # whether a lower or a higher ratio is better
    plan: SequentialPlan  # the interim looks
    equivalence: bool = True  # whether a PASS has to be shown; False for a guard
    prior: RatioPrior = USUAL_PRIOR  # what the interval starts from

    @classmethod
    def of_change(cls, metric: Metric, allowed: float, plan: SequentialPlan) -> RatioQuestion:
        """Whether the second side is worse than the first by more than a share."""
        limit = 1 + allowed if metric.better == "lower" else max(1 - allowed, _LEAST)
        return cls(metric.name, limit, metric.better, plan)

    def verdict(self, ratios: Sequence[LogRatio], since: int = 1) -> RatioVerdict:
        """The verdict on these ratios, of the looks from ``since`` launches on."""
        plan = replace(self.plan, since=since)
        return judge_ratio(ratios, self.limit, self.better, plan=plan, prior=self.prior, equivalence=self.equivalence)

    def change(self, pairs: Pairs, *, tolerance: float, confirming: int) -> Verdict:
        """The verdict on the change of the metric, within the kinds of launches if these are two.

        ``confirming``: pairs that a failure rests on.
        """
        verdict, kinds = self._without_kinds(pairs, confirming)
        judged = change_verdict(self, verdict, pairs, tolerance=tolerance)
        return judged if kinds is None else _with_kinds(judged, kinds.describe(metric_named(self.metric)))

    def _without_kinds(self, pairs: Pairs, confirming: int) -> tuple[RatioVerdict, PairedKinds | None]:
        """The verdict on paired launches, and their kinds if these are two."""
        ratios = pairs.ratios(self.metric)
        first, second = (
            side_of([LaunchValue(value, 0.0) for value in values], metrics.launch_values)
            for values, metrics in zip(pairs.figures(self.metric), (pairs.first, pairs.second), strict=True)
        )
        kinds = paired_kinds(ratios, first, second)
        if kinds is None:
            verdict = self.verdict(ratios)
            is_early = verdict.outcome is Outcome.FAIL and verdict.launches < confirming <= len(ratios)
            return (self.verdict(ratios, since=confirming) if is_early else verdict), None
        judge = partial(self.verdict, since=min(len(ratios), self.plan.last))
        better = metric_named(self.metric).better
        return kinds.verdict(judge, better=better, tolerance=abs(self.limit - 1)), kinds


def _with_kinds(verdict: Verdict, words: str) -> Verdict:
    """The verdict with the kinds of its launches, which leave it open if its interval does not."""
    change, tolerance = verdict.change, verdict.tolerance or 0.0
    contains = change is not None and change.low <= tolerance < change.high
    if verdict.outcome is Outcome.INCONCLUSIVE and not contains:
        return verdict.left_open(WhyOpen(OpenBy.KINDS, words))
    return verdict.saying(words)


def change_verdict(question: RatioQuestion, verdict: RatioVerdict, pairs: Pairs, *, tolerance: float) -> Verdict:
    """The verdict on a ratio as one on a change, with its reason in words."""
    metric = metric_named(question.metric)
    printed = pairs.printed(metric.name, verdict)
    ratio = verdict.judged
    change = Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)
    if metric.better == "higher":
        change = Estimate(-change.value, -change.high, -change.low)
    word, low, high = ("worse", change.low, change.high) if change.value >= 0 else ("better", -change.high, -change.low)
    by_floor = abs(question.limit - 1) > tolerance + _LEAST and change.high > tolerance
    floor = f"; changes up to {metric.floor_text} do not count" if by_floor else ""
    reason = (
        f"{metric.label} {pairs.named(metric.name, printed)}: {format_percent(abs(change.value))} {word} "
        f"({format_percent(low, signed=True)} to {format_percent(high, signed=True)}); "
        f"tolerance {format_percent(tolerance)}{floor}; {pairs.measured(verdict)}"
    )
    found = Verdict(metric.name, "revision", verdict.outcome, reason, change, tolerance, *printed)
    if not isinstance(metric.kind, Location):
        return found
    own = metric_named(metric.kind.stands_for)
    medians = " against ".join(map(own.show, pairs.means(own.name)))
    reason += f"; {median_text(own, medians)}"
    return replace(found, metric=own.name, reason=reason, judged_by=metric.name)
