"""Verdicts on interleaved runs: faster than another pattern, no slower than another revision.

It must not know how variants are started, nor pytest.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.log_ratio import judge_ratio
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.log_ratio import LogRatio, PairedCapacity, PairedLaunch, RatioVerdict
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun

__all__ = ["COMPARABLE_METRICS", "PAIRED_METRICS", "judge_faster", "judge_no_slower"]

COMPARABLE_METRICS = ("rtm", "throughput", "nmrt")
"""Metrics by which one pattern can be faster than another."""
PAIRED_METRICS = ("rtm", "throughput", "cpu_per_request")
"""Metrics that a paired launch measures."""
_LEAST = 1e-9
"""Smallest limit on a ratio of rates, since 0 has no logarithm."""
_ALPHA = 0.025
"""Probability of failing a change exactly at the tolerance, and of passing one just beyond it."""
_LAUNCH_NS = 2_700_000_000
"""Shortest paired launch; the launches that fit into the budget bound the number of interim looks."""


@dataclass(frozen=True, slots=True)
class _Question:
    """One metric of a run, and the limit of the ratio second/first.

    Attributes:
        metric: its name.
        limit: of the ratio.
        better: whether a lower or a higher ratio is better.
        plan: the interim looks.
    """

    metric: str
    limit: float
    better: Literal["lower", "higher"]
    plan: SequentialPlan

    def ratios(self, found: Sequence[PairedLaunch] | Sequence[PairedCapacity]) -> list[LogRatio]:
        """The ratios of the launches in which both variants have the metric."""
        return [ratio for one in found if (ratio := getattr(one, self.metric)) is not None]

    def verdict(self, found: Sequence[PairedLaunch] | Sequence[PairedCapacity]) -> RatioVerdict:
        return judge_ratio(self.ratios(found), self.limit, self.better, plan=self.plan)


def judge_faster(run: InterleavedRun, on: str, by: float, *, budget_ns: int) -> Verdict:
    """Measure until it is decided whether the first variant is ``by`` times as fast as the second.

    Args:
        run: an interleaved run of this pattern and the other, in that order.
        on: one of :data:`COMPARABLE_METRICS`; a lower RTM is faster.
        by: smallest acceptable factor.
        budget_ns: time that the run may take.

    Raises:
        DeploymentError, InvalidResultError: as :meth:`pytest_mlpatterns.measurement.interleaved.InterleavedRun.decide`
        does.
    """
    lower = METRICS[on].better == "lower"
    first = 2 if on == "nmrt" else 3
    question = _Question(
        on, by if lower else 1 / by, "higher" if lower else "lower", SequentialPlan(first=first, last=8)
    )
    if on == "nmrt":
        run.decide_nmrt(lambda found: question.verdict(found).outcome, budget_ns, max_launches=8)
        verdict = question.verdict(run.capacities)
    else:
        run.decide(lambda found: question.verdict(found).outcome, budget_ns, max_launches=8)
        verdict = question.verdict(run.launches)
    faster = verdict.judged if lower else _inverse(verdict.judged)
    verb = {Outcome.PASS: "is", Outcome.FAIL: "is not", Outcome.INCONCLUSIVE: "may or may not be"}[verdict.outcome]
    reason = (
        f"{METRICS[on].label} {_figures(run, on)}: {faster.value:.3g} times as fast ({faster.low:.3g} to "
        f"{faster.high:.3g}), which {verb} at least {by:g}; {_measured(run, verdict)}"
    )
    return Verdict(on, "pattern", verdict.outcome, reason)


def judge_no_slower(
    run: InterleavedRun, metrics: Sequence[str], tolerance: float, *, budget_ns: int
) -> tuple[Verdict, ...]:
    """Measure until it is decided whether the second variant is worse than the first beyond the tolerance.

    A change counts only if it also exceeds the metric's absolute floor. Metrics that are judged together share the
    probability of a false alarm.

    Args:
        run: an interleaved run of the reference and the present, in that order.
        metrics: names of attributes of :class:`pytest_mlpatterns.analysis.log_ratio.PairedLaunch`; one that no launch
            has for both variants gets no verdict.
        tolerance: largest acceptable worsening, 0.05 for 5 %.
        budget_ns: time that the run may take.

    Raises:
        DeploymentError, InvalidResultError: as :meth:`pytest_mlpatterns.measurement.interleaved.InterleavedRun.decide`
        does.
    """
    plan = SequentialPlan.for_tolerance(tolerance, _ALPHA / len(metrics), _ALPHA, most=budget_ns // _LAUNCH_NS)
    questions = [
        _Question(name, 1 + tolerance, "lower", plan)
        if METRICS[name].better == "lower"
        else _Question(name, max(1 - tolerance, _LEAST), "higher", plan)
        for name in metrics
    ]

    def judge(found: Sequence[PairedLaunch]) -> Outcome:
        outcomes = [_outcome(question, found, run.in_flight) for question in questions if question.ratios(found)]
        if Outcome.FAIL in outcomes:
            return Outcome.FAIL
        return Outcome.INCONCLUSIVE if Outcome.INCONCLUSIVE in outcomes else Outcome.PASS

    run.decide(judge, budget_ns, max_launches=plan.last)
    known = [question for question in questions if question.ratios(run.launches)]
    return tuple(_verdict(run, question, tolerance) for question in known)


def _outcome(question: _Question, found: Sequence[PairedLaunch], in_flight: int | None) -> Outcome:
    verdict = question.verdict(found)
    first, second = _means(question.metric, found)
    small = METRICS[question.metric].is_small(first, second, in_flight)
    return Outcome.PASS if verdict.outcome is Outcome.FAIL and small else verdict.outcome


def _verdict(run: InterleavedRun, question: _Question, tolerance: float) -> Verdict:
    metric = METRICS[question.metric]
    verdict = question.verdict(run.launches)
    outcome = _outcome(question, run.launches, run.in_flight)
    ratio = verdict.judged
    change = Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)
    if metric.better == "higher":
        change = Estimate(-change.value, -change.high, -change.low)
    word, low, high = ("worse", change.low, change.high) if change.value >= 0 else ("better", -change.high, -change.low)
    floor = f"; changes up to {metric.floor_text} do not count" if outcome is not verdict.outcome else ""
    reason = (
        f"{metric.label} {_figures(run, question.metric)}: {format_percent(abs(change.value))} {word} "
        f"({format_percent(low, signed=True)} to {format_percent(high, signed=True)}); "
        f"tolerance {format_percent(tolerance)}{floor}; {_measured(run, verdict)}"
    )
    return Verdict(question.metric, "revision", outcome, reason, change)


def _means(metric: str, found: Sequence[PairedLaunch]) -> tuple[float, float]:
    """The mean of the metric for both variants, over the launches that have it."""
    name = {"rtm": "rtm_ns", "throughput": "throughput_rps", "cpu_per_request": "cpu_ns_per_request"}[metric]
    known = [launch for launch in found if getattr(launch, metric) is not None]
    variants = [launch.first for launch in known], [launch.second for launch in known]
    first, second = (fmean(getattr(variant, name) for variant in launches) for launches in variants)
    return first, second


def _figures(run: InterleavedRun, name: str) -> str:
    """The figures of both variants with their names: ``2.0 ms (cached) against 4.1 ms (single)``."""
    metric = METRICS[name]
    if name == "nmrt":
        values = (
            fmean(one.first.nmrt.value for one in run.capacities),
            fmean(one.second.nmrt.value for one in run.capacities),
        )
    else:
        values = _means(name, run.launches)
    first, second = (f"{metric.show(value)} ({variant})" for value, variant in zip(values, run.names, strict=True))
    return f"{first} against {second}"


def _measured(run: InterleavedRun, verdict: RatioVerdict) -> str:
    count = verdict.launches
    return f"{wording.count(count, 'paired launch', 'paired launches')} in {run.spent_s:.1f} s"


def _inverse(ratio: Estimate) -> Estimate:
    return Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
